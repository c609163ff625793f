"""Speed and memory of a GPT's training on the CPU, against the paper authors' training script on the same machine.

The model has 4 layers of width 192, 6 heads, context 256, a vocabulary of 256 bytes; batch 16. Both sides read the same
bytes and take the same number of steps with AdamW and clip. Measurements are interleaved, each in a process of its own
with torch's default threads; medians are compared. Ours also runs as it would in a script that leaves the C library's
settings alone ("memory given back"). Printed:

- tokens a second, after the first quarter of the steps, which has the warm-up and, where there is one, the compilation;
- peak resident memory of the process that trains, evaluation and its share of the compilation included;
- our time a token late in a longer run over that early in it: it must not grow;
- what probes of norms and effective learning rate cost us at every 20 steps, in percent of a run without any.

The script is not part of this project: give the folder ``large_language_models`` of the repository
``tml-epfl/why-weight-decay`` as ``--peer``. On the CPU it computes in float32 whatever ``dtype`` says; it is run eager
and compiled, and the faster of the two, for memory the smaller of the two, counts. Without ``--peer`` only our own
numbers are printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from decaylab.config.schema import Evaluation, LanguageData, LanguageModel, LanguageRun, Optimizer, Probes

# Nothing here imports torch in the parent: its memory at the start of a child would count as the child's.
from decaylab.schedules import Schedule

TOKENS_A_STEP = 16 * 256
PROBES_EVERY = 20
BASE = LanguageRun(
    model=LanguageModel(num_layers=4, num_heads=6, width=192, context=256),
    data=LanguageData(corpus="stdlib", tokenizer="bytes"),
    optimizer=Optimizer(name="adamw", lr=6e-4, clip=1.0),
    schedule=Schedule(kind="cosine", warmup_steps=2),
    evaluation=Evaluation(every=10**6, batches=1, batch_size=16),
    probes=Probes(names=(), every=10**6),
    batch_size=16,
)
FAST = "bfloat16 compiled"
GIVEN_BACK = f"{FAST}, memory given back"
OURS = {
    "float32": BASE,
    FAST: replace(BASE, precision="bfloat16", compile=True),
    GIVEN_BACK: replace(BASE, precision="bfloat16", compile=True),
    "bfloat16": replace(BASE, precision="bfloat16"),
}
Measured = tuple[list[float], float]
"""Seconds of each step, and the peak resident memory of the process in MiB."""


def steps_of(name: str, steps: int) -> list[float]:
    """Train with our loop and return the seconds between the ends of its steps; the first step has none."""
    from decaylab.launch.malloc import keep_freed_memory
    from decaylab.train import fit as loop
    from decaylab.train.cadence import Agenda

    if name != GIVEN_BACK:
        keep_freed_memory()  # as workers do
    ends: list[float] = []
    original = Agenda.after

    def after(self: Agenda, done: int, total: int) -> object:
        ends.append(time.perf_counter())
        return original(self, done, total)

    Agenda.after = after  # type: ignore[assignment,method-assign]  # the loop asks once a step, at its end
    loop.fit(replace(OURS[name], steps=steps), lambda record: None)
    return [b - a for a, b in itertools.pairwise(ends)]


def blocks_with_and_without_probes(blocks: int) -> list[list[float]]:
    """Let a run without probes and one with them take turns, a reading a block; return the seconds of their blocks.

    Both report their mean loss once a block, so the probes alone are the difference.
    """
    from decaylab.launch.malloc import keep_freed_memory
    from decaylab.train.distributed import Processes
    from decaylab.train.trainer import Training

    keep_freed_memory()
    trainings = []
    for names in ((), ("norms", "effective_lr")):
        config = replace(OURS[FAST], steps=10**6, probes=Probes(names=names, every=PROBES_EVERY))
        trainings.append(Training(config, lambda record: None, None, Processes(device="cpu"), None))
    seconds: list[list[float]] = [[], []]
    for block in range(blocks + 1):
        for number in (0, 1) if block % 2 else (1, 0):
            start = time.perf_counter()
            for step in range(block * PROBES_EVERY, (block + 1) * PROBES_EVERY):
                trainings[number].step(step)
            trainings[number]._record((block + 1) * PROBES_EVERY)
            seconds[number].append(time.perf_counter() - start)
    return [times[1:] for times in seconds]  # the first block has the warm-up and the compilation


def prepare(folder: Path, script: Path) -> None:
    """Copy the authors' script and write our bytes where it looks for data."""
    from decaylab import data

    stream = data.text("stdlib", "bytes")
    shutil.copytree(folder, script)
    place = script / "data" / "bench"
    place.mkdir(parents=True)
    for split, tokens in (("train", stream.train), ("val", stream.val)):
        tokens.tofile(place / f"{split}.bin")
    # The script takes the vocabulary's size from a pickle beside the data; it is written here, read by it alone.
    (place / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": stream.vocab_size}))


def run(command: Sequence[str], folder: Path | None = None) -> tuple[str, float]:
    """Run a process; return what it printed and its peak resident memory in MiB.

    On Linux it is the process's own peak, looked at until it ends: what the system tells of an ended process is the
    largest of it and of its children, and here that is a C++ compiler.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True)
        peak = Peak(process.pid)
        assert process.stdout is not None
        output = process.stdout.read()
        peak.ended.set()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read()[-2000:]}")
    return output, peak.mebibytes or usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


class Peak(threading.Thread):
    """Looks at the peak memory of a process until told that it has ended; 0 where the system does not tell."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.status, self.mebibytes, self.ended = Path(f"/proc/{pid}/status"), 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        """Look."""
        while not self.ended.wait(0.02):
            with suppress(OSError):
                found = re.search(r"VmHWM:\s+(\d+) kB", self.status.read_text())
                self.mebibytes = max(self.mebibytes, int(found[1]) / 2**10 if found else 0.0)


def ours(name: str, steps: int) -> Measured:
    """Measure one of our settings in a process of its own."""
    output, memory = run([sys.executable, __file__, "--only", name, "--steps", str(steps)])
    return json.loads(output), memory


def theirs(script: Path, *, compiled: bool, steps: int) -> Measured:
    """Measure the authors' script in a process of its own."""
    settings = {
        "dataset": "bench", "device": "cpu", "dtype": "float32", "compile": compiled, "wandb_log": False,
        "out_dir": "", "n_layer": 4, "n_head": 6, "n_embd": 192, "block_size": 256, "batch_size": 16,
        "gradient_accumulation_steps": 1, "max_iters": steps, "warmup_iters": 2, "eval_interval": 10**6,
        "eval_examples": 16, "learning_rate": 6e-4, "weight_decay": 0.1,
    }  # fmt: skip
    command = [sys.executable, "train.py", *(f"--{name}={value}" for name, value in settings.items())]
    output, memory = run(command, script)
    return [float(t) for t in re.findall(r"iter time ([0-9.]+)", output)], memory


def compare(peer: Path | None, steps: int, repeats: int) -> None:
    """Print tokens a second and peak memory of both sides, and their ratios."""
    speeds, memories = defaultdict(list), defaultdict(list)

    def note(name: str, measured: Measured) -> None:
        times, memory = measured
        speeds[name].append(TOKENS_A_STEP / statistics.median(times[len(times) // 4 :]))
        memories[name].append(memory)

    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "script"
        if peer is not None:
            run([sys.executable, __file__, "--prepare", str(script), "--peer", str(peer)])
        for _ in range(repeats):
            for name in OURS:
                note(f"ours, {name}", ours(name, steps))
            for compiled in (False, True) if peer is not None else ():
                name = f"authors' script, float32{' compiled' if compiled else ''}"
                note(name, theirs(script, compiled=compiled, steps=steps))
    speed, memory = _middle(speeds), _middle(memories)
    for name in speed:
        print(f"{name:<40} {speed[name]:8.0f} tokens/s {memory[name]:8.0f} MiB at most")
    if peer is None:
        print("give --peer for the ratios against the authors' script")
        return
    fastest = max(value for name, value in speed.items() if name.startswith("authors"))
    smallest = min(value for name, value in memory.items() if name.startswith("authors"))
    for label, name in (("bfloat16", f"ours, {FAST}"), ("float32", "ours, float32")):
        print(f"ratio {label} {speed[name] / fastest:.2f}")
        print(f"memory ratio {label} {memory[name] / smallest:.2f}")


def growth(steps: int, repeats: int) -> None:
    """Print our time a token in the last quarter of a longer run over that in its second quarter."""
    ratios = []
    for _ in range(repeats):
        times, _ = ours(FAST, steps)
        quarter = len(times) // 4
        ratios.append(statistics.median(times[-quarter:]) / statistics.median(times[quarter : 2 * quarter]))
    print(f"late over early in {steps} steps, {FAST}: ratio {statistics.median(ratios):.3f}")


def probes(blocks: int) -> None:
    """Print the cost of probes in percent of a run without any."""
    output, _ = run([sys.executable, __file__, "--probes", str(blocks)])
    without, with_them = map(statistics.median, json.loads(output))
    percent = 100 * (with_them / without - 1)
    print(f"norms and effective_lr every {PROBES_EVERY} steps, {FAST}: {percent:+.2f} % of a run without probes")


def _middle(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(numbers) for name, numbers in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder large_language_models of the authors' repository")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", type=int, default=400, help="steps of the longer run; 0 leaves it out")
    parser.add_argument("--blocks", type=int, default=20, help="blocks with probes and without; 0 leaves them out")
    for name, kind in (("--only", str), ("--prepare", Path), ("--probes", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)  # what the processes of their own do
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(steps_of(arguments.only, arguments.steps)))
    elif arguments.prepare:
        prepare(arguments.peer, arguments.prepare)
    elif arguments.probes:
        print(json.dumps(blocks_with_and_without_probes(arguments.probes)))
    else:
        compare(arguments.peer, arguments.steps, arguments.repeats)
        if arguments.long:
            growth(arguments.long, arguments.repeats)
        if arguments.blocks:
            probes(arguments.blocks)


if __name__ == "__main__":
    main()
