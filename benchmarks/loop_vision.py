"""Training steps a second of a small network, against the plain PyTorch loop that a user would write.

Two ratios, each the median of interleaved measurements in one run:

- steps: our loop in one process with one thread, four runs side by side as the launcher trains them, against a
  DataLoader, an eager step and torch's default number of threads; one run by itself is timed too;
- sweep: eight runs through the launcher on all cores, its start included, against the plain loop eight times
  in one process, one after another.

The network, the data, the batch size and the number of steps are those of Fig. 1's residual runs at the mini budget,
the same on both sides; both train only. The plain loop is also timed with its data in memory and one thread:
what is left then is torch's own time for one network.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from decaylab.config.schema import (
    Decay,
    Evaluation,
    Optimizer,
    Probes,
    VisionData,
    VisionModel,
    VisionRun,
)
from decaylab.launch.backends.local import launch
from decaylab.launch.scheduler import Run
from decaylab.schedules import Schedule

EPOCHS, TRAIN_SIZE, BESIDE = 200, 256, 4
RUN = VisionRun(
    model=VisionModel(architecture="resnet_small", width=8),
    data=VisionData(dataset="digits", train_size=TRAIN_SIZE),
    optimizer=Optimizer(lr=0.1),
    decay=Decay(rule="l2", weight_decay=0.01),
    schedule=Schedule(kind="constant"),
    evaluation=Evaluation(every=10**6),
    probes=Probes(names=(), every=10**6),
    batch_size=32,
    epochs=EPOCHS,
)


def plain(seeds: int) -> float:
    """Train with a DataLoader and an eager loop; returns the seconds of training, without imports and data."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from decaylab import data, models

    images = data.vision("digits", train_size=TRAIN_SIZE)
    began = time.perf_counter()
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = models.preact_resnet("small", in_channels=1, width=8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
        loader = DataLoader(TensorDataset(images.train_x, images.train_y), batch_size=32, shuffle=True)
        for _ in range(EPOCHS):
            for x, y in loader:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
    return time.perf_counter() - began


def bare() -> float:
    """Train eagerly with one thread and the data in memory; returns the seconds of training."""
    import torch
    from torch import nn

    from decaylab import data, models

    torch.set_num_threads(1)
    images = data.vision("digits", train_size=TRAIN_SIZE)
    model = models.preact_resnet("small", in_channels=1, width=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(TRAIN_SIZE).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images.train_x[chosen]), images.train_y[chosen]).backward()
            optimizer.step()
    return time.perf_counter() - began


def ours(num_runs: int) -> float:
    """Train runs side by side with our loop, one thread; returns the seconds a run, without imports and data."""
    import torch

    from decaylab.train.fit import Job, fit_side_by_side

    torch.set_num_threads(1)
    jobs = [Job(config=replace(RUN, seed=seed), record=lambda record: None) for seed in range(num_runs)]
    seconds = [ended.summary["seconds"] for _, ended in fit_side_by_side(jobs) if not isinstance(ended, Exception)]
    assert len(seconds) == num_runs
    return max(map(float, seconds)) / num_runs


def sweep() -> float:
    """Train eight runs through the launcher, everything included; returns the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [Run.of(replace(RUN, seed=seed)) for seed in range(8)]
        began = time.perf_counter()
        report = launch(str(Path(folder) / "runs.db"), runs, progress=False)
        seconds = time.perf_counter() - began
    assert len(report.done) == 8, report
    return seconds


def _fresh(what: str) -> float:
    """Measure in a process of its own, so that the number of threads is torch's own choice."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, "--only", what]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=argparse.SUPPRESS)  # what the processes of their own measure
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions")
    arguments = parser.parse_args()
    sides = {
        "plain": lambda: plain(1),
        "bare": bare,
        "alone": lambda: ours(1),
        "beside": lambda: ours(BESIDE),
        "plain8": lambda: plain(8),
        "sweep": sweep,
    }
    if arguments.only:
        print(sides[arguments.only]())
        return
    steps = EPOCHS * TRAIN_SIZE // 32
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.repeats):
        for name in sides:
            times[name].append(_fresh(name))
    middle = {name: statistics.median(values) for name, values in times.items()}
    rate = {name: steps / seconds for name, seconds in middle.items()}
    print(f"plain loop, default threads: {rate['plain']:.0f} steps/s; one thread, data in memory: {rate['bare']:.0f}")
    print(f"ours, one thread, {BESIDE} runs side by side: {rate['beside']:.0f} steps/s; one run: {rate['alone']:.0f}")
    print(f"eight runs, plain loop one after another: {middle['plain8']:.1f} s; sweep: {middle['sweep']:.1f} s")
    print(f"ratio steps {middle['plain'] / middle['beside']:.2f}")
    print(f"ratio sweep {middle['plain8'] / middle['sweep']:.2f}")


if __name__ == "__main__":
    main()
