r"""How long is each point's gradient with respect to one layer, given the layer's input and the gradient at its output?

For a Linear layer with input a and gradient g at its output, a point's gradient with respect to the weight is
:math:`g a^\top`, of squared norm :math:`\|g\|^2 \|a\|^2`: two norms instead of a matrix a point. With T positions
(sequence, image) the gradient is :math:`\sum_t g_t a_t^\top`, whose norm is taken of that product, or written as
:math:`\langle A^\top A, G^\top G \rangle` with T x T products, whichever is smaller (Goodfellow 2015, "Efficient
per-example gradient computations"; Li et al. 2022 call the second form ghost norms).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

# gradient at the layer's output -> squared norm of each point's gradient, by attribute of the layer
Norms: TypeAlias = Callable[[Tensor], dict[str, Tensor]]
# (layer, its input) -> Norms
Kernel: TypeAlias = Callable[[Any, Tensor], Norms]


def kernel_of(layer: nn.Module) -> Kernel | None:
    """Return the kernel of a layer in eval mode, or None where there is none (a subclass with its own forward, too)."""
    for kind, kernel in _KERNELS.items():
        if isinstance(layer, kind) and type(layer).forward is kind.forward:
            if isinstance(layer, _BatchNorm) and layer.running_mean is None:
                return None
            if isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.scale_grad_by_freq):
                return None
            return kernel
    return None


@dataclass(frozen=True, eq=False)
class _Product:
    """A map whose output is, at every position, W times a feature vector.

    Attributes:
        features: Shape (B, groups, K, T), or None where the Gram matrix replaces it.
        gram: Shape (B, groups, T, T), for few positions.
    """

    features: Tensor | None
    gram: Tensor | None

    @classmethod
    def of(cls, features: Tensor, num_outputs: int) -> _Product:
        """Choose the form with the smaller products; ``num_outputs`` is O, a group's."""
        num_features, positions = features.shape[-2:]
        if positions > 1 and positions**2 <= num_features * num_outputs:
            return cls(None, features.mT @ features)
        return cls(features, None)

    def squared_norms(self, g: Tensor) -> Tensor:
        """Squared norm of each point's weight gradient, (B,), from the gradient g at the output, (B, groups, O, T)."""
        if self.gram is not None:
            return (self.gram * (g.mT @ g)).flatten(1).sum(1)
        assert self.features is not None
        if g.shape[-1] == 1:
            return (self.features.square().sum((2, 3)) * g.square().sum((2, 3))).sum(1)
        norms: Tensor = torch.linalg.vector_norm((g @ self.features.mT).flatten(1), dim=1)
        return norms.square()


def _linear(layer: Any, x: Tensor) -> Norms:
    product = _Product.of(x.reshape(len(x), 1, -1, x.shape[-1]).mT, layer.out_features)

    def norms(g: Tensor) -> dict[str, Tensor]:
        g = g.reshape(len(g), 1, -1, g.shape[-1]).mT
        return {"weight": product.squared_norms(g), "bias": g.sum(-1).square().sum((1, 2))}

    return norms


def _conv(layer: Any, x: Tensor) -> Norms:
    if isinstance(layer, nn.Conv1d):
        x = x.unsqueeze(-2)
    kernel, stride, dilation = _pair(layer.kernel_size, 1), _pair(layer.stride, 1), _pair(layer.dilation, 1)
    padding = (0, 0) if isinstance(layer.padding, str) else _pair(layer.padding, 0)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        around = (*layer._reversed_padding_repeated_twice, 0, 0)[:4]
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x, padding = functional.pad(x, around, mode=mode), (0, 0)
    if kernel == (1, 1) and padding == (0, 0):
        columns = x[:, :, :: stride[0], :: stride[1]].flatten(2)
    else:
        columns = functional.unfold(x, kernel, dilation, padding, stride)
    features = columns.reshape(len(x), layer.groups, -1, columns.shape[-1])
    product = _Product.of(features, layer.out_channels // layer.groups)

    def norms(g: Tensor) -> dict[str, Tensor]:
        g = g.reshape(len(g), layer.groups, g.shape[1] // layer.groups, -1)
        return {"weight": product.squared_norms(g), "bias": g.sum(-1).square().sum((1, 2))}

    return norms


def _pair(sizes: tuple[int, ...], of_height: int) -> tuple[int, int]:
    return (sizes[0], sizes[1]) if len(sizes) == 2 else (of_height, sizes[0])


def _batch_norm(layer: Any, x: Tensor) -> Norms:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    normalised = (x - layer.running_mean.view(shape)) * (layer.running_var + layer.eps).rsqrt().view(shape)
    return _channels_first(normalised)


def _group_norm(layer: Any, x: Tensor) -> Norms:
    return _channels_first(functional.group_norm(x, layer.num_groups, eps=layer.eps))


def _channels_first(normalised: Tensor) -> Norms:
    """Gain and bias of a normalisation, one number a channel: sums over positions."""
    shape = (len(normalised), normalised.shape[1], -1)
    normalised = normalised.reshape(shape)

    def norms(g: Tensor) -> dict[str, Tensor]:
        g = g.reshape(shape)
        return {"weight": (g * normalised).sum(2).square().sum(1), "bias": g.sum(2).square().sum(1)}

    return norms


def _layer_norm(layer: Any, x: Tensor) -> Norms:
    return _channels_last(functional.layer_norm(x, layer.normalized_shape, eps=layer.eps), layer)


def _rms_norm(layer: Any, x: Tensor) -> Norms:
    return _channels_last(functional.rms_norm(x, layer.normalized_shape, eps=layer.eps), layer)


def _channels_last(normalised: Tensor, layer: Any) -> Norms:
    shape = (len(normalised), -1, math.prod(layer.normalized_shape))
    normalised = normalised.reshape(shape)

    def norms(g: Tensor) -> dict[str, Tensor]:
        g = g.reshape(shape)
        return {"weight": (g * normalised).sum(1).square().sum(1), "bias": g.sum(1).square().sum(1)}

    return norms


def _embedding(layer: Any, tokens: Tensor) -> Norms:
    tokens = tokens.reshape(len(tokens), -1)
    same = tokens.unsqueeze(1) == tokens.unsqueeze(2)
    if layer.padding_idx is not None:
        same &= (tokens != layer.padding_idx).unsqueeze(1)

    def norms(g: Tensor) -> dict[str, Tensor]:
        g = g.reshape(len(g), tokens.shape[1], -1)
        return {"weight": ((g @ g.mT) * same).sum((1, 2))}

    return norms


_KERNELS: dict[type[Any], Kernel] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.Conv1d: _conv,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.Embedding: _embedding,
}
