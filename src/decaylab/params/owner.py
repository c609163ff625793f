"""Which role does a module give to the parameters that it owns? One table of rules, read by `decaylab.params.role`."""

from __future__ import annotations

import re
from typing import Literal, get_args

from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.weight_norm import WeightNorm

Role = Literal["matrix", "embedding", "head", "norm", "bias", "scalar"]
ROLES: tuple[Role, ...] = get_args(Role)

MATRIX_OWNERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
EMBEDDING_OWNERS = (nn.Embedding, nn.EmbeddingBag)
NORM_OWNERS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# Classes known by their full name, so that their package need not be installed.
MATRIX_CLASSES = frozenset({"transformers.pytorch_utils.Conv1D"})
# RMSNorm and LayerNorm classes of other libraries (LlamaRMSNorm, T5LayerNorm); "Normal..." is not one.
NORM_CLASS = re.compile(r"Norm(?![a-z])")
SCALAR_CLASS = re.compile(r"LayerScale(?![a-z])")
# Bare parameters that vision transformers hold on a module of their own. Exact attribute names, asked last. Learned
# tokens and positions are looked up or added, never multiplied with an input: embeddings.
EMBEDDING_ATTRIBUTES = frozenset(
    {
        *("cls_token", "class_token", "class_embedding", "dist_token", "distillation_token", "mask_token"),
        *("reg_token", "register_tokens", "pos_embed", "pos_embedding", "position_embedding", "position_embeddings"),
        *("positional_embedding", "relative_position_bias_table"),
    }
)
SCALAR_ATTRIBUTES = frozenset({"layer_scale", "logit_scale"})


def role_of(module: nn.Module, attribute: str, parameter: nn.Parameter) -> tuple[Role, str] | None:
    """Return the role and the reason for one parameter, or None where no rule knows its owner.

    Args:
        module: The module that holds the parameter (for a parametrised tensor: the module it stands for).
        attribute: The parameter's name on that module.
        parameter: The tensor; only its shape is read.
    """
    owner = class_name(module)
    if isinstance(module, EMBEDDING_OWNERS):
        return "embedding", f"weight of {owner}"
    if isinstance(module, NORM_OWNERS):
        return "norm", f"{attribute} of {owner}"
    if is_matrix_owner(module):
        # in_proj_bias, bias_k and bias_v of attention, bias_ih_l0 of recurrent cells, bias of the rest
        if "bias" in attribute:
            return "bias", f"{attribute} of {owner}"
        return "matrix", f"{attribute} of {owner}"
    if isinstance(module, nn.PReLU) or SCALAR_CLASS.search(owner):
        return "scalar", f"{attribute} of {owner}"
    if parameter.ndim <= 1 and any(NORM_CLASS.search(base.__name__) for base in type(module).__mro__):
        return "norm", f"{attribute} of {owner}"
    if parameter.numel() == 1:
        return "scalar", f"a single number of {owner}"
    if attribute == "bias" and parameter.ndim == 1:
        return "bias", f"bias of {owner}"
    if attribute in EMBEDDING_ATTRIBUTES:
        return "embedding", f"{attribute} of {owner}: a learned token or position"
    if attribute in SCALAR_ATTRIBUTES:
        return "scalar", f"{attribute} of {owner}: scales a branch"
    return None


def is_matrix_owner(module: nn.Module) -> bool:
    """Tell whether the module multiplies its input with its weight."""
    return isinstance(module, MATRIX_OWNERS) or any(
        f"{base.__module__}.{base.__qualname__}" in MATRIX_CLASSES for base in type(module).__mro__
    )


def hooked_weight_norm(module: nn.Module, attribute: str) -> tuple[str, bool] | None:
    """Return (tensor name, whether this is the gain) for a weight-normed parameter held by the older hook API."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and attribute in (f"{hook.name}_g", f"{hook.name}_v"):
            return hook.name, attribute.endswith("_g")
    return None


def is_weight_norm_gain(owner: parametrize.ParametrizationList, attribute: str) -> bool:
    """Tell whether ``attribute`` of a parametrised tensor is weight norm's gain (``original0``), not its direction."""
    return attribute == "original0" and isinstance(owner[0], parametrizations._WeightNorm)


def class_name(module: nn.Module) -> str:
    """The class as its author named it: torch prefixes parametrised classes, which is hidden again here."""
    if parametrize.is_parametrized(module):
        return type(module).__mro__[1].__name__
    return type(module).__name__
