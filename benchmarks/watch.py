"""What does `decaylab.watch` cost? Prints the time of a training with it over the time without it, at every=50.

Steps of three kinds take turns on the same model, so that a slow moment of the machine falls on all alike: without
hooks, with hooks and no record, with a record. From their medians: (49 hooked + 1 recorded) / 50 plain. The clock is
that of the process (one thread), which other programs on the machine disturb less.

    python benchmarks/watch.py [--rounds 10] [--every 50]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from decaylab import models, watch
from decaylab.probes import DEFAULT_PROBES


def gpt_10m() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    model = models.GPT(vocab_size=256, context=128, num_layers=6, num_heads=6, width=384)
    tokens = torch.randint(0, 256, (8, 129))
    return model, lambda: model.loss(tokens[:, :-1], tokens[:, 1:])


def gpt_small() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    model = models.GPT(
        vocab_size=128, context=32, num_layers=1, num_heads=2, width=32, tied=False, branch_norm=True, qk_norm=True
    )
    tokens = torch.randint(0, 128, (16, 33))
    return model, lambda: model.loss(tokens[:, :-1], tokens[:, 1:])


def resnet_small() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    model = models.preact_resnet(depth="small", num_classes=10, in_channels=1, width=8)
    images, labels = torch.randn(32, 1, 8, 8), torch.randint(0, 10, (32,))
    return model, lambda: nn.functional.cross_entropy(model(images), labels)


def measure(
    make: Callable[[], tuple[nn.Module, Callable[[], torch.Tensor]]], rounds: int, block: int, every: int
) -> None:
    torch.manual_seed(0)
    model, loss = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        return time.process_time() - start

    def steps(kind: str, count: int) -> None:
        step()  # the first one finds cold caches, whatever its kind
        times[kind] += [step() for _ in range(count)]

    times: dict[str, list[float]] = {"plain": [], "hooked": [], "recorded": []}
    for _ in range(rounds):
        steps("plain", block)
        log = watch(model, optimizer, every=10**9, probes=DEFAULT_PROBES)
        steps("hooked", block)
        log.remove()
        log = watch(model, optimizer, every=1, probes=DEFAULT_PROBES)
        steps("recorded", block)
        log.remove()
    plain, hooked, recorded = (statistics.median(times[kind]) for kind in ("plain", "hooked", "recorded"))
    ratio = ((every - 1) * hooked + recorded) / (every * plain)
    count = sum(p.numel() for p in model.parameters())
    print(
        f"{make.__name__:13} {count / 1e6:6.2f}M parameters  step {1e3 * plain:7.2f} ms"
        f"  hooks {1e6 * (hooked - plain):5.0f} us  record {1e3 * (recorded - plain):6.2f} ms"
        f"  ratio at every={every}: {ratio:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--every", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measure(gpt_10m, arguments.rounds, 3, arguments.every)
    for make in (gpt_small, resnet_small):
        measure(make, 4 * arguments.rounds, 20, arguments.every)


if __name__ == "__main__":
    main()
