"""Kills, suspensions, flipped bits and full disks against a run: every one ends with the bits of an undisturbed one.

    python -m tests.campaign.campaign [--kills 40] [--suspensions 20] [--flips 20] [--full-disks 5] [--seed N]

Every worker is a copy of this process, which has imported everything and trained nothing; it trains in a store of its
trial, with short leases and many checkpoints. It is killed or suspended at a moment of chance, or by itself right
before a call that matters. A trial ends when a worker has come to the end; then all metrics and the last weights are
compared, bit for bit. Full disks are small file systems in memory, which only root can mount.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._dynamo

from decaylab.config.schema import (
    Averages,
    Decay,
    Evaluation,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
)
from decaylab.launch.scheduler import Queue, Run
from decaylab.launch.worker import Worker, train
from decaylab.schedules import Schedule
from decaylab.store.checkpoint_ledger import CheckpointLedger
from decaylab.store.leases import Leases
from decaylab.store.metric_writer import MetricWriter
from decaylab.store.store import Store
from decaylab.train.checkpoints import files, layout
from decaylab.train.checkpoints.run_state import RunState

CONFIG = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=1, width=8, context=8, dropout=0.1),
    data=LanguageData(tokenizer="ascii"),
    optimizer=Optimizer(name="adamw", lr=1e-2, clip=1.0),
    decay=Decay(weight_decay=0.1, roles=("matrix",)),
    schedule=Schedule(kind="cosine", warmup_steps=20),
    averages=Averages(ema=(0.9,), uniform=True),
    evaluation=Evaluation(every=30, batches=2, batch_size=4),
    probes=Probes(every=7),
    snapshots_every=50,
    batch_size=4,
    accumulation=2,
    steps=200,
)
RUN = Run.of(CONFIG)
LEASE_SECONDS = 0.4
CHECKPOINT_SECONDS = 0.05
# What a worker is about to do when it is killed or suspended: where that is called.
MOMENTS: dict[str, tuple[Any, str]] = {
    "first record": (CheckpointLedger, "begin"),
    "commit": (CheckpointLedger, "commit"),
    "half a checkpoint": (torch, "save"),
    "confirmation": (CheckpointLedger, "confirm"),
    "rename": (files, "_put"),
    "prune": (layout, "prune"),
    "snapshot": (RunState, "save_snapshot"),
    "flush": (MetricWriter, "flush"),
    "end": (Leases, "finish"),
}
Result = tuple[dict[tuple[int, str], float], bytes]


def live(folder: Path, number: int | None, moment: str, times: int) -> None:
    """Be a worker of the trial in ``folder``; send oneself a signal right before the moment, at its n-th time."""
    torch.set_num_threads(1)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    if number is not None and moment in MOMENTS:
        place, name = MOMENTS[moment]
        setattr(place, name, _deadly(getattr(place, name), number, times))

    def target(config: Any, record: Any, **options: Any) -> Any:
        (folder / "began").touch()
        return train(config, record, checkpoint_seconds=CHECKPOINT_SECONDS, **options)

    with Store(folder / "runs.db") as store:
        store.add(RUN.id, RUN.config, kind=RUN.kind)
        store.retry([RUN.id])
        queue = Queue(store, [RUN])
        worker = Worker(store, queue, name=uuid.uuid4().hex, target=target, lease_seconds=LEASE_SECONDS)
        signal.signal(signal.SIGTERM, lambda *_: setattr(worker, "stopping", True))
        worker.work()


def _deadly(function: Callable[..., Any], number: int, times: int) -> Callable[..., Any]:
    left = times

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)
        return function(*arguments, **options)

    return wrapped


def start(folder: Path, number: int | None = None, moment: str = "", times: int = 1) -> int:
    """Start a worker; return its process number."""
    (folder / "began").unlink(missing_ok=True)
    child = os.fork()
    if child:
        return child
    try:
        live(folder, number, moment, times)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; whether it came about in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def has_ended(child: int) -> bool:
    """Whether a child has ended; it stays to be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end_of(child: int) -> int:
    """Wait for a child; return its exit code, negative after a signal."""
    if not wait_until(lambda: has_ended(child), 300):
        os.kill(child, signal.SIGKILL)
        raise AssertionError(f"worker {child} did not end in five minutes")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def is_stopped(child: int) -> bool:
    """Whether a child is suspended."""
    return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def look(folder: Path) -> tuple[str, int]:
    """Return a trial's status and the step that it has reached."""
    if not (folder / "runs.db").exists():
        return "waiting", 0
    with Store(folder / "runs.db") as store:
        state = store.states([RUN.id]).get(RUN.id)
    return ("waiting", 0) if state is None else (state.status, state.step)


def finish(folder: Path) -> None:
    """Train to the end."""
    while look(folder)[0] != "done":
        code = end_of(start(folder))
        if code != 0:
            raise AssertionError(f"a worker that nobody disturbed ended with {code}:\n{(folder / 'log').read_text()}")


def result(folder: Path) -> Result:
    """Return every metric and the last weights."""
    with Store(folder / "runs.db") as store:
        row = store.get(RUN.id)
        assert row is not None and row.status == "done", row
        left = [path.name for path in store.folder(RUN.id).iterdir() if not path.name.startswith("snapshot-")]
        assert left in ([], ["error.txt"]), f"left behind: {left}"
        points = {(step, key): value for _, step, key, value in store.table([RUN.id]).itertuples(index=False)}
        weights = b"".join(
            (path / "weights.safetensors").read_bytes() for _, path in layout.snapshots(store.folder(RUN.id))
        )
    return points, weights


def compare(folder: Path, expected: Result) -> None:
    """Raise an error that tells how a trial ended otherwise than the undisturbed run."""
    points, weights = result(folder)
    missing, more = expected[0].keys() - points.keys(), points.keys() - expected[0].keys()
    other = [key for key in expected[0].keys() & points.keys() if points[key] != expected[0][key]]
    if missing or more or other or weights != expected[1]:
        log = (folder / "log").read_text()
        raise AssertionError(
            f"{folder}: {len(missing)} points missing, {len(more)} too many, {len(other)} different, weights "
            f"{'equal' if weights == expected[1] else 'different'}\n{log}"
        )


def kill(folder: Path, chance: random.Random, left: int) -> Counter[str]:
    """Kill workers of one trial, up to eight and up to ``left``."""
    done: Counter[str] = Counter()
    for _ in range(min(8, left)):
        moment = chance.choice(["whenever", "whenever", *MOMENTS])
        child = start(folder, signal.SIGKILL, moment, chance.randint(1, 6) if moment != "end" else 1)
        if moment == "whenever":
            wait_until(lambda child=child: (folder / "began").exists() or has_ended(child), 60)
            time.sleep(chance.uniform(0.0, 0.4))
            os.kill(child, signal.SIGKILL)
        code = end_of(child)
        done[moment] += code == -signal.SIGKILL
        if look(folder)[0] == "done":
            break
    return done


def suspend(folder: Path, chance: random.Random, left: int) -> Counter[str]:
    """Suspend the worker of a trial, once, until its lease has run out and another has the run, or has ended it."""
    moment = chance.choice(["whenever", *MOMENTS])
    first = start(folder, signal.SIGSTOP, moment, chance.randint(1, 4) if moment not in ("first record", "end") else 1)
    if moment == "whenever":
        wait_until(lambda: (folder / "began").exists() or has_ended(first), 60)
        time.sleep(chance.uniform(0.0, 0.4))
        if not has_ended(first):
            os.kill(first, signal.SIGSTOP)
    wait_until(lambda: has_ended(first) or is_stopped(first), 60)
    stopped = not has_ended(first)
    step = look(folder)[1]
    second = start(folder)
    if chance.random() < 0.5:  # wakes up in the middle of the other's work; or when all is over
        wait_until(lambda: has_ended(second) or ((folder / "began").exists() and look(folder)[1] > step), 10)
        time.sleep(chance.uniform(0.0, 0.3))
    else:  # unless it was suspended with the database locked
        wait_until(lambda: has_ended(second), 15)
    if stopped:
        os.kill(first, signal.SIGCONT)
    codes = end_of(first), end_of(second)
    if codes != (0, 0):
        raise AssertionError(f"workers ended with {codes}:\n{(folder / 'log').read_text()}")
    return Counter({moment: int(stopped)})


def flip(folder: Path, chance: random.Random, left: int) -> Counter[str]:
    """Flip a bit in one file of a checkpoint, of the newest or of each, up to four times."""
    done: Counter[str] = Counter()
    for _ in range(min(4, left)):
        child = start(folder)
        wait_until(lambda child=child: (folder / "began").exists() or has_ended(child), 60)
        time.sleep(chance.uniform(0.1, 0.5))
        os.kill(child, signal.SIGTERM)
        assert end_of(child) == 0, (folder / "log").read_text()
        found = layout.checkpoints(folder / "runs" / RUN.id)
        if not found or look(folder)[0] == "done":
            break
        for _, path in found if chance.random() < 0.3 else found[:1]:
            file = chance.choice(sorted(path.iterdir()))
            content = bytearray(file.read_bytes())
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            file.write_bytes(content)
            done[file.name] += 1
    return done


def fill(folder: Path, chance: random.Random, left: int) -> Counter[str]:
    """Let the disk be full, once, for a while in which the worker trains."""
    child = start(folder)
    wait_until(lambda: (folder / "began").exists() or has_ended(child), 60)
    time.sleep(chance.uniform(0.0, 0.3))
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    time.sleep(chance.uniform(0.5, 2.5))
    filler.unlink()
    end_of(child)  # whether it lived through it or not
    return Counter({"full disk": 1})


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a small file system at a folder."""
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "decaylab-campaign", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def why_no_disk(home: Path) -> str:
    """Say why no small disk can be had; empty when it can."""
    if os.getuid() != 0 or shutil.which("mount") is None:
        return "only root can mount small disks"
    folder = home / "disk"
    folder.mkdir()
    try:
        with small_disk(folder):
            return ""
    except (OSError, subprocess.CalledProcessError):
        return "small disks cannot be mounted here"


def campaign(wanted: dict[str, int], home: Path, chance: random.Random, say: Callable[[str], None]) -> Counter[str]:
    """Disturb trials until each disturbance has happened as often as wanted; raise an error where one ends otherwise.

    Returns:
        How often each happened, and ``trials``.
    """
    whole = home / "whole"
    whole.mkdir()
    finish(whole)
    expected = result(whole)
    acts = {"kills": kill, "suspensions": suspend, "flips": flip, "full disks": fill}
    done: Counter[str] = Counter()
    obstacle = why_no_disk(home)
    for name, act in acts.items():
        if name == "full disks" and obstacle and wanted[name]:
            say(f"full disks left out: {obstacle}")
            continue
        moments: Counter[str] = Counter()
        while moments.total() < wanted[name]:
            folder = home / f"{name.replace(' ', '-')}-{done['trials']}"
            folder.mkdir()
            done["trials"] += 1
            if act is fill:
                with small_disk(folder):
                    moments += fill(folder, chance, 1)
                    finish(folder)
                    compare(folder, expected)
            else:
                moments += act(folder, chance, wanted[name] - moments.total())
                finish(folder)
                compare(folder, expected)
            shutil.rmtree(folder)
        done[name] = moments.total()
        say(f"{name}: {moments.total()} ({', '.join(f'{m} {n}' for m, n in sorted(moments.items()) if n)})")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--suspensions", type=int, default=20)
    parser.add_argument("--flips", type=int, default=20)
    parser.add_argument("--full-disks", type=int, default=5)
    parser.add_argument("--seed", type=int, default=None, help="of what is left to chance; printed")
    parsed = parser.parse_args()
    seed = random.randrange(10**6) if parsed.seed is None else parsed.seed
    print(f"seed {seed}", flush=True)
    wanted = {
        "kills": parsed.kills,
        "suspensions": parsed.suspensions,
        "flips": parsed.flips,
        "full disks": parsed.full_disks,
    }
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # small disks are given back
    # In memory where it can be: what a kill leaves is the same there, and nobody waits for the disk.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=place) as folder:
        os.environ["DECAYLAB_HOME"] = str(Path(folder) / "home")
        done = campaign(wanted, Path(folder), random.Random(seed), lambda line: print(line, flush=True))
    counts = ", ".join(f"{done[name]} {name}" for name in wanted)
    print(f"{counts}: {done['trials']} runs, all bit for bit; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
