r"""How is a sum over many rows estimated from some of them, to a given accuracy, without bias?

Rows are drawn by systematic sampling: with probabilities proportional to their expected size, at equally spaced
points of the cumulative sum with one random start, each weighted by one over its probability. A repetition is one
such sample with its own start; repetitions are independent, so their spread gives an honest standard error.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from decaylab.curvature.estimate import Tally
from decaylab.curvature.output_factors import Kind, all_rows, random_rows
from decaylab.curvature.per_sample_norms import GhostNorms

# Rows of one repetition, and repetitions of the pilot that decides how many are needed.
SAMPLE_SIZE = 16
PILOT = 16
# More outputs a point than this are not taken one by one, and all rows of a chunk hold so many entries at most.
_MOST_OUTPUTS = 1024
_ROW_ENTRIES = 2**24


class Source(Protocol):
    """A sum over rows that can be sampled.

    Attributes:
        cost: Network passes of one point that a drawn row takes.
        exact_cost: Network passes for the exact sum; infinite where there is none.
        num_rows: Rows computed so far.
    """

    cost: float
    exact_cost: float
    num_rows: int

    def draw(self, num_repetitions: int) -> Tensor:
        """Return independent unbiased repetitions of the sum, shape (num_repetitions, P)."""
        ...

    def exact(self) -> Tensor:
        """Return the sum itself, shape (P,)."""
        ...


def sum_to_accuracy(sources: list[Source], rel_error: float, max_rows: float) -> tuple[Tally, list[bool]]:
    r"""Add up several sums to a relative standard error at the least cost.

    After a pilot the repetitions are shared out as :math:`K_i \propto \sqrt{v_i / c_i}`, with v the variance of one
    repetition and c its cost (Neyman allocation); a sum whose share would cost more than its exact value is computed.

    Args:
        sources: The sums; their total is wanted.
        rel_error: Standard error wanted, relative to the total. 0: exact wherever that is possible.
        max_rows: No more drawn rows than this.

    Returns:
        The sum with its repetitions, and for each source whether it is exact.
    """
    exact: list[Tensor | None] = [None] * len(sources)
    samples: list[Tensor | None] = [None] * len(sources)
    for i, source in enumerate(sources):
        if (rel_error == 0 and math.isfinite(source.exact_cost)) or source.exact_cost <= _cost(source, PILOT):
            exact[i] = source.exact()
        else:
            samples[i] = source.draw(PILOT)
    while True:
        known = [e for e in exact if e is not None]
        drawn = [(i, sample) for i, sample in enumerate(samples) if sample is not None]
        width = (known[0] if known else drawn[0][1][0]).shape[0]
        total = sum(known, torch.zeros(width, dtype=torch.float64))
        tally = Tally(total, tuple(sample for _, sample in drawn))
        value, stderr = tally.total()
        flags = [e is not None for e in exact]
        if not math.isfinite(stderr):  # a network that has diverged
            return tally, flags
        if not drawn or stderr <= rel_error * abs(value) or sum(s.num_rows for s in sources) >= max_rows:
            return tally, flags
        wanted = (rel_error * value) ** 2
        variances = {i: float(sample.sum(1).var()) for i, sample in drawn}
        spread = sum(math.sqrt(variances[i] * _cost(sources[i])) for i in variances)
        grown = False
        for i, sample in drawn:
            share = math.sqrt(variances[i] / _cost(sources[i])) * spread
            needed = math.ceil(1.1 * share / wanted) if wanted > 0 else 2 * len(sample)
            if _cost(sources[i], needed) > sources[i].exact_cost:
                exact[i], samples[i] = sources[i].exact(), None
                grown = True
                break  # the others need fewer now
            # no more than fourfold at a time: the pilot's variance is itself an estimate
            more = min(needed, 4 * len(sample)) - len(sample)
            if more > 0:
                samples[i] = torch.cat([sample, sources[i].draw(more)])
                grown = True
        if not grown:
            i, sample = drawn[0]
            samples[i] = torch.cat([sample, sources[i].draw(max(1, len(sample) // 8))])


def _cost(source: Source, repetitions: int = 1) -> float:
    return source.cost * SAMPLE_SIZE * repetitions


def systematic(sizes: Tensor, num_repetitions: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw items with probability proportional to their size.

    Args:
        sizes: Shape (M,), not negative, float64 on the CPU.
        num_repetitions: Independent samples.
        generator: On the CPU.

    Returns:
        Indices and weights, each (num_repetitions, SAMPLE_SIZE): the sum over a row of weight times value is an
        unbiased estimate of the sum of all values of items with a positive size.
    """
    cumulative = sizes.cumsum(0)
    starts = torch.rand(num_repetitions, 1, generator=generator, dtype=torch.float64)
    ticks = (starts + torch.arange(SAMPLE_SIZE)) / SAMPLE_SIZE * cumulative[-1]
    index = torch.searchsorted(cumulative, ticks.contiguous(), right=True).clamp(max=len(sizes) - 1)
    return index, cumulative[-1] / (SAMPLE_SIZE * sizes[index])


class OutputRows:
    r"""The sum :math:`\frac1N \sum_n \sum_j \|\nabla_\theta \langle u_{nj}, z_n\rangle\|^2` by tensors.

    Args:
        ghost: Squared norms for the objective.
        kind: Which factor of S the rows are, see `decaylab.curvature.output_factors`.
        seed: Of its own generators.
        random: Always take random rows (`random_rows`); they are taken anyway where a point has several positions
            or more than 1,024 outputs.
    """

    def __init__(self, ghost: GhostNorms, kind: Kind, seed: int, random: bool = False) -> None:
        self._ghost, self._kind, self._random = ghost, kind, random
        self._objective = ghost.objective
        self._generator = torch.Generator().manual_seed(seed)
        self._signs = self._objective.generator(seed)
        self.num_rows = 0
        self.cost = 2.0
        with torch.no_grad():
            z = self._objective.outputs(self._objective.take(slice(0, 1)))
        self._random |= z.ndim > 2 or (z.numel() > _MOST_OUTPUTS and kind != "general")
        self._chunk = max(1, min(self._objective.chunk_size, _ROW_ENTRIES // z.numel() ** 2))
        sizes = [self._sizes(*chunk) for chunk in self._objective.chunks(self._chunk)]
        self._size = torch.cat(sizes)  # (N, J), or (N, 1) with random rows
        self.exact_cost = math.inf if self._random else self._objective.num_points * (1.0 + self._size.shape[1])

    def _sizes(self, batch: Any, count: int) -> Tensor:
        with torch.no_grad():
            z = self._objective.outputs(batch)
        if not self._random:
            return all_rows(self._kind, self._objective, z, batch).vectors.square().sum(2).cpu().double()
        if self._kind == "identity":
            return torch.ones(count, 1, dtype=torch.float64)
        p = z.softmax(-1)
        return (1 - p.square().sum(-1)).reshape(count, -1).mean(1, keepdim=True).cpu().double()

    def exact(self) -> Tensor:
        """Return the sum over all rows."""
        total = torch.zeros(len(self._objective.names), dtype=torch.float64)
        for batch, _ in self._objective.chunks(self._chunk):
            run = self._ghost.forward(batch)
            rows = all_rows(self._kind, self._objective, run.outputs.detach(), batch)
            for j in range(rows.vectors.shape[1]):
                norms = run.squared_norms(rows.vectors[:, j].reshape(run.outputs.shape))
                total += (norms * rows.signs[:, j, None]).sum(0).cpu().double()
            self.num_rows += rows.signs.numel()
        return total / self._objective.num_points

    def draw(self, num_repetitions: int) -> Tensor:
        """Return repetitions of the sum from sampled rows, shape (num_repetitions, P)."""
        index, weights = systematic(self._size.flatten(), num_repetitions, self._generator)
        if self._random:
            values = self._squared_norms(index.flatten(), torch.zeros_like(index).flatten())
        else:
            # the value of a row is not random: compute each once
            once, back = index.flatten().unique(return_inverse=True)
            num_rows = self._size.shape[1]
            values = self._squared_norms(once // num_rows, once % num_rows)[back]
        values = values.view(num_repetitions, SAMPLE_SIZE, -1) * weights.unsqueeze(-1)
        return values.sum(1) / self._objective.num_points

    def _squared_norms(self, points: Tensor, rows: Tensor) -> Tensor:
        found = []
        for some, which in zip(points.split(self._chunk), rows.split(self._chunk), strict=True):
            batch = self._objective.take(some)
            run = self._ghost.forward(batch)
            z = run.outputs.detach()
            if self._random:
                found.append(run.squared_norms(random_rows(self._kind, z, self._signs)).cpu().double())
                continue
            factor = all_rows(self._kind, self._objective, z, batch)
            at = torch.arange(len(some), device=z.device), which.to(z.device)
            norms = run.squared_norms(factor.vectors[at].reshape(z.shape)) * factor.signs[at].unsqueeze(1)
            found.append(norms.cpu().double())
        self.num_rows += len(points)
        return torch.cat(found)
