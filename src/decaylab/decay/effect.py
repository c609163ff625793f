"""Share of every weight that a rule takes in one step, measured from the tensors around the rule's own two moments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from decaylab.decay.rule import Step
from decaylab.tensors.foreach import dots, squared_norms
from decaylab.tensors.sharding import local


class Effect:
    """What one rule did in one step.

    With w the weights before the rule acts and w' after, a rule takes the share ``<w - w', w> / |w|^2`` of a tensor; a
    rule that edits gradients adds ``<g' - g, w> / |w|^2`` times the weight to the gradient.

    Attributes:
        shares: Share taken, by parameter: 0-d tensors. What the rule does before and after the update is added up.
        coefficients: Coefficient in the gradient, by parameter; only of rules that edit gradients.
    """

    def __init__(self) -> None:
        self.shares: dict[Tensor, Tensor] = {}
        self.coefficients: dict[Tensor, Tensor] = {}

    @contextmanager
    def of_weights(self, step: Step) -> Iterator[None]:
        """Measure what the block does to the weights of a step. Costs a copy of them."""
        old = [[weight.clone() for weight in part.weights] for part in step.parts]
        yield
        for part, before in zip(step.parts, old, strict=True):
            taken = torch._foreach_sub(before, part.weights)
            whole = [local(p) for p in part.params] if part.rows else before
            for p, share in zip(part.params, _along(part.params, taken, before, whole).unbind(), strict=True):
                self.shares[p] = self.shares[p] + share if p in self.shares else share

    @contextmanager
    def of_gradients(self, step: Step) -> Iterator[None]:
        """Measure what the block adds to the gradients of a step, sparse ones apart. Costs a copy of them."""
        parts = [part for part in step.parts if not any(grad.layout != torch.strided for grad in part.grads)]
        old = [[grad.clone() for grad in part.grads] for part in parts]
        yield
        for part, before in zip(parts, old, strict=True):
            added = torch._foreach_sub(part.grads, before)
            found = part.sign * _along(part.params, added, part.weights, part.weights)
            self.coefficients.update(zip(part.params, found.unbind(), strict=True))


def _along(
    params: list[Tensor], changes: list[Tensor] | tuple[Tensor, ...], weights: list[Tensor], whole: list[Tensor]
) -> Tensor:
    squares = squared_norms(params, whole)
    return torch.where(squares > 0, dots(params, changes, weights) / squares, 0.0)
