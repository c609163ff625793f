"""Do the commands that people type work on the GPU, from the first run to the page?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gpu_kit.sections import Environment

COMMANDS = {
    "train language": "train language --steps 20 --schedule.warmup-steps 4 --model.num-layers 1 "
    "--model.num-heads 2 --model.width 32 --model.context 32 --batch-size 8 --evaluation.batches 2 "
    "--evaluation.every 10 --decay.rule cautious --decay.weight-decay 0.1 --precision bfloat16",
    "train vision": "train vision --epochs 2 --decay.rule rotational --decay.weight-decay 0.01 "
    "--optimizer.momentum 0.9 --data.train-size 256",
    "reproduce": "reproduce fig1 fig5 fig7 --budget smoke",
}


def check(environment: Environment) -> None:
    """Run each command in a process and a store of its own."""
    for name, command in COMMANDS.items():
        if environment.smoke and name == "reproduce":
            continue
        with environment.record.check(f"decaylab {name}"):
            folder = environment.scratch / name.replace(" ", "-")
            folder.mkdir(exist_ok=True)
            words = [*command.split(), "--device", environment.device, "--store", str(folder / "runs.db")]
            if name == "reproduce":
                words += ["--out", str(folder / "report")]
            _run(words, folder)


def _run(words: list[str], folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "decaylab", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=140,
        env=os.environ,
    )
    print(done.stdout[-3000:])
    if done.returncode:
        raise AssertionError(f"status {done.returncode}: {done.stdout[-500:]}")
