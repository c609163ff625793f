"""How fast does this machine multiply matrices? Measured, so that a run's speed can be told as a share of it."""

from __future__ import annotations

import time
from functools import cache

import torch

_SECONDS = 0.2
_SIZE = {"cpu": 1024, "cuda": 8192}


@cache
def peak_flops(device: str, dtype: torch.dtype, threads: int) -> float:
    """Return the most floating-point operations a second that products of large square matrices reach.

    The best of the repetitions that fit into a fifth of a second counts: others may be using the machine. The measure
    is kept for the life of the process.

    Args:
        device: A torch device.
        dtype: Type of the entries.
        threads: Threads of torch on the CPU; another number is another measure.

    Returns:
        2 n^3 over the shortest time of one n x n product.
    """
    place = torch.device(device)
    size = _SIZE.get(place.type, 2048)
    # Not ones: equal bits take less power, and a GPU is then up to an eighth faster than with numbers of a training.
    generator = torch.Generator(place).manual_seed(0)
    a = torch.randn(size, size, dtype=dtype, device=place, generator=generator)
    out = torch.empty_like(a)
    torch.matmul(a, a, out=out)  # the first call chooses a kernel
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        _wait(place)
        start = time.perf_counter()
        torch.matmul(a, a, out=out)
        _wait(place)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
