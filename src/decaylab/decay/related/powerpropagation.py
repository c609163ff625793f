"""Powerpropagation: a parametrization under which large weights learn faster, so that small ones stay near zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from decaylab.errors import DecaylabError


class _Power(torch.autograd.Function):
    """``phi |phi|^(alpha - 1)`` with the derivative ``alpha |phi|^(alpha - 1)`` at zero too, where autograd has nan."""

    generate_vmap_rule = True

    @staticmethod
    def forward(phi: Tensor, alpha: float) -> Tensor:
        return phi * phi.abs().pow(alpha - 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.alpha = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (phi,) = ctx.saved_tensors
        return grad * (ctx.alpha * phi.abs().pow(ctx.alpha - 1)), None


class Powerpropagation(nn.Module):
    r"""The parametrization ``w = phi |phi|^(alpha - 1)``, with ``phi`` the trained parameter.

    The gradient is ``dL/dphi = dL/dw alpha |phi|^(alpha - 1)``. Registered on a weight, it keeps the weight's value:
    ``phi = sign(w) |w|^(1 / alpha)``. Decay of ``phi`` by the share c takes ``1 - (1 - c)^alpha`` of w. Schwarz et al.
    2021 (arXiv 2110.00296).

    Args:
        alpha: Power, at least 1; 1 is no change.

    Raises:
        DecaylabError: alpha below 1.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        super().__init__()
        if not alpha >= 1:
            raise DecaylabError(f"alpha of powerpropagation must be at least 1, got {alpha}")
        self.alpha = float(alpha)

    def forward(self, phi: Tensor) -> Tensor:
        """Return w, of the shape of ``phi``."""
        result: Tensor = _Power.apply(phi, self.alpha)  # type: ignore[no-untyped-call]
        return result

    def right_inverse(self, w: Tensor) -> Tensor:
        """Return the ``phi`` of a weight."""
        return w.sign() * w.abs().pow(1 / self.alpha)

    def extra_repr(self) -> str:
        """Show alpha in the module's printout."""
        return f"alpha={self.alpha:g}"


_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


def powerpropagate(model: nn.Module, alpha: float = 2.0, layers: Iterable[type[nn.Module]] = _LAYERS) -> list[str]:
    """Put `Powerpropagation` on the weight of every layer of the given types; biases stay as they are.

    Call it before the optimizer is made: the trained parameter is a new one.

    Args:
        model: Changed in place.
        alpha: Power, at least 1.
        layers: Types of layers; linear, convolution and embedding by default.

    Returns:
        The names of the layers, for the user to see.

    Raises:
        DecaylabError: No such layer, or a weight that is shared with another layer (a parametrization would untie it).
    """
    kinds = tuple(layers)
    # A layer that has a parametrization has a class of its own, a subclass of the layer's.
    chosen = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    if not chosen:
        raise DecaylabError("the model has no layer to put powerpropagation on")
    weights: dict[int, str] = {}
    for name, module in chosen:
        if parametrize.is_parametrized(module, "weight"):
            raise DecaylabError(f"the weight of {name or 'the model'} already has a parametrization: remove it first")
        first = weights.setdefault(id(module.weight), name)
        if first != name:
            raise DecaylabError(
                f"{first} and {name} share a weight, which a parametrization would untie: untie it first"
            )
    for _, module in chosen:
        parametrize.register_parametrization(module, "weight", Powerpropagation(alpha))
    return [name for name, _ in chosen]
