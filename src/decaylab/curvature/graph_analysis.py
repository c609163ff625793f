r"""Is the network linear in each parameter tensor, piece by piece, and if not, which units bend it?

Write H = G + E, with E the part of the Hessian that comes from the curvature of the network itself. If the outputs
are piecewise linear in each parameter tensor (ReLU, BatchNorm in eval mode, pooling, skips; every tensor used once),
the second derivative with respect to any single weight is zero wherever it exists, so the diagonal of E is zero and
Tr H = Tr G, tensor by tensor. If the network bends only at elementwise smooth activations, the diagonal of E is a sum
over their units (`decaylab.curvature.residual`). Both are read off the graph that autograd recorded, so functional code
counts as much as modules, and an operation that is not known to be harmless is not harmless.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from decaylab.curvature.objective import Objective

# Linear in each argument that carries a graph, taken together (a sum, a reshaping), or piecewise linear in its one.
_LINEAR = frozenset([
    "Add", "Sub", "Neg", "Sum", "Mean", "View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "MT", "Mt",
    "Expand", "Clone", "Slice", "Select", "Cat", "Stack", "Unsqueeze", "Squeeze", "Split", "SplitWithSizes", "Unbind",
    "Chunk", "Index", "IndexSelect", "Gather", "ToCopy", "Alias", "Repeat", "Flip", "Roll", "Narrow", "Contiguous",
    "AsStrided", "ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D", "AvgPool1D", "AvgPool2D", "AvgPool3D",
    "AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "MkldnnAdaptiveAvgPool2D", "UpsampleNearest2D",
    "UpsampleBilinear2D", "PixelShuffle", "Embedding", "MaskedFill", "Cumsum", "Diagonal", "Tril", "Triu", "Where",
    "AccumulateGrad", "Relu", "LeakyRelu", "Threshold", "Hardtanh", "Relu6", "Abs", "Clamp", "ClampMin", "ClampMax",
    "Maximum", "Minimum", "Max", "Min", "Amax", "Amin", "MaxPool2DWithIndices", "MaxPool3DWithIndices",
    "AdaptiveMaxPool2D", "AdaptiveMaxPool3D", "RreluWithNoise",
])  # fmt: skip
# Products: the positions of the factors. A tensor that both factors depend on would enter squared.
_PRODUCTS: dict[str, tuple[int, ...]] = {
    "Mul": (0, 1),
    "Mm": (0, 1),
    "Mv": (0, 1),
    "Bmm": (0, 1),
    "Dot": (0, 1),
    "Addmm": (1, 2),
    "Addmv": (1, 2),
    "Baddbmm": (1, 2),
    "Addbmm": (1, 2),
    "Linear": (0, 1),
    "Convolution": (0, 1),
    "NativeBatchNorm": (0, 1),
    "PreluKernel": (0, 1),
}
# The same operation under the name that another library gives it: on a GPU, BatchNorm is cuDNN's or MIOpen's.
_SAME = {"CudnnBatchNorm": "NativeBatchNorm", "MiopenBatchNorm": "NativeBatchNorm"}


@dataclass(frozen=True)
class Structure:
    """How the outputs depend on one parameter tensor at a time.

    Attributes:
        kind: ``"piecewise linear"``, ``"smooth units"`` or ``"general"``.
        reason: What made it general; empty otherwise.
    """

    kind: Literal["piecewise linear", "smooth units", "general"]
    reason: str = ""


def structure(objective: Objective) -> Structure:
    """Analyse the graph of the network on one point.

    Args:
        objective: What is differentiated.

    Returns:
        The structure; ``"general"`` whenever an operation is not known.
    """
    z = objective.outputs(objective.take(slice(0, 1)))
    number = {id(p): i for i, p in enumerate(objective.parameters)}
    leaves: dict[Any, int] = {}  # node -> bit set of the parameters below it
    smooth = False
    for node in nodes(z):
        children = [0 if child is None else leaves[child] for child, _ in node.next_functions]
        below = 0
        for child in children:
            below |= child
        name = operation(node)
        if name == "AccumulateGrad":
            below = 1 << number[id(node.variable)] if id(node.variable) in number else 0
        leaves[node] = below
        if not below:
            continue  # constant in every parameter
        if name in _PRODUCTS:
            factors = [children[i] for i in _PRODUCTS[name] if i < len(children)]
            if len(factors) > 1 and factors[0] & factors[1]:
                shared = objective.names[((factors[0] & factors[1]) & -(factors[0] & factors[1])).bit_length() - 1]
                return Structure("general", f"{name} of two tensors that both depend on {shared}")
            if name == "NativeBatchNorm" and node._saved_training:
                return Structure("general", "BatchNorm over the statistics of the batch")
        elif name == "Div":
            if len(children) > 1 and children[1]:
                return Structure("general", "a division by something that depends on parameters")
        elif name in SMOOTH:
            if any(children[1:]):
                return Structure("general", f"{name} with a parameter of its own")
            smooth = True
        elif name not in _LINEAR:
            return Structure("general", f"the operation {name}")
    return Structure("smooth units" if smooth else "piecewise linear")


def nodes(outputs: Tensor) -> Iterator[Any]:
    """Iterate over the graph of ``outputs``, every node after all that its inputs came from."""
    if outputs.grad_fn is None:
        return
    done: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(outputs.grad_fn, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in node.next_functions if child is not None)


def operation(node: Any) -> str:
    """Name of a node's operation: ``"Relu"`` for a ``ReluBackward0``; custom functions keep their whole name."""
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return "custom " + str(type(node).__name__)
    name = re.sub(r"Backward\d*$", "", str(node.name()).rpartition("::")[2])
    return _SAME.get(name, name)


def second_derivative(node: Any) -> Tensor:
    r"""Second derivative of an elementwise activation at its recorded input.

    Args:
        node: A node whose `operation` is in `SMOOTH`.

    Returns:
        :math:`\sigma''(h)`, in the shape of the activation.
    """
    return SMOOTH[operation(node)](node)


def _of(function: Callable[..., Tensor], **options: str) -> Callable[[Any], Tensor]:
    """Second derivative by automatic differentiation from the saved input."""

    def second(node: Any) -> Tensor:
        saved = {name: getattr(node, f"_saved_{attribute}") for name, attribute in options.items()}
        with torch.enable_grad():
            h = node._saved_self.detach().requires_grad_()
            (first,) = torch.autograd.grad(function(h, **saved).sum(), h, create_graph=True)
            value: Tensor = torch.autograd.grad(first.sum(), h)[0]
        return value

    return second


def _gelu(node: Any) -> Tensor:
    h: Tensor = node._saved_self
    if node._saved_approximate != "none":
        by_autograd: Tensor = _of(functional.gelu, approximate="approximate")(node)
        return by_autograd
    # with density f of the normal distribution: (h F(h))' = F + h f, so (h F(h))'' = (2 - h^2) f
    return (2 - h * h) * (h * h / -2).exp() / math.sqrt(2 * math.pi)


def _tanh(node: Any) -> Tensor:
    y: Tensor = node._saved_result
    return -2 * y * (1 - y * y)


def _sigmoid(node: Any) -> Tensor:
    y: Tensor = node._saved_result
    return y * (1 - y) * (1 - 2 * y)


SMOOTH: dict[str, Callable[[Any], Tensor]] = {
    "Gelu": _gelu,
    "Tanh": _tanh,
    "Sigmoid": _sigmoid,
    "Silu": _of(functional.silu),
    "Mish": _of(functional.mish),
    "Softplus": _of(functional.softplus, beta="beta", threshold="threshold"),
    "Sin": lambda node: -node._saved_self.sin(),
    "Cos": lambda node: -node._saved_self.cos(),
    "Exp": lambda node: node._saved_result,
    "Pow": _of(torch.pow, exponent="exponent"),
}
