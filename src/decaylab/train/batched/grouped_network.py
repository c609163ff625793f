"""How does one network of grouped convolutions compute several networks of one architecture, each as it would alone?

Small networks cost calls rather than arithmetic: S of them side by side need as many calls as one.
Shapes: images (N, C, H, W) of each network in, logits (S, N, classes) out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decaylab.errors import DecaylabError


class Lanes:
    """Networks of one architecture whose weights are slices of the weights of one wide network.

    The channels of network s are channels s C to (s + 1) C of the wide one: convolutions have S times as many groups,
    normalisations S times as many channels, and a linear map is a batch of S matrices. Nothing is summed across
    networks. From here on each network's parameters, gradients and running statistics are views into the wide
    network's, so whoever steps, reads or saves a network does so as before.

    There are never fewer than two lanes: a network alone runs beside a copy of itself. Libraries choose other kernels
    for one group than for several, and with two and more the bits of a network do not depend on its neighbours (on the
    CPUs tried; `independent` finds out for the one at hand).

    Args:
        members: The networks, in training mode: trees of convolutions, batch normalisations, linear maps, and modules
            without parameters that act on every channel alike.

    Raises:
        DecaylabError: A module that has parameters and is none of these.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        self.members = list(members)
        networks = [*members, copy.deepcopy(members[0])] if len(members) == 1 else self.members
        self._num_lanes = len(networks)
        self._wide = copy.deepcopy(networks[0])
        self._counters: list[tuple[nn.Module, str]] = []
        self._trained: list[tuple[nn.Parameter, list[nn.Parameter]]] = []
        self._widen(self._wide, networks)
        self._counts = self._share_counts()
        self._all_gradients, self._gradients = self._share_gradients()

    def logits(self, images: Sequence[Tensor]) -> Tensor:
        """Return the logits (S, N, classes) of each network's own images (N, C, H, W); S is at least two."""
        images = [*images, images[0]] if len(images) < self._num_lanes else images
        together = torch.cat(list(images), dim=1).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self._wide(together)
        return logits.view(len(logits), self._num_lanes, -1).transpose(0, 1)

    def backward(self, losses: Tensor) -> None:
        """Write the gradient of each network's loss, one of ``losses`` (S,), into the ``grad`` of its parameters."""
        self._all_gradients.zero_()
        losses.sum().backward()
        for p, gradient in self._gradients:
            p.grad = gradient
        self._counts += 1

    def _widen(self, wide: nn.Module, networks: Sequence[nn.Module]) -> None:
        """Replace the layers inside ``wide`` by layers of all networks."""
        # An activation may overwrite what it gets, the output of a layer that does not look at it again.
        if getattr(wide, "activation", None) is F.relu:
            setattr(wide, "activation", F.relu_)  # noqa: B010
        for name, child in list(wide.named_children()):
            layers = [network.get_submodule(name) for network in networks]
            kind = _LAYERS.get(type(child))
            if kind is not None:
                setattr(wide, name, kind(layers))
                self._share(getattr(wide, name), layers)
            elif isinstance(child, nn.ReLU):
                child.inplace = True
            elif next(child.parameters(recurse=False), None) is None:
                self._widen(child, layers)
            else:
                raise DecaylabError(f"networks with a {type(child).__name__} cannot be trained side by side")

    def _share(self, wide: nn.Module, layers: Sequence[nn.Module]) -> None:
        """Make the tensors of single layers views into those of a wide one."""
        for name, p in wide.named_parameters(recurse=False):
            own = [getattr(layer, name) for layer in layers]
            for lane, part in zip(own, p.data.chunk(len(layers)), strict=True):
                lane.data = part
            if p.requires_grad:
                self._trained.append((p, own))
        for name, buffer in wide.named_buffers(recurse=False):
            for layer, part in zip(layers, buffer.chunk(len(layers)), strict=True):
                setattr(layer, name, part)
        name = "num_batches_tracked"
        self._counters += [(layer, name) for layer in layers if getattr(layer, name, None) is not None]

    def _share_counts(self) -> Tensor:
        """Make the numbers of batches that the layers have seen views into one tensor, which one call can count on."""
        counts = torch.tensor([int(getattr(layer, name)) for layer, name in self._counters], dtype=torch.long)
        for (layer, name), count in zip(self._counters, counts.unbind(), strict=True):
            setattr(layer, name, count)
        return counts

    def _share_gradients(self) -> tuple[Tensor, list[tuple[nn.Parameter, Tensor]]]:
        """Give the wide parameters gradients that lie in one tensor; return it, and the part of each network's own."""
        sizes = [p.numel() for p, _ in self._trained]
        everything = self._trained[0][0].new_zeros(sum(sizes))
        parts: list[tuple[nn.Parameter, Tensor]] = []
        for (p, own), flat in zip(self._trained, everything.split(sizes), strict=True):
            p.grad = flat.as_strided(p.shape, p.stride(), flat.storage_offset())
            parts += zip(own, p.grad.chunk(len(own)), strict=True)
        return everything, parts


def _together(layers: Sequence[nn.Module], name: str) -> nn.Parameter | None:
    """Return the parameters of that name, one network's after the other's."""
    own = [getattr(layer, name) for layer in layers]
    if own[0] is None:
        return None
    return nn.Parameter(torch.cat([p.detach() for p in own]), requires_grad=own[0].requires_grad)


# A module looks up its tensors by a detour that takes longer than a small layer: each keeps them at hand as well.


class _Convolution(nn.Module):
    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        first = layers[0]
        self.weight, self.bias = _together(layers, "weight"), _together(layers, "bias")
        groups = first.groups * len(layers)
        self._arguments: tuple[Any, ...] = self.weight, self.bias, first.stride, first.padding, first.dilation, groups

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self._arguments)


class _Normalisation(nn.Module):
    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        first = layers[0]
        self.weight, self.bias = _together(layers, "weight"), _together(layers, "bias")
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.cat([getattr(layer, name) for layer in layers]))
        tensors = self.running_mean, self.running_var, self.weight, self.bias
        self._arguments: tuple[Any, ...] = *tensors, True, first.momentum, first.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, *self._arguments)


class _Linear(nn.Module):
    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        self.weight, self.bias = _together(layers, "weight"), _together(layers, "bias")
        self._num_lanes = len(layers)

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        x_SNI = x.view(len(x), self._num_lanes, -1).transpose(0, 1)
        weight_SIO = self.weight.view(self._num_lanes, -1, x_SNI.shape[-1]).transpose(1, 2)
        y_SNO = torch.bmm(x_SNI, weight_SIO)
        if self.bias is not None:
            # As a product with ones: a broadcast's gradient is a sum whose order depends on the number of lanes.
            ones_SN1 = x_SNI.new_ones(()).expand(*x_SNI.shape[:2], 1)
            y_SNO = torch.baddbmm(y_SNO, ones_SN1, self.bias.view(self._num_lanes, 1, -1))
        return y_SNO.transpose(0, 1).flatten(1)


_LAYERS = {nn.Conv2d: _Convolution, nn.BatchNorm2d: _Normalisation, nn.Linear: _Linear}
