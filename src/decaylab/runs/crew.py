"""How many worker processes, with how many threads, on which devices: from the sizes of the runs and the machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decaylab.errors import DecaylabError
from decaylab.runs.queue import Run

_GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True)
class Crew:
    """Worker processes that train one set of runs.

    Attributes:
        runs: What they train.
        devices: The device of each process.
        threads: Threads of each process.
    """

    runs: tuple[Run, ...]
    devices: tuple[str, ...]
    threads: int


def crews(
    runs: Sequence[Run], *, cores: int, device: str = "cpu", gpus: int = 0, workers: int | None = None
) -> list[Crew]:
    """Divide runs into crews that work one after another, the one with the most threads first.

    Small runs: one process a core with one thread each, which for small networks is several times faster than one
    process with all threads. Large runs: as many processes as fit beside each other with the threads they can use.
    One GPU: one process with all threads; several GPUs: one process for each. The number of threads follows from the
    run and the machine alone, never from how many runs are left: a run resumed later repeats the same sums.

    Args:
        runs: What to train.
        cores: Number of cores to use.
        device: ``cpu``, ``cuda`` (all GPUs), or one device such as ``cuda:1`` or ``mps``.
        gpus: Number of GPUs, where the device is ``cuda``.
        workers: Number of processes, where the caller wants to decide.

    Raises:
        DecaylabError: ``workers`` is less than one.
    """
    if workers is not None and workers < 1:
        raise DecaylabError(f"workers must be at least 1, not {workers}")
    if not runs:
        return []
    if device != "cpu":
        places = [f"cuda:{i}" for i in range(gpus)] if device == "cuda" and gpus else [device]
        count = min(workers or len(places), len(runs))
        devices = tuple(places[i % len(places)] for i in range(count))
        return [Crew(tuple(runs), devices, max(1, cores // (workers or len(places))))]
    share = max(1, cores // workers) if workers else cores
    by_threads: dict[int, list[Run]] = {}
    for run in runs:
        hint = 1 if run.threads_hint is None else run.threads_hint or cores
        by_threads.setdefault(max(1, min(hint, share)), []).append(run)
    return [
        Crew(tuple(group), ("cpu",) * min(workers or max(1, cores // threads), len(group)), threads)
        for threads, group in sorted(by_threads.items(), reverse=True)
    ]


def find_device(device: str) -> tuple[str, int]:
    """Resolve ``auto`` to ``cuda`` where there is a GPU and to ``cpu`` elsewhere; count the GPUs.

    torch is asked in a process of its own, and only where a driver's device file promises an answer: the launcher
    itself stays light.
    """
    if device not in ("auto", "cuda"):
        return device, 0
    promised = not sys.platform.startswith("linux") or any(Path(name).exists() for name in _GPU_FILES)
    gpus = 0
    if device == "cuda" or (promised and sys.platform != "darwin"):
        question = "import torch; print(torch.cuda.device_count())"
        answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False).stdout
        gpus = int(answer) if answer.strip().isdecimal() else 0
    if device == "cuda" and not gpus:
        raise DecaylabError("torch finds no GPU here; use --device cpu, or a torch build for this machine's GPU")
    return ("cuda", gpus) if gpus else ("cpu", 0)
