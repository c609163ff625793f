"""Curvature on the GPU: is it right, and what do the Hessian's trace and products cost there?"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decaylab import models
from decaylab.curvature.eigenvalues import top_eigenvalues
from decaylab.curvature.gauss_newton import gauss_newton_trace
from decaylab.curvature.hessian import hessian_trace
from decaylab.curvature.jacobian import jacobian_frobenius
from gpu_kit.record import peak_mebibytes, wait
from gpu_kit.sections import Environment

Batches = list[tuple[Tensor, Tensor]]


def resnet(device: str, activation: str = "relu", *, small: bool = True) -> nn.Module:
    """Return a residual network with random weights."""
    torch.manual_seed(0)
    if small:
        return models.preact_resnet("small", in_channels=1, width=8, activation=activation).to(device)
    return models.preact_resnet(18, in_channels=3, width=64, activation=activation).to(device)


def images(count: int, device: str, *, small: bool = True) -> tuple[Tensor, Tensor]:
    """Return random images and labels."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, 1, 8, 8) if small else (count, 3, 32, 32)
    x, y = torch.randn(shape, generator=generator), torch.randint(0, 10, (count,), generator=generator)
    return x.to(device), y.to(device)


def text_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean cross-entropy of a batch of tokens."""
    return F.cross_entropy(model(batch[0]).float().flatten(0, 1), batch[1].flatten())


def gpt(device: str, **sizes: Any) -> nn.Module:
    """Return a GPT with attention that can be differentiated twice."""
    torch.manual_seed(0)
    return models.GPT(attention="math", **sizes).to(device)


def check(environment: Environment) -> None:
    """Compare every measure with the CPU's in float64."""
    record, device = environment.record, environment.device
    x, y = images(16 if environment.smoke else 32, "cpu")
    for activation in ("relu",) if environment.smoke else ("relu", "gelu"):
        net = resnet("cpu", activation).double()
        here = resnet(device, activation)
        far, near = [(x.double(), y)], [(x.to(device), y.to(device))]
        measures = {
            "Hessian trace": lambda net, batches: (
                hessian_trace(net, F.cross_entropy, batches, 0.1 if environment.smoke else 0.05).value
            ),
            "Gauss-Newton trace": lambda net, batches: (
                gauss_newton_trace(net, F.cross_entropy, batches, 0.1 if environment.smoke else 0.05).value
            ),
            "top eigenvalues": lambda net, batches: top_eigenvalues(net, F.cross_entropy, batches, 2).values[0],
            "Jacobian": lambda net, batches: jacobian_frobenius(net, [x for x, _ in batches]).value,
        }
        for name, measure in measures.items():
            with record.check(f"{name}, {activation}") as details:
                wanted, found = float(measure(net, far)), float(measure(here, near))
                details.update({"float64 on the CPU": wanted, "here": found})
                assert abs(found - wanted) <= 0.12 * abs(wanted), f"{found} against {wanted}"
    with record.check("exact Hessian trace, relu") as details:
        wanted = hessian_trace(resnet("cpu").double(), F.cross_entropy, [(x.double(), y)], 0).value
        found = hessian_trace(resnet(device), F.cross_entropy, [(x.to(device), y.to(device))], 0).value
        details.update({"float64 on the CPU": float(wanted), "here": float(found)})
        assert abs(found - wanted) <= 1e-3 * abs(wanted), f"{found} against {wanted}"


def measure(environment: Environment) -> None:
    """Time traces and products of the Hessian with vectors."""
    record, device, smoke = environment.record, environment.device, environment.smoke
    nets = [("mini ResNet, 44k weights, 2,000 points", True, 200 if smoke else 2000)]
    if not smoke:
        nets.append(("ResNet-18, 11M weights, 1,000 points", False, 1000))
    for name, small, count in nets:
        with record.check(f"trace of {name}") as details:
            x, y = images(count, device, small=small)
            net, batches = resnet(device, small=small), list(zip(x.split(250), y.split(250), strict=True))
            aim = 0.05 if small else 0.1
            hessian_trace(net, F.cross_entropy, batches, 0.5)
            _fresh_peak(device)
            times, estimates = [], []
            for seed in range(1 if smoke or not small else 3):
                wait(device)
                began = time.perf_counter()
                estimates.append(hessian_trace(net, F.cross_entropy, batches, aim, seed=seed))
                wait(device)
                times.append(time.perf_counter() - began)
            memory = round(peak_mebibytes(device))
            record.number(
                f"Hessian trace to {aim:.0%}: {name}", statistics.median(times), "s", method=estimates[0].method,
                peak_mib=memory,
            )  # fmt: skip
            details["relative standard error"] = estimates[0].rel_stderr
    sizes = {"vocab_size": 50304, "context": 256, "num_layers": 12, "num_heads": 12, "width": 768}
    if smoke:
        sizes = {"vocab_size": 256, "context": 16, "num_layers": 1, "num_heads": 2, "width": 16}
    with record.check("Hessian-vector products of GPT-2 small"):
        products(environment, sizes, sequences=2 if smoke else 16, count=3 if smoke else 12)


def products(environment: Environment, sizes: dict[str, int], sequences: int, count: int) -> None:
    """Time Hutchinson's method on a GPT, and the same products by differentiating twice with plain torch."""
    record, device = environment.record, environment.device
    model = gpt(device, **sizes)
    tokens = torch.randint(0, sizes["vocab_size"], (sequences, sizes["context"] + 1), device=device)
    batch = (tokens[:, :-1], tokens[:, 1:])
    params = [p for p in model.parameters() if p.requires_grad]

    def ours(number: int) -> None:
        hessian_trace(model, text_loss, [batch], 0, method="hutchinson", max_matvecs=number)

    def plain(number: int) -> None:
        for _ in range(number):
            signs = [torch.randint(0, 2, p.shape, device=device).to(p.dtype).mul_(2).sub_(1) for p in params]
            grads = torch.autograd.grad(text_loss(model, batch), params, create_graph=True)
            inner = sum((g * s).sum() for g, s in zip(grads, signs, strict=True))
            torch.autograd.grad(inner, params)

    seconds = {}
    for name, run in (("decaylab", ours), ("torch.autograd.grad twice", plain)):
        run(2)
        _fresh_peak(device)
        wait(device)
        began = time.perf_counter()
        run(count)
        wait(device)
        seconds[name] = (time.perf_counter() - began) / count
        record.number(
            f"Hessian-vector product, GPT of {sum(p.numel() for p in params) / 1e6:.0f}M weights, {sequences} "
            f"sequences of {sizes['context']}: {name}",
            1e3 * seconds[name], "ms", peak_mib=round(peak_mebibytes(device)),
        )  # fmt: skip
    record.number("plain torch over decaylab", seconds["torch.autograd.grad twice"] / seconds["decaylab"], "x")


def _fresh_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
