"""What an estimate is: a number, how far off it may be, and what it took; in total, by role and by tensor."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """The share of some parameters.

    Attributes:
        value: The estimate.
        stderr: Its standard error; 0 where it is exact.
    """

    value: float
    stderr: float


@dataclass(frozen=True)
class Estimate:
    """A measured number with its standard error.

    Attributes:
        value: The estimate.
        stderr: Standard error from the spread of independent repetitions; 0 where the value is exact up to rounding.
        method: How it was computed, in words.
        per_tensor: Parameter name to its share. Shares add up to the value.
        per_role: Role to its share; empty where the model's parameters have no known roles.
        num_points: Points of the data.
        num_rows: Backward passes of single points through the network for rows of outputs or injected signs.
        num_matvecs: Products with the whole matrix (passes over all points).
        converged: Whether the standard error is as small as was asked for.
        seconds: Wall-clock time.
    """

    value: float
    stderr: float
    method: str
    per_tensor: Mapping[str, Part] = field(default_factory=dict)
    per_role: Mapping[str, Part] = field(default_factory=dict)
    num_points: int = 0
    num_rows: int = 0
    num_matvecs: int = 0
    converged: bool = True
    seconds: float = 0.0

    @property
    def rel_stderr(self) -> float:
        """Standard error relative to the value."""
        return self.stderr / abs(self.value) if self.value else (0.0 if self.stderr == 0 else float("inf"))

    def records(self, key: str) -> dict[str, float]:
        """Return the estimate as a record: ``key``, ``key/stderr`` and ``key/role`` for every role."""
        out = {key: self.value, f"{key}/stderr": self.stderr}
        return out | {f"{key}/{role}": part.value for role, part in self.per_role.items()}


@dataclass(frozen=True, eq=False)
class Tally:
    """A sum over tensors: a part known exactly and independent unbiased repetitions of the rest.

    Attributes:
        exact: Shape (P,), float64 on the CPU: one entry a parameter.
        repetitions: Each of shape (K, P): K independent repetitions of one more part.
    """

    exact: Tensor
    repetitions: tuple[Tensor, ...] = ()

    def moments(self, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and variance of the mean of ``tally @ columns``; without columns, of the total."""
        columns = torch.ones(len(self.exact), 1, dtype=torch.float64) if columns is None else columns
        mean, variance = self.exact @ columns, torch.zeros(columns.shape[1], dtype=torch.float64)
        for sample in self.repetitions:
            values = sample @ columns
            mean = mean + values.mean(0)
            variance = variance + values.var(0) / len(values)
        return mean, variance

    def total(self) -> Part:
        """Total and standard error."""
        mean, variance = self.moments()
        return Part(float(mean[0]), float(variance[0]) ** 0.5)

    def estimate(
        self, names: tuple[str, ...], roles: Mapping[str, str], method: str, rel_error: float, started: float
    ) -> Estimate:
        """Break the sum down by role and by tensor.

        Args:
            names: Parameter names, one a column.
            roles: Name to role; empty for none.
            method: For `Estimate.method`.
            rel_error: What was asked for.
            started: ``time.perf_counter()`` at the start.
        """
        groups: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            if name in roles:
                groups.setdefault(roles[name], []).append(i)
        columns = torch.zeros(len(names), 1 + len(groups) + len(names), dtype=torch.float64)
        columns[:, 0] = 1
        for g, members in enumerate(groups.values(), start=1):
            columns[members, g] = 1
        columns[:, 1 + len(groups) :] = torch.eye(len(names), dtype=torch.float64)
        mean, variance = self.moments(columns)
        parts = [Part(m, v**0.5) for m, v in zip(mean.tolist(), variance.clamp(min=0).tolist(), strict=True)]
        made = Estimate(
            value=parts[0].value,
            stderr=parts[0].stderr,
            method=method,
            per_role=dict(zip(groups, parts[1:], strict=False)),
            per_tensor=dict(zip(names, parts[1 + len(groups) :], strict=True)),
            seconds=time.perf_counter() - started,
        )
        return replace(made, converged=made.rel_stderr <= rel_error)
