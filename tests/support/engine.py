"""A training function without torch for the launcher's tests: it counts steps, checkpoints, and fails on demand."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field

from decaylab.files import atomic_write_text


@dataclass
class Outcome:
    status: str
    reason: str = ""
    steps: int = 0
    summary: dict = field(default_factory=dict)


def train(config, record, *, folder, device, resolve, heartbeat, resume):
    """Do ``steps`` steps of ``seconds``; a checkpoint every ``every`` steps holds the step and a running sum.

    ``die_at``: the step at which the first attempts kill their own process, as many as ``deaths``; or a list with a
    step for each of the first attempts. ``abort_at``: the step at which the process aborts. ``raise_at``: the
    step at which an exception is raised, by the first ``raises`` attempts. ``origin``: a run whose result is the start
    of the sum.
    """
    checkpoint, done, total = folder / "checkpoint", 0, 0
    steps, every = config.get("steps", 3), config.get("every", 5)
    if "origin" in config:
        total = int((resolve(config["origin"]) / "result").read_text())
    if resume and checkpoint.exists():
        done, total = map(int, checkpoint.read_text().split())
        record({"resume": done})
    attempts = folder / "attempts"
    folder.mkdir(parents=True, exist_ok=True)
    with attempts.open("a") as file:
        file.write(f"{os.getpid()} {done}\n")
    while done < steps:
        done, total = done + 1, total + done + 1
        record({"step": done, "sum": total, "pid": os.getpid()})
        if done == config.get("raise_at") and len(attempts.read_text().splitlines()) <= config.get("raises", 10**9):
            raise ValueError("the loss\nwas bad")
        die_at, attempt = config.get("die_at"), len(attempts.read_text().splitlines())
        if isinstance(die_at, list):
            die_at = dict(enumerate(die_at, start=1)).get(attempt)
        elif attempt > config.get("deaths", 1):
            die_at = None
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if done == config.get("abort_at"):
            os.abort()
        if done % every == 0:
            record({"checkpoint": done})
            atomic_write_text(checkpoint, f"{done} {total}")
        time.sleep(config.get("seconds", 0))
        if not heartbeat(done, steps):
            record({"checkpoint": done})
            atomic_write_text(checkpoint, f"{done} {total}")
            return Outcome("interrupted", f"stopped at step {done}", done)
    atomic_write_text(folder / "result", str(total))
    return Outcome(config.get("end", "done"), "", done, {"sum": total})


def train_side_by_side(runs, *, device, resolve):
    """Train runs one after another, in the order given; a run with ``crash`` takes the whole function down."""
    for number, run in enumerate(runs):
        if run["config"].get("crash"):
            raise RuntimeError("the wide network burst")
        yield number, train(**run, device=device, resolve=resolve, resume=True)


not_a_function = None
