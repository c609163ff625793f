"""Roles of the parameters that known classes of modules own: torch's layers, and a few of other libraries."""

from __future__ import annotations

import re
from typing import Literal, get_args

from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.weight_norm import WeightNorm

from decaylab.params.attribute_names import is_vector, named_role, word_set, words

Role = Literal["matrix", "embedding", "head", "norm", "bias", "scalar"]
ROLES: tuple[Role, ...] = get_args(Role)
UNKNOWN: Literal["unknown"] = "unknown"
ReportedRole = Literal["matrix", "embedding", "head", "norm", "bias", "scalar", "unknown"]

MATRIX_OWNERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
EMBEDDING_OWNERS = (nn.Embedding, nn.EmbeddingBag)
NORM_OWNERS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# Classes known by their full name, so that their package need not be installed.
MATRIX_CLASSES = frozenset({"transformers.pytorch_utils.Conv1D"})
ADAPTER_CLASS = "peft.tuners.tuners_utils.BaseTunerLayer"
# RMSNorm, LayerNorm2d, BatchNormalization and the like of other libraries ("Normal..." is none of them), and the layers
# that take a normalisation's place: GRN (ConvNeXt V2), DyT (dynamic tanh), Derf (dynamic erf).
_NORM_CLASS = re.compile(r"(?:[Nn]orm(?:ali[sz]ation)?|GRN|DyT|DynamicTanh|Derf|DynamicErf)(?![a-z])")
# What such a class may not be called behind it: a NormLinear or a PostNormBlock is more than its normalisation.
_NOT_A_NORM = word_set(
    "linear conv dense embedding attention block mlp net network model encoder decoder layer stack head"
)
_NORM_WORDS = word_set("weight bias gain gamma beta scale shift alpha")
_MATRIX_CLASS_WORDS = word_set("linear dense expert experts router")
_EMBEDDING_CLASS_WORDS = word_set("embedding embeddings embed embedder encoding prompter")


def role_of(module: nn.Module, attribute: str, parameter: nn.Parameter) -> tuple[Role, str] | None:
    """Return the role and the reason for one parameter, or None where no rule knows it.

    A known class of modules decides about the parameters that it defines itself (a Linear: ``weight`` and ``bias``).
    Whatever else a module holds, a subclass's own additions included, is judged by the parameter's shape and by the
    words of its name (`decaylab.params.attribute_names`), then by the class's name.

    Args:
        module: The module that holds the parameter (for a parametrised tensor: the module it stands for).
        attribute: The parameter's name on that module.
        parameter: The tensor; only its shape is read.
    """
    owner = class_name(module)
    if owned := _owned(module, attribute):
        return owned, f"{attribute} of {owner}"
    vector = is_vector(parameter)
    if not is_matrix_owner(module) and is_norm(module) and (vector or set(words(attribute)[-1:]) & _NORM_WORDS):
        return "norm", f"{attribute} of {owner}"
    table = not is_matrix_owner(module) and set(words(owner)[-1:]) & _EMBEDDING_CLASS_WORDS
    named = named_role(attribute, parameter)
    if table and (named is None or (named[0] == "matrix" and words(attribute)[-1:] in (("weight",), ("weights",)))):
        return "embedding", f"{attribute} of {owner}"
    if named is not None:
        role, why = named
        return role, f"{attribute} of {owner}: {why}"
    if parameter.numel() == 1:
        return "scalar", f"a single number of {owner}"
    if vector and is_matrix_owner(module) and parameter.numel() in getattr(module, "weight", parameter).shape:
        return "scalar", f"{attribute} of {owner}: one number for each row or column of its weight"
    if not vector and not is_matrix_owner(module) and _MATRIX_CLASS_WORDS & set(words(owner)):
        return "matrix", f"{attribute} of {owner}"
    return None


def _owned(module: nn.Module, attribute: str) -> Role | None:
    """The role of a parameter that a known class defines; None for what a subclass adds."""
    first = attribute.partition("_")[0]
    if isinstance(module, EMBEDDING_OWNERS):
        return "embedding" if attribute == "weight" else None
    if isinstance(module, NORM_OWNERS):
        return "norm" if attribute in ("weight", "bias") else None
    if isinstance(module, nn.PReLU):
        return "scalar" if attribute == "weight" else None
    if isinstance(module, nn.MultiheadAttention):
        own = attribute in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return "matrix" if own else "bias" if attribute in ("in_proj_bias", "bias_k", "bias_v") else None
    if isinstance(module, nn.RNNBase):
        first = first if attribute in module._flat_weights_names else ""
    elif isinstance(module, nn.RNNCellBase):
        first = first if attribute in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") else ""
    elif not is_matrix_owner(module) or attribute not in ("weight", "bias"):
        return None
    return "matrix" if first == "weight" else "bias" if first == "bias" else None


def is_norm(module: nn.Module) -> bool:
    """Tell whether the module is a normalisation, by its class or a base class."""
    if isinstance(module, NORM_OWNERS):
        return True
    for base in type(module).__mro__:
        if matches := list(_NORM_CLASS.finditer(base.__name__)):
            return not _NOT_A_NORM & set(words(base.__name__[matches[-1].end() :]))
    return False


def is_matrix_owner(module: nn.Module) -> bool:
    """Tell whether the module multiplies its input with its weight."""
    return isinstance(module, MATRIX_OWNERS) or bool(_full_names(module) & MATRIX_CLASSES)


def is_adapter(module: nn.Module, attribute: str) -> bool:
    """Tell whether ``attribute`` holds the weights of a PEFT adapter, by what the adapter's layer says itself."""
    return ADAPTER_CLASS in _full_names(module) and attribute in getattr(module, "adapter_layer_names", ())


def _full_names(module: nn.Module) -> set[str]:
    return {f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__}


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
