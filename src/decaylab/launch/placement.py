"""How many worker processes, with how many threads, on which devices: from the sizes of the runs and the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decaylab.errors import DecaylabError
from decaylab.launch.scheduler import Run


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
