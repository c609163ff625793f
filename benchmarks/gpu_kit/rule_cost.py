"""What does each decay rule cost over torch's fused AdamW, at the sizes of GPT-2 small?"""

from __future__ import annotations

import statistics
import time

import torch

from decay_step import bound, gpt2_shapes, options
from decaylab import decay
from gpu_kit import rules
from gpu_kit.record import peak_mebibytes, wait
from gpu_kit.sections import Environment

STEPS = 8


def measure(environment: Environment) -> None:
    """Time steps with and without each rule in turns, several at a time: a GPU works ahead of the program."""
    record, device, smoke = environment.record, environment.device, environment.smoke
    layers, width = (1, 16) if smoke else (12, 768)
    shapes = gpt2_shapes(layers, width, 128 if smoke else 50_257, 32 if smoke else 1024)
    params = [torch.nn.Parameter(0.02 * torch.randn(shape, device=device)) for shape in shapes]
    for p in params:
        p.grad = 1e-3 * torch.randn_like(p)
    baseline = torch.optim.AdamW(params, lr=1e-5, weight_decay=0.1, fused=True)
    optimizer = torch.optim.AdamW(params, lr=1e-5, weight_decay=0.0, fused=True)
    count = sum(p.numel() for p in params)
    copy_rate(environment)
    seconds = block(baseline, device)
    record.number(
        f"fused AdamW, {len(params)} tensors, {count / 1e6:.0f}M weights", 1e3 * seconds, "ms",
        gigabytes_per_second=7 * 4 * count / seconds / 1e9,
    )  # fmt: skip
    for name in ["decoupled"] if smoke else rules.names():
        for native in (True, False) if name in ("l2", "decoupled") else (True,):
            label = name if native else f"{name} (native=False)"
            with record.check(f"cost of {label}"):
                strength = 1e-3 if decay.TABLE[name].scheduled else None
                handle = decay.attach(
                    optimizer, decay.build(name, strength, **options(name, len(params))), native=native
                )
                pairs, plain_peak, ruled_peak = [], 0.0, 0.0
                for _ in range(2 if smoke else 7):
                    plain, plain_peak = block(baseline, device), peak(device)
                    ruled, ruled_peak = block(optimizer, device), peak(device)
                    pairs.append((plain, ruled))
                pairs = pairs[1:]
                handle.remove()
                ratio = statistics.median(ruled / plain for plain, ruled in pairs)
                more = (ruled_peak - plain_peak) * 2**20 / (4 * count) if device == "cuda" else None
                step_ms = 1e3 * statistics.median(b for _, b in pairs)
                # On a GPU no kernel of torch takes a coefficient that lies there, so scheduled has a pass of its own.
                least = bound(label) if name != "scheduled" or device == "cpu" else (7 + 4) / 7
                times = None if least is None else ratio / least
                record.number(
                    label, ratio, "x fused AdamW", bound=least, times_the_bound=times,
                    step_ms=step_ms, copies_of_the_weights_in_a_step=more,
                )  # fmt: skip


def copy_rate(environment: Environment) -> None:
    """Record how fast the device copies a large tensor onto another, bytes read and written both counted."""
    size = 2**16 if environment.smoke else 2**28
    source, target = torch.randn(size, device=environment.device), torch.empty(size, device=environment.device)
    seconds = []
    for _ in range(6):
        wait(environment.device)
        began = time.perf_counter()
        for _ in range(4):
            target.copy_(source)
        wait(environment.device)
        seconds.append((time.perf_counter() - began) / 4)
    environment.record.number("copy of a large tensor", 8 * size / min(seconds) / 1e9, "GB/s")


def peak(device: str) -> float:
    """Return the peak of memory since the last call in MiB, above what lies there between steps."""
    if device != "cuda":
        return 0.0
    found = peak_mebibytes(device) - torch.cuda.memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return found


def block(optimizer: torch.optim.Optimizer, device: str) -> float:
    """Return the seconds a step of a few in a row."""
    optimizer.step()
    wait(device)
    began = time.perf_counter()
    for _ in range(STEPS):
        optimizer.step()
    wait(device)
    return (time.perf_counter() - began) / STEPS
