r"""How long are the gradients of single points, :math:`\|\nabla_\theta \langle r_n, z_n \rangle\|^2`, tensor by tensor?

One forward pass of a chunk keeps every layer's input; each backward pass then goes to the layers' outputs only (the
weights are frozen) and `decaylab.curvature.layer_kernels` turns the two into squared norms. What no layer kernel covers
(bare parameters, tied weights, unknown modules) is done by per-sample gradients. Which is which is not believed but
tested: on a few points the kernels are compared with autograd, and a tensor that differs loses its kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from decaylab.curvature.layer_kernels import Norms, kernel_of
from decaylab.curvature.objective import Objective
from decaylab.errors import DecaylabError

# Per-sample gradients are formed for a few points at a time, this many entries together.
_PER_SAMPLE_ENTRIES = 2**25


class GhostNorms:
    """Squared gradient norms of points for one objective.

    Args:
        objective: What is differentiated.

    Attributes:
        covered: Names of the parameters done by layer kernels.
        uncovered: Names of the others, done by per-sample gradients.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._column = {name: i for i, name in enumerate(objective.names)}
        self._layers = _layers(objective)
        self._clone = False
        self.covered: frozenset[str] = frozenset()
        self.covered = self._verify()
        self.uncovered = tuple(name for name in objective.names if name not in self.covered)

    def forward(self, batch: Any) -> Pass:
        """Run the network on a batch and keep what the norms need."""
        return Pass(self, batch)

    def _verify(self) -> frozenset[str]:
        """Names of the parameters whose kernels agree with autograd on up to three points."""
        objective = self.objective
        count = min(3, objective.num_points)
        batch = objective.take(slice(0, count))
        generator = objective.generator(0)
        with torch.no_grad():
            z = objective.outputs(batch)
        if len(z) != count:
            raise DecaylabError(f"the model has to return one row a point, not {len(z)} rows for {count} points")
        cotangent = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        exact = torch.zeros(count, len(objective.names), device=z.device, dtype=z.dtype)
        for n in range(count):
            own = objective.outputs(objective.take(slice(n, n + 1)))
            grads = torch.autograd.grad(own, objective.parameters, cotangent[n : n + 1], allow_unused=True)
            for i, g in enumerate(grads):
                if g is not None:
                    exact[n, i] = g.square().sum()
        try:
            found, seen = self._trial(batch, cotangent)
        except (RuntimeError, _ChangedInPlace):
            self._clone = True  # in-place operations on activations: work on clones of them
            found, seen = self._trial(batch, cotangent)
        tolerance = 1e-2 if z.device.type == "cuda" else 1e-3  # convolutions may use TF32 there
        close = (found - exact).abs() <= tolerance * exact + 1e-12 * exact.sum()
        return frozenset(name for name, i in self._column.items() if name in seen and bool(close[:, i].all()))

    def _trial(self, batch: Any, cotangent: Tensor) -> tuple[Tensor, set[str]]:
        trial = Pass(self, batch, every_layer=True)
        found = trial.layer_norms(cotangent)
        return found, trial.seen


class _ChangedInPlace(Exception):
    pass


class Pass:
    """One forward pass over a batch with everything that backward passes need.

    Attributes:
        outputs: The model's outputs z, with their graph.
        seen: Names of the parameters of layers that ran once, on one row a point.
    """

    def __init__(self, ghost: GhostNorms, batch: Any, every_layer: bool = False) -> None:
        self._ghost = ghost
        self._batch = batch
        self.seen: set[str] = set()
        self._calls: dict[nn.Module, list[tuple[Tensor, Norms]]] = {}
        self._versions: list[tuple[Tensor, int]] = []
        wanted = [
            layer
            for layer, names in ghost._layers.items()
            if every_layer or any(name in ghost.covered for name in names.values())
        ]
        hooks = [layer.register_forward_hook(self._keep) for layer in wanted]
        try:
            with _frozen(ghost.objective):
                self.outputs = ghost.objective.outputs(batch)
        finally:
            for hook in hooks:
                hook.remove()
        self._layer_outputs: list[Tensor] = []
        self._norms: list[tuple[dict[str, int], Norms]] = []
        for layer, calls in self._calls.items():
            (output, norms), names = calls[0], ghost._layers[layer]
            if every_layer and (len(calls) > 1 or len(output) != len(self.outputs)):
                continue
            self._layer_outputs.append(output)
            self._norms.append(({attribute: ghost._column[name] for attribute, name in names.items()}, norms))
            self.seen |= set(names.values())
        if every_layer and any(tensor._version != version for tensor, version in self._versions):
            raise _ChangedInPlace
        self._versions.clear()

    def _keep(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        kernel = kernel_of(layer)
        assert kernel is not None
        x = args[0].detach()
        norms = kernel(layer, x.clone() if self._ghost._clone else x)
        if not output.requires_grad:
            output.requires_grad_()
        self._calls.setdefault(layer, []).append((output, norms))
        if not self._ghost._clone:
            self._versions += [(x, x._version), (output, output._version)]
        return output.clone() if self._ghost._clone else None

    def squared_norms(self, cotangent: Tensor) -> Tensor:
        r"""Return :math:`\|\nabla_{\theta_i} \langle r_n, z_n \rangle\|^2`, shape (points, parameters).

        Args:
            cotangent: The rows r, in the shape of ``outputs``.
        """
        found = self.layer_norms(cotangent)
        if self._ghost.uncovered:
            self._add_uncovered(cotangent, found)
        return found

    def layer_norms(self, cotangent: Tensor) -> Tensor:
        """Return the squared norms by layer kernels; 0 for parameters that have none."""
        found = torch.zeros(len(self.outputs), len(self._ghost._column), device=cotangent.device, dtype=cotangent.dtype)
        if not self._layer_outputs or not self.outputs.requires_grad:
            return found
        gradients = self.backward(cotangent)
        with torch.no_grad():
            for gradient, (columns, norms) in zip(gradients, self._norms, strict=True):
                if gradient is None:
                    continue
                squares = norms(gradient)
                for attribute, column in columns.items():
                    found[:, column] = squares[attribute]
        return found

    def backward(self, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        """Propagate rows back to the outputs of the layers."""
        return torch.autograd.grad(self.outputs, self._layer_outputs, cotangent, retain_graph=True, allow_unused=True)

    def _add_uncovered(self, cotangent: Tensor, found: Tensor) -> None:
        objective, names = self._ghost.objective, self._ghost.uncovered
        holder = _Holder(objective)
        own = dict(zip(objective.names, objective.parameters, strict=True))
        subset = {f"model.{name}": own[name].detach() for name in names}

        def inner(parameters: dict[str, Tensor], batch: Any, row: Tensor) -> Tensor:
            single = pytree.tree_map(lambda leaf: leaf.unsqueeze(0), batch)
            z: Tensor = torch.func.functional_call(holder, parameters, (single,))
            return (z[0] * row).sum()

        size = max(1, _PER_SAMPLE_ENTRIES // sum(p.numel() for p in subset.values()))
        per_point = torch.func.vmap(torch.func.grad(inner), in_dims=(None, 0, 0))
        for start in range(0, len(cotangent), size):
            some = slice(start, start + size)
            part = pytree.tree_map(lambda leaf, some=some: leaf[some], self._batch)
            gradients = per_point(subset, part, cotangent[some])
            for name in names:
                column = self._ghost._column[name]
                found[some, column] = gradients[f"model.{name}"].detach().flatten(1).square().sum(1)


class _Holder(nn.Module):
    """Outputs of an objective as a module, so that functional_call can replace parameters."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self._objective = objective

    def forward(self, batch: Any) -> Tensor:
        return self._objective.outputs(batch)


def _layers(objective: Objective) -> dict[nn.Module, dict[str, str]]:
    """Layers with a kernel and trainable parameters that nobody else holds: attribute to parameter name."""
    name_of = {id(p): name for name, p in zip(objective.names, objective.parameters, strict=True)}
    holders: dict[int, int] = {}
    for module in objective.model.modules():
        for p in module._parameters.values():
            holders[id(p)] = holders.get(id(p), 0) + 1
    found = {}
    for module in objective.model.modules():
        names = {
            attribute: name_of[id(p)]
            for attribute, p in module._parameters.items()
            if id(p) in name_of and holders[id(p)] == 1
        }
        if names and kernel_of(module) is not None:
            found[module] = names
    return found


@contextmanager
def _frozen(objective: Objective) -> Iterator[None]:
    """Gradients of the private copy go to activations only."""
    for p in objective.parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in objective.parameters:
            p.requires_grad_(True)
