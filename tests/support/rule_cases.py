"""One case a decay rule: the options of the battery, and a slow oracle written from the equations in plain NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from decaylab import decay

LAMBDA = 0.05
BETAS, EPS, MOMENTUM = (0.9, 0.999), 1e-8, 0.9
# Rows long enough that Adam's first update, all signs, is not the same along a whole row.
SHAPES = ((3, 8), (2, 3, 3), (5,))
# What follow_norms follows: after step t (from 1) tensor k has the norm 2 + cos(t + k / 2); the last of 5 steps holds.
NORMS = torch.tensor([[2 + math.cos(t + k / 2) for k in range(64)] for t in range(1, 6)], dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """A rule of the table as the battery runs it.

    Attributes:
        name: The rule.
        options: Its options beside lambda.
        optimizers: Which optimizers it is defined for.
        zero_grad: What SGD without momentum does to a weight with a zero gradient: "shrinks", "stays" or "follows" a
            recorded norm.
        per_row: Row sums have no foreach form, so the number of calls grows with the number of tensors.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    optimizers: tuple[str, ...] = ("adam", "sgd")
    zero_grad: str = "shrinks"
    per_row: bool = False

    @property
    def has_lambda(self) -> bool:
        return decay.TABLE[self.name].scheduled

    def rule(self, weight_decay: float = LAMBDA, **more: Any) -> decay.Rule:
        return decay.build(self.name, weight_decay if self.has_lambda else None, **self.options, **more)


CASES = (
    Case("l2"),
    Case("decoupled"),
    Case("independent"),
    Case("constant"),
    Case("quadratic_lr"),
    Case("corrected"),
    Case("cautious"),
    Case("scheduled"),
    Case("sphere_projection", {"radius": 2.0}, zero_grad="stays"),
    Case("fixed_norm", zero_grad="stays"),
    Case("normalize_and_project", {"every": 2}, zero_grad="stays"),
    Case("weight_norm_control", {"ratio": 0.8}),
    Case("rotational", zero_grad="stays", per_row=True),
    Case("hyperball", zero_grad="stays"),
    Case("follow_norms", {"norms": NORMS}, zero_grad="follows"),
    Case("max_norm", {"fraction": 0.3}, per_row=True),
    Case("constrained", {"kappa": 0.9}),
    Case("selective_projection", zero_grad="stays"),
    Case("l2_to_anchor", zero_grad="stays"),
)


def optimizer(kind: str, params: Any, lr: Any = 0.1, **options: Any) -> torch.optim.Optimizer:
    if kind == "adam":
        return torch.optim.AdamW(params, lr=lr, betas=BETAS, eps=EPS, weight_decay=0.0, **options)
    return torch.optim.SGD(params, lr=lr, momentum=MOMENTUM, **options)


def weights(dtype: torch.dtype = torch.float64, seed: int = 0, shapes: Any = SHAPES) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def gradients(steps: int, seed: int = 1, shapes: Any = SHAPES) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(steps)]


def learning_rates(steps: int, peak: float = 0.1) -> list[float]:
    return [peak * (1 - t / (steps + 1)) for t in range(steps)]


def train(
    optimizer: torch.optim.Optimizer, grads: list[list[torch.Tensor]], lrs: list[float] | None = None
) -> list[torch.Tensor]:
    """Step through given gradients; returns copies of the weights."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for t, step in enumerate(grads):
        for group in optimizer.param_groups:
            if lrs is not None:
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(lrs[t])
                else:
                    group["lr"] = lrs[t]
        for p, g in zip(params, step, strict=True):
            p.grad = g.to(p.dtype)
        optimizer.step()
    return [p.detach().clone() for p in params]


# ---------------------------------------------------------------------- the oracle


def oracle(name: str, kind: str, start: Any, grads: Any, lrs: list[float], peak: float, lam: float) -> list[np.ndarray]:
    """Run one rule beside Adam or SGD, tensor by tensor in float64, as the equations are written."""
    w = [p.detach().double().numpy().copy() for p in start]
    g_all = [[g.numpy() for g in step] for step in grads]
    n = len(w)
    m, v = [np.zeros_like(x) for x in w], [np.zeros_like(x) for x in w]
    w, keep = _begin(name, w)
    for t in range(1, len(g_all) + 1):
        lr, g = lrs[t - 1], [x.copy() for x in g_all[t - 1]]
        for i in range(n):
            if name == "l2":
                g[i] = g[i] + lam * w[i]
            elif name == "l2_to_anchor":
                g[i] = g[i] + lam * (w[i] - keep["anchor"][i])
        update = []
        for i in range(n):
            if kind == "adam":
                m[i] = BETAS[0] * m[i] + (1 - BETAS[0]) * g[i]
                v[i] = BETAS[1] * v[i] + (1 - BETAS[1]) * g[i] ** 2
                v_hat = v[i] / (1 - BETAS[1] ** t)
                update.append(m[i] / (1 - BETAS[0] ** t) / (np.sqrt(v_hat) + EPS))
            else:
                m[i] = g[i].copy() if t == 1 else MOMENTUM * m[i] + g[i]
                update.append(m[i])
        mean_v = sum((x / (1 - BETAS[1] ** t)).sum() for x in v) / sum(x.size for x in v)
        w = _step(name, kind, w, update, g_all[t - 1], t, lr, peak, lam, mean_v, keep)
    return w


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0], -1)


def _begin(name: str, w: list[np.ndarray]) -> tuple[list[np.ndarray], dict[str, Any]]:
    keep: dict[str, Any] = {"anchor": [x.copy() for x in w]}
    if name == "sphere_projection":
        total = np.sqrt(sum((x**2).sum() for x in w))
        w = [x * 2.0 / total for x in w]
    if name == "rotational":
        for x in w:
            if x.ndim > 1:
                for row in _rows(x):
                    norm = np.linalg.norm(row)
                    row -= row.mean()
                    row *= norm / np.linalg.norm(row)
    keep["norm"] = [np.linalg.norm(x) for x in w]
    keep["rows"] = [np.linalg.norm(_rows(x), axis=1) if x.ndim > 1 else None for x in w]
    keep["mu"] = [0.0 for _ in w]
    keep["s"] = [np.zeros(x.shape[0]) for x in w]
    return w, keep


def _step(name, kind, w, update, g, t, lr, peak, lam, mean_v, keep):  # type: ignore[no-untyped-def]
    new = []
    for i, (p, u) in enumerate(zip(w, update, strict=True)):
        q = p - lr * u
        if name in ("decoupled", "independent", "constant", "quadratic_lr", "corrected", "scheduled"):
            share = {
                "decoupled": lr * lam,
                "independent": lam * lr / peak,
                "constant": lam,
                "quadratic_lr": lr**2 * lam,
                "corrected": lam * lr**2 / peak,
                "scheduled": lr * lam / np.sqrt(mean_v) if kind == "adam" else lr * lam / (1 - MOMENTUM),
            }[name]
            q = p * (1 - share) - lr * u
        elif name == "cautious":
            q = q - lr * lam * np.where(u * p >= 0, p, 0.0)
        elif name == "fixed_norm" or (name == "normalize_and_project" and t % 2 == 0):
            q = q * keep["norm"][i] / np.linalg.norm(q)
        elif name == "follow_norms":
            q = q * (2 + math.cos(min(t, 5) + i / 2)) / math.sqrt(float((q.ravel() ** 2).sum()))
        elif name == "weight_norm_control":
            q = q - lam * lr / peak * (1 - 0.8 * keep["norm"][i] / np.linalg.norm(q)) * q
        elif name == "hyperball" and p.ndim > 1:
            radius = keep["norm"][i]
            q = p - lr * radius * u / np.linalg.norm(u)
            q = radius * q / np.linalg.norm(q)
        elif name == "max_norm" and p.ndim > 1:
            ceiling = keep["rows"][i].min() + 0.3 * (keep["rows"][i].max() - keep["rows"][i].min())
            for row in _rows(q):
                row *= min(1.0, ceiling / np.linalg.norm(row))
        elif name == "constrained":
            bound = 0.9 * keep["norm"][i] ** 2
            keep["mu"][i] = max(0.0, keep["mu"][i] + (np.sum(q**2) - bound) / q.size)
            q = q - 2 * keep["mu"][i] * q
        elif name == "selective_projection":
            anchor = keep["anchor"][i]
            before, after = np.linalg.norm(p - anchor), np.linalg.norm(q - anchor)
            if -np.sum(g[i] * (p - anchor)) < 0:
                q = q - lam * min(max((after - before) / after, 0.0), 1.0) * (q - anchor)
        elif name == "rotational" and p.ndim > 1:
            eta = 2 * lr * lam * (1 - BETAS[0]) / (1 + BETAS[0]) if kind == "adam" else 2 * lr * lam / (1 + MOMENTUM)
            q = p.copy()
            for r, (row, move) in enumerate(zip(_rows(q), _rows(u), strict=True)):
                n0 = keep["rows"][i][r]
                move = move - move.mean()
                move = move - row * np.dot(move, row) / n0**2
                keep["s"][i][r] = 0.9 * keep["s"][i][r] + 0.1 * np.dot(move, move)
                row -= np.sqrt(eta) * n0 * move / (np.sqrt(keep["s"][i][r] / (1 - 0.9**t)) + 1e-8)
                row *= n0 / np.linalg.norm(row)
        new.append(q)
    if name == "sphere_projection":
        total = np.sqrt(sum((x**2).sum() for x in new))
        new = [x * 2.0 / total for x in new]
    return new
