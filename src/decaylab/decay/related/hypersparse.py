"""HyperSparse: a penalty that leaves the large weights alone and drives the small ones to zero."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from decaylab.errors import DecaylabError

# artanh(1 / sqrt(3)): there the third derivative of tanh is zero, so the slope falls off fastest.
_BEND = math.atanh(1 / math.sqrt(3))


@dataclass(frozen=True)
class HyperSparse:
    r"""A penalty over all weights together; add ``strength * penalty(weights)`` to the loss.

    With ``a = |w|`` over all n weights, ``a_k`` the one that a share ``sparsity`` of them lies below (without
    gradient), ``s = artanh(1 / sqrt(3)) / a_k`` and ``T = sum tanh(s a)``::

        L = sum(a) T / stop(T) - sum(a)
        dL/dw_i = sign(w_i) s sech^2(s a_i) sum(a) / T

    Its value is always 0; only its gradient matters. Adaptive regularised training raises the strength by a factor
    every epoch, from 5e-6 by 1.05, after a warm-up. Glandorf et al. 2023 (arXiv 2308.07163).

    Attributes:
        sparsity: Share of weights that are to become zero, in [0, 1).
    """

    sparsity: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise DecaylabError(f"sparsity must be at least 0 and below 1, got {self.sparsity}")

    def __call__(self, weights: Iterable[Tensor]) -> Tensor:
        """Return the penalty, a scalar that is 0 and has a gradient.

        Args:
            weights: The weights of linear and convolution layers, without biases.
        """
        a = self._flat(weights).abs()
        total = torch.tanh(self._slope(a) * a).sum()
        return a.sum() * (total / _nonzero(total.detach())) - a.sum()

    def gradient(self, weights: Iterable[Tensor]) -> Tensor:
        """Return the gradient in closed form, concatenated and flat: no graph, for use without autograd."""
        with torch.no_grad():
            w = self._flat(weights)
            a = w.abs()
            slope = self._slope(a)
            curve = torch.tanh(slope * a)
            return w.sign() * slope * (1 - curve.square()) * (a.sum() / _nonzero(curve.sum()))

    def _flat(self, weights: Iterable[Tensor]) -> Tensor:
        flat = [w.flatten() for w in weights]
        if not flat:
            raise DecaylabError("HyperSparse got no weights")
        return torch.cat(flat)

    def _slope(self, a: Tensor) -> Tensor:
        edge = a.detach().kthvalue(math.floor(self.sparsity * a.numel()) + 1).values
        return _BEND / _nonzero(edge)


def _nonzero(value: Tensor) -> Tensor:
    # More zeros than the sparsity asks for: the slope at the edge is the steepest that the dtype can hold.
    return value.clamp_min(torch.finfo(value.dtype).tiny ** 0.5)
