"""Scale-invariant weights, found by computing, with the evidence: several decay rules hold for these only."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from decaylab.errors import DecaylabError, unknown
from decaylab.params.attribute_names import is_vector
from decaylab.params.role import UNKNOWN, Assignment, assign

_NORM_CLASS = re.compile(r"Norm(?![a-z])")
# Below this share of the output's size, a gradient is rounding error (a bias in front of BatchNorm).
_ROUNDING = {torch.float64: 1e-11, torch.float32: 1e-6}
_EPS_NAMES = ("eps", "epsilon", "variance_epsilon", "norm_eps")


@dataclass(frozen=True)
class ScaleInvariance:
    """What was measured on one weight w.

    Attributes:
        invariant: Whether both numbers below are under the tolerance.
        cosine: The absolute cosine between w and its gradient, which is 0 for a scale-invariant weight (Euler's
            theorem for a function homogeneous of degree 0: the inner product of w and the gradient vanishes).
        output_change: Norm of the change of the output when w is multiplied by ``factor``, relative to the change
            when a random direction of w's own norm is added instead.
        note: Why there is no verdict (w or its gradient is zero), otherwise empty.
    """

    invariant: bool
    cosine: float
    output_change: float
    note: str = ""

    def __bool__(self) -> bool:
        return self.invariant


def scale_invariant(
    model: nn.Module,
    inputs: Any,
    *,
    names: Iterable[str] | None = None,
    factor: float = 2.0,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> dict[str, ScaleInvariance]:
    """Find the weights w for which the output f(w) = f(c w), c > 0, and give the evidence.

    A float64 copy of the model in training mode is used (BatchNorm is invariant only with batch statistics), with
    dropout switched off and the norms' eps near zero: eps is what makes a real layer only nearly invariant. A model
    whose kernels know no float64 (grouped products of experts) is copied to float32. The model
    itself, its gradients, buffers and the random state stay as they are. Cost: two forward passes a weight, and one
    backward pass.

    A single batch can mislead in one way: a weight that no input reaches (an unused token's row does not matter, but
    a whole unused embedding does) has a zero gradient, which is noted and counts as not invariant. So does a bias in
    front of BatchNorm, which no output depends on.

    Source: Li and Arora, 2020 (arXiv 1910.07454): the gradient of a scale-invariant weight is orthogonal to it.

    Args:
        model: Any module whose forward returns a tensor, a sequence or mapping that begins with one, or a
            transformers output with ``logits``.
        inputs: The model's input: a tensor, a tuple of positional arguments, or a mapping of keyword arguments.
        names: Parameters to examine; by default those with role matrix, embedding or head, and those of unknown role
            that are no vectors.
        factor: The c of the test; positive and not 1.
        tolerance: Largest cosine and output change of a weight that counts as scale-invariant.
        seed: For the random direction and the random projection of the output that the gradient is taken of.

    Returns:
        Name to evidence, in the model's order. A `ScaleInvariance` is true where the weight is invariant.

    Raises:
        DecaylabError: An unknown parameter name, an impossible factor, an output without a floating-point tensor, or a
            model that does not run on these inputs.
    """
    names = _chosen(model, names, [item.name for item in assign(model) if _is_weight(item)])
    evidence = _measure(model, inputs, [(name,) for name in names], factor, tolerance, seed)
    return dict(zip(names, evidence, strict=True))


def jointly_scale_invariant(
    model: nn.Module,
    inputs: Any,
    *,
    names: Iterable[str] | None = None,
    factor: float = 2.0,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> ScaleInvariance:
    """Find whether f(w) = f(c w) when several parameters are multiplied by the same c, and give the evidence.

    Matrices that end in one residual stream are invariant together though no single one is: this is what projecting a
    whole network on a sphere, or decaying all of it by one factor, asks for.

    Args:
        model: As in `scale_invariant`.
        inputs: As in `scale_invariant`.
        names: Parameters that are scaled together; by default all that are trainable.
        factor: As in `scale_invariant`.
        tolerance: As in `scale_invariant`.
        seed: As in `scale_invariant`.

    Returns:
        The evidence, with the parameters read as one long vector.

    Raises:
        DecaylabError: As in `scale_invariant`.
    """
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return _measure(model, inputs, [tuple(_chosen(model, names, trainable))], factor, tolerance, seed)[0]


def _measure(
    model: nn.Module, inputs: Any, groups: list[tuple[str, ...]], factor: float, tolerance: float, seed: int
) -> list[ScaleInvariance]:
    if factor <= 0 or factor == 1:
        raise DecaylabError(f"factor is {factor}: it must be positive and not 1")
    twin, dtype = _running_twin(model, inputs, seed)
    weights = dict(twin.named_parameters())
    arguments = _cast(inputs, dtype)
    generator = torch.Generator().manual_seed(seed)
    names = [name for group in groups for name in group]

    output = _forward(twin, arguments, seed)
    # A random linear functional of the output: its gradient is orthogonal to w exactly when f does not see w's scale.
    functional = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.device)
    gradients = torch.autograd.grad(
        (output * functional).sum(), [weights[name] for name in names], allow_unused=True, materialize_grads=True
    )
    slopes = dict(zip(names, gradients, strict=True))
    base = output.detach()
    magnitude = base.norm() * functional.norm()

    def moved(group: tuple[str, ...], values: list[Tensor]) -> Tensor:
        """Norm of the output's change with the group at these values; the group is put back."""
        kept = [weights[name].clone() for name in group]
        for name, value in zip(group, values, strict=True):
            weights[name].copy_(value)
        change: Tensor = torch.linalg.vector_norm(_forward(twin, arguments, seed) - base)
        for name, value in zip(group, kept, strict=True):
            weights[name].copy_(value)
        return change

    found = []
    with torch.no_grad():
        for group in groups:
            old, slope = [weights[name].clone() for name in group], [slopes[name] for name in group]
            noise = [torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w) for w in old]
            size, steep, loud = _norm(old), _norm(slope), _norm(noise)
            if size == 0 or size * steep <= _ROUNDING[dtype] * magnitude:
                what = "the weight is zero" if size == 0 else "the output does not depend on it"
                found.append(ScaleInvariance(False, float("nan"), float("nan"), what))
                continue
            scaled = moved(group, [w * factor for w in old])
            turned = moved(group, [w + n * (size / loud) for w, n in zip(old, noise, strict=True)])
            change = float(scaled / turned) if turned > 0 else float("inf")
            inner = torch.stack([(w * g).sum() for w, g in zip(old, slope, strict=True)]).sum()
            cosine = float(inner.abs() / (size * steep))
            found.append(ScaleInvariance(max(change, cosine) < tolerance, cosine, change))
    return found


def _is_weight(item: Assignment) -> bool:
    return item.role in ("matrix", "embedding", "head") or (item.role == UNKNOWN and not is_vector(item.parameter))


def _norm(tensors: list[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]))
    return norm


def _chosen(model: nn.Module, names: Iterable[str] | None, default: list[str]) -> list[str]:
    listed = default if names is None else list(names)
    known = {name for name, _ in model.named_parameters()}
    for name in listed:
        if name not in known:
            raise unknown("parameter", name, known)
    if not listed:
        raise DecaylabError("no parameter to examine: name some")
    return listed


def _running_twin(model: nn.Module, inputs: Any, seed: int) -> tuple[nn.Module, torch.dtype]:
    """A copy that runs on the inputs, in float64 or, where its kernels know none, in float32."""
    error: Exception | None = None
    for dtype in (torch.float64, torch.float32):
        try:
            with torch.no_grad():
                _forward(_twin(model, dtype), _cast(inputs, dtype), seed)
            return _twin(model, dtype), dtype
        except DecaylabError:
            raise
        except Exception as failed:  # whatever a stranger's forward raises
            error = error or failed
    raise DecaylabError(
        f"the model does not run on these inputs in training mode: {type(error).__name__}: "
        f"{' '.join(str(error).split())[:200]}"
    ) from error


def _twin(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    twin = copy.deepcopy(model).to(dtype).train()
    for module in twin.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
        if any(_NORM_CLASS.search(base.__name__) for base in type(module).__mro__):
            for attribute in _EPS_NAMES:
                if isinstance(getattr(module, attribute, None), float):
                    setattr(module, attribute, 1e-24)
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    return twin


def _cast(inputs: Any, dtype: torch.dtype) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.detach().to(dtype) if inputs.is_floating_point() else inputs
    if isinstance(inputs, Mapping):
        return {key: _cast(value, dtype) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return tuple(_cast(value, dtype) for value in inputs)
    return inputs


def _forward(twin: nn.Module, arguments: Any, seed: int) -> Tensor:
    """The output; the same random numbers every time, and the caller's are left alone."""
    devices = {parameter.device for parameter in twin.parameters() if parameter.device.type != "cpu"}
    kind = next((device.type for device in devices), "cuda")
    with torch.random.fork_rng(devices=sorted(d.index or 0 for d in devices), device_type=kind):
        torch.manual_seed(seed)
        if isinstance(arguments, Mapping):
            output = twin(**arguments)
        elif isinstance(arguments, tuple):
            output = twin(*arguments)
        else:
            output = twin(arguments)
    return _first_tensor(output)


def _first_tensor(output: Any) -> Tensor:
    found = getattr(output, "logits", output)
    while isinstance(found, Mapping | list | tuple) and found:
        found = next(iter(found.values())) if isinstance(found, Mapping) else found[0]
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise DecaylabError(f"the model returned {type(output).__name__}: a floating-point tensor is needed")
    return found.double()
