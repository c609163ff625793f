"""Where is the head: the Linear whose output is the vocabulary or the classes?"""

from __future__ import annotations

from typing import Any

from torch import nn

from decaylab.params.owner import EMBEDDING_OWNERS, is_matrix_owner

# Containers that repeat blocks, and torch's blocks that end in a Linear: what lies inside is never the head.
_BLOCKS = (
    nn.ModuleList,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)


def find_head(model: nn.Module) -> nn.Module | None:
    """Return the head, or None where the model has none (a bare encoder, a base model of transformers).

    The first of these that answers:

    1. A transformers model says it: ``get_output_embeddings()``, else the Linear outside its base model whose output
       is ``config.num_labels`` or ``config.vocab_size``. A base model has no head.
    2. The last matrix of the model in order of definition, when it is a Linear with nothing behind it, and does not lie
       in a repeated block (``ModuleList``, a block class that occurs several times, a torch transformer layer).

    The audit prints the choice; ``roles={"name": "matrix"}`` (or ``"head"``) corrects it.
    """
    if hasattr(model, "base_model_prefix") and hasattr(model, "config"):
        return _transformers_head(model)
    path = _last_matrix(model)
    if not path or not isinstance(path[-1], nn.Linear):
        return None
    ancestors = path[1:-1] if len(path) > 1 else []
    counts: dict[type, int] = {}
    for module in model.modules():
        counts[type(module)] = counts.get(type(module), 0) + 1
    repeated = any(counts[type(module)] > 1 and not isinstance(module, nn.Sequential) for module in ancestors)
    if repeated or any(isinstance(module, _BLOCKS) for module in path[:-1]):
        return None
    return path[-1]


def _transformers_head(model: Any) -> nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    output = get() if callable(get) else None
    if isinstance(output, nn.Module):
        return output
    base = getattr(model, model.base_model_prefix, None)
    if not isinstance(base, nn.Module) or base is model:
        return None
    inside = set(base.modules())
    sizes = {getattr(model.config, "num_labels", None), getattr(model.config, "vocab_size", None)} - {None}
    heads = [
        module
        for module in model.modules()
        if module not in inside and isinstance(module, nn.Linear) and module.out_features in sizes
    ]
    return heads[-1] if heads else None


def _last_matrix(model: nn.Module) -> list[nn.Module]:
    """The path from the model to the last module, in order of definition, that holds a matrix or an embedding."""
    found: list[nn.Module] = []

    def visit(module: nn.Module, path: list[nn.Module]) -> None:
        nonlocal found
        here = [*path, module]
        if is_matrix_owner(module) or isinstance(module, EMBEDDING_OWNERS):
            found = here
        for child in module.children():
            visit(child, here)

    visit(model, [])
    return found
