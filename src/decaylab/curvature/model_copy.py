"""How does a probe get a model to do with as it likes: modes, hooks, flags and precision of its own?"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from decaylab.curvature.shared_view import unwrap
from decaylab.errors import DecaylabError


def private_copy(model: nn.Module) -> nn.Module:
    """Copy a model's modules, in eval mode, around the same weights; what is done to the copy is not seen by others.

    Args:
        model: The model; wrappers of compilation and data parallelism are taken off.

    Returns:
        The copy. Its parameters are its own but share the storage of the model's, unless those are half precision: then
        they are float32. Buffers are cloned. Activations in place are replaced by ordinary ones.

    Raises:
        DecaylabError: Sharded parameters, BatchNorm without running statistics, or a model that cannot be copied.
    """
    source = unwrap(model)
    floating = [p.dtype for p in source.parameters() if p.is_floating_point()]
    dtype = torch.float64 if torch.float64 in floating else torch.float32
    memo: dict[int, Any] = {}
    for p in source.parameters():
        if hasattr(p, "full_tensor"):
            raise DecaylabError("curvature of sharded parameters is not supported: gather the model first")
        memo[id(p)] = nn.Parameter(p.detach().to(dtype) if p.is_floating_point() else p.detach(), p.requires_grad)
    for buffer in source.buffers():
        memo[id(buffer)] = buffer.detach().clone().to(dtype if buffer.is_floating_point() else buffer.dtype)
    for module in source.modules():
        for attribute, value in vars(module).items():
            # hooks may belong to anything (an optimizer, a log): the functions are shared, not copied
            if attribute.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")):
                memo[id(value)] = copy.copy(value)
    try:
        private = copy.deepcopy(source, memo)
    except (RuntimeError, TypeError) as error:
        raise DecaylabError(f"the model cannot be copied for measuring: {error}") from error
    for module in private.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise DecaylabError(
                "BatchNorm without running statistics mixes the points of a batch: none has a loss of its own"
            )
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False  # activations have to survive until the backward passes
    return private.eval()


@contextmanager
def plain_kernels(device: torch.device) -> Iterator[None]:
    """Differentiable twice, exactly: plain attention, no fused inference paths, no autocast, gradients on."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
