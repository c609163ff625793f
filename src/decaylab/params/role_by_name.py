"""Roles of parameters of which only names and shapes are known, as in a file of weights."""

from __future__ import annotations

from torch import Tensor

from decaylab.params.attribute_names import is_vector, named_role, word_set, words
from decaylab.params.owner import UNKNOWN, ReportedRole

_NORM = word_set("norm norms ln layernorm rmsnorm batchnorm groupnorm bn gn layernorms normalization")
_EMBEDDING = word_set("embed embeds embedding embeddings emb wte wpe tok token position positions")
_HEAD = word_set("head lm_head classifier score fc_out embed_out output_layer unembed classification_head")


def role_by_name(name: str, tensor: Tensor) -> ReportedRole:
    """Return the role that a parameter's dotted name and shape suggest; `roles` reads the modules instead and is surer.

    Examples:
        >>> import torch
        >>> role_by_name("transformer.h.0.ln_1.weight", torch.zeros(8))
        'norm'
        >>> role_by_name("lm_head.weight", torch.zeros(16, 8))
        'head'
    """
    *path, attribute = name.split(".")
    # A list's number says nothing: its holder has the name.
    modules = [part for part in path if not part.isdigit()]
    owner = modules[-1] if modules else ""
    owner_words = set(words(owner))
    if is_vector(tensor) and owner_words & _NORM:
        return "norm"
    if attribute == "weight" and not is_vector(tensor):
        if owner in _HEAD:
            return "head"
        return "embedding" if owner_words & _EMBEDDING and "proj" not in owner_words else "matrix"
    found = named_role(attribute, tensor)
    if found is None:
        return UNKNOWN
    if found[0] == "scalar" and attribute == "weight":
        return "norm"  # a vector called weight: nearly always a normalisation's gain
    return found[0]
