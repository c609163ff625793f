"""Tokens a second of a GPT on the CPU, against the paper authors' training script on the same machine.

The model has 4 layers of width 192, 6 heads, context 256, a vocabulary of 256 bytes; batch 16. Both sides read the same
bytes and take the same number of steps with AdamW and clip; steps are timed after the first quarter, which has the
warm-up and, where there is one, the compilation. Measurements are interleaved, each in a process of its own with
torch's default threads; medians are compared.

The script is not part of this project: give the folder ``large_language_models`` of the repository
``tml-epfl/why-weight-decay`` as ``--peer``. On the CPU it computes in float32 whatever ``dtype`` says; it is timed
eager and compiled, and the faster of the two counts. Without ``--peer`` only our own speeds are printed.
"""

from __future__ import annotations

import argparse
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from decaylab.schedules import Schedule
from decaylab.train.config import Evaluation, LanguageData, LanguageModel, LanguageRun, Optimizer, Probes

TOKENS_A_STEP = 16 * 256
BASE = LanguageRun(
    model=LanguageModel(num_layers=4, num_heads=6, width=192, context=256),
    data=LanguageData(corpus="stdlib", tokenizer="bytes"),
    optimizer=Optimizer(name="adamw", lr=6e-4, clip=1.0),
    schedule=Schedule(kind="cosine", warmup_steps=2),
    evaluation=Evaluation(every=10**6, batches=1, batch_size=16),
    probes=Probes(names=(), every=10**6),
    batch_size=16,
)
OURS = {
    "float32": BASE,
    "bfloat16 compiled": replace(BASE, precision="bfloat16", compile=True),
    "bfloat16": replace(BASE, precision="bfloat16"),
}


def ours(name: str, steps: int) -> float:
    """Train with our loop and return tokens a second after the first quarter."""
    from decaylab.train import loop

    config = replace(OURS[name], steps=steps)
    times: list[float] = []
    # Each step's end is seen through the clock that the loop itself reads once a step.
    original = time.monotonic

    def clock() -> float:
        now = original()
        times.append(now)
        return now

    loop.time.monotonic = clock  # type: ignore[attr-defined]
    loop.fit(config, lambda record: None)
    ends = times[1 : steps + 1]
    skipped = steps // 4
    return TOKENS_A_STEP / statistics.median(b - a for a, b in zip(ends[skipped:], ends[skipped + 1 :], strict=False))


def peer(folder: Path, *, compiled: bool, steps: int) -> float:
    """Run the authors' script on our bytes and return its tokens a second after the first quarter."""
    from decaylab import data

    stream = data.text("stdlib", "bytes")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "script"
        shutil.copytree(folder, copy)
        place = copy / "data" / "bench"
        place.mkdir(parents=True)
        for split, tokens in (("train", stream.train), ("val", stream.val)):
            tokens.tofile(place / f"{split}.bin")
        # The script takes the vocabulary's size from a pickle beside the data; it is written here, read by it alone.
        (place / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": stream.vocab_size}))
        settings = {
            "dataset": "bench", "device": "cpu", "dtype": "float32", "compile": compiled, "wandb_log": False,
            "out_dir": "", "n_layer": 4, "n_head": 6, "n_embd": 192, "block_size": 256, "batch_size": 16,
            "gradient_accumulation_steps": 1, "max_iters": steps, "warmup_iters": 2, "eval_interval": 10**6,
            "eval_examples": 16, "learning_rate": 6e-4, "weight_decay": 0.1,
        }  # fmt: skip
        command = [sys.executable, "train.py", *(f"--{name}={value}" for name, value in settings.items())]
        output = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout
    times = [float(t) for t in re.findall(r"iter time ([0-9.]+)", output)]
    return TOKENS_A_STEP / statistics.median(times[len(times) // 4 :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder large_language_models of the authors' repository")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=OURS, help="measure one of our settings, print tokens a second")
    arguments = parser.parse_args()
    if arguments.only:
        print(ours(arguments.only, arguments.steps))
        return
    speeds: dict[str, list[float]] = {}
    for _ in range(arguments.repeats):
        for name in OURS:
            command = [sys.executable, __file__, "--only", name, "--steps", str(arguments.steps)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            speeds.setdefault(f"ours, {name}", []).append(float(output))
        for compiled in (False, True) if arguments.peer else ():
            name = f"authors' script, float32{' compiled' if compiled else ''}"
            speeds.setdefault(name, []).append(peer(arguments.peer, compiled=compiled, steps=arguments.steps))
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    for name, speed in middle.items():
        print(f"{name:<40} {speed:8.0f} tokens/s")
    theirs = max((speed for name, speed in middle.items() if name.startswith("authors")), default=None)
    if theirs is None:
        print("give --peer for the ratio against the authors' script")
        return
    print(f"ratio bfloat16 {middle['ours, bfloat16 compiled'] / theirs:.2f}")
    print(f"ratio float32 {middle['ours, float32'] / theirs:.2f}")


if __name__ == "__main__":
    main()
