"""How a probe runs a model without touching it: a second set of modules around the same tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from decaylab.errors import unknown


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def evaluation_twin(model: nn.Module, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Make a copy of the module structure, in eval mode, that shares every tensor with ``model``.

    A probe that must run the model in eval mode (no dropout, running statistics in BatchNorm) cannot flip the mode of
    the model that is being trained: it runs the twin. No parameter and no buffer is copied; the twin costs only the
    Python objects.

    Args:
        model: The model; wrappers of compilation and data parallelism are taken off.
        weights: Other tensors to run the same structure with, by name of parameter or buffer (an average, say).
            Names that are missing keep the model's own tensors.

    Returns:
        The twin. Its parameters are ``model``'s own `Parameter` objects unless ``weights`` replaces them.

    Raises:
        DecaylabError: A name in ``weights`` is neither a parameter nor a buffer of the model.
    """
    model = unwrap(model)
    memo: dict[int, object] = {id(tensor): tensor for tensor in model.parameters()}
    memo |= {id(tensor): tensor for tensor in model.buffers()}
    if weights is not None:
        own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
        for name, tensor in weights.items():
            if name not in own:
                raise unknown("parameter or buffer", name, own)
            old = own[name]
            same = tensor.detach().to(device=old.device, dtype=old.dtype)
            memo[id(old)] = nn.Parameter(same, old.requires_grad) if isinstance(old, nn.Parameter) else same
    twin = copy.deepcopy(model, memo)
    return twin.eval()
