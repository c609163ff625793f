"""What does `decaylab.watch` cost beside the training of GPT-2 small on the GPU?"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from decaylab import models, watch
from decaylab.probes import DEFAULT_PROBES
from gpu_kit.record import wait
from gpu_kit.sections import Environment

EVERY = 50


def measure(environment: Environment) -> None:
    """Time steps without hooks, with hooks, and with a record, in turns."""
    device, smoke = environment.device, environment.smoke
    torch.manual_seed(0)
    sizes = {"vocab_size": 50304, "context": 256, "num_layers": 12, "num_heads": 12, "width": 768}
    if smoke:
        sizes = {"vocab_size": 256, "context": 16, "num_layers": 1, "num_heads": 2, "width": 16}
    model = models.GPT(**sizes).to(device)
    rows = 2 if smoke else 64
    tokens = torch.randint(0, sizes["vocab_size"], (rows, sizes["context"] + 1), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x).float().flatten(0, 1), y.flatten())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            value = loss(tokens[:, :-1], tokens[:, 1:])
        value.backward()
        optimizer.step()

    def seconds(count: int) -> float:
        step()
        wait(device)
        began = time.perf_counter()
        for _ in range(count):
            step()
        wait(device)
        return (time.perf_counter() - began) / count

    seconds(3)
    times: dict[str, list[float]] = {"plain": [], "hooked": [], "recorded": []}
    with environment.record.check(f"watch at every={EVERY}"):
        for _ in range(2 if smoke else 6):
            times["plain"].append(seconds(10))
            log = watch(model, optimizer, every=10**9, probes=DEFAULT_PROBES)
            times["hooked"].append(seconds(10))
            log.remove()
            log = watch(model, optimizer, every=1, probes=DEFAULT_PROBES)
            times["recorded"].append(seconds(10))
            log.remove()
        plain, hooked, recorded = (statistics.median(found) for found in times.values())
        overhead = ((EVERY - 1) * (hooked - plain) + (recorded - plain)) / (EVERY * plain)
        environment.record.number(
            f"watch at every={EVERY}, {rows} x {sizes['context']} tokens, bfloat16 autocast", 100 * overhead, "%",
            step_ms=1e3 * plain, hooks_us=1e6 * (hooked - plain), record_ms=1e3 * (recorded - plain),
        )  # fmt: skip
