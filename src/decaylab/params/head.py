"""The head of a model: the Linear whose output is the vocabulary or the classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from decaylab.params.attribute_names import word_set
from decaylab.params.owner import EMBEDDING_OWNERS, is_matrix_owner

# Containers that repeat blocks, and torch's blocks that end in a Linear: what lies inside is never the head.
_BLOCKS = (
    nn.ModuleList,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
# Names that a head goes by, compared with whole parts of the path.
_HEAD_NAMES = word_set(
    "head heads classifier classification_head lm_head fc_out output_layer out_layer output logits score cls "
    "prediction_head predictions embed_out unembed"
)
# What wrappers keep the module that they stand for in.
_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "module")
_REPLACED = ("base_layer", "original_module")


def find_heads(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the head, and others beside it; none where the model has none (a bare encoder, a base model).

    The first of these that answers:

    1. A transformers model says it: ``get_output_embeddings()``, else the Linears outside its base model whose output
       is ``config.num_labels``, or ``config.vocab_size`` (a classifier and one for distillation, say). A base model of
       transformers has no head.
    2. Of the Linears outside of repeated blocks (``ModuleList``, a block class that occurs several times, a torch
       transformer layer) those whose output, by the sizes, no other matrix takes in: one that goes by a head's name
       (``head``, ``classifier``, ``lm_head``, ...), else the model's last matrix in order of definition, else one that
       stands in the model itself and in none of its parts; with others of as many outputs that stand beside it.
    3. The model's last matrix, when it is a Linear outside of repeated blocks.

    So a classifier may be defined first. The audit prints the choice; ``roles={"name": "matrix"}`` (or ``"head"``)
    corrects it.
    """
    model = _unwrapped(model)
    if hasattr(model, "base_model_prefix") and hasattr(model, "config"):
        return _transformers_heads(model)
    matrices = _matrices(model)
    if not matrices:
        return ()
    counts: dict[type, int] = {}
    for module in model.modules():
        counts[type(module)] = counts.get(type(module), 0) + 1
    may_be = [(name, path) for name, path in matrices if _may_be_head(path, counts)]
    last = matrices[-1][1][-1]
    ends = [(name, path) for name, path in may_be if not _feeds(path[-1], matrices)]
    named = [path[-1] for name, path in ends if _HEAD_NAMES & set(name.split("."))]
    # Without a name only what stands in the model itself may be called its head: a Linear deep in a block may feed
    # something that sizes do not show (a reshaped projection, a gate).
    shallow = [path[-1] for _, path in ends if all(isinstance(module, nn.Sequential) for module in path[1:-1])]
    for candidates in (named, [path[-1] for _, path in ends if path[-1] is last], shallow):
        if candidates:
            head = last if last in candidates else candidates[-1]
            # One for distillation beside the classifier has as many outputs, and stands beside it.
            alike = [one for one in shallow if getattr(one, "out_features", None) == getattr(head, "out_features", 0)]
            return tuple(dict.fromkeys([*alike, head] if head in alike else [head]))
    return (last,) if any(path[-1] is last for _, path in may_be) else ()


def with_replacements(heads: Iterable[nn.Module]) -> set[nn.Module]:
    """Return the heads and the modules that PEFT's wrappers around them hold: the originals and their copies."""
    found: set[nn.Module] = set()
    waiting = list(heads)
    while waiting:
        module = waiting.pop()
        found.add(module)
        inner = [getattr(module, name, None) for name in _REPLACED]
        copies = getattr(module, "modules_to_save", None)
        inner += list(copies.values()) if isinstance(copies, nn.ModuleDict) else []
        waiting += [one for one in inner if isinstance(one, nn.Module) and one not in found]
    return found


def _unwrapped(model: nn.Module) -> nn.Module:
    """Look through torch.compile, DDP and FSDP, which hold the model as their only child."""
    children = dict(model.named_children())
    inner = next((children[name] for name in _WRAPPED if list(children) == [name]), None)
    own = next(model.parameters(recurse=False), None)
    return model if inner is None or own is not None else _unwrapped(inner)


def _transformers_heads(model: Any) -> tuple[nn.Module, ...]:
    get = getattr(model, "get_output_embeddings", None)
    try:
        output = get() if callable(get) else None
    except (NotImplementedError, AttributeError):  # some models inherit the method without what it returns
        output = None
    if isinstance(output, nn.Module):
        return (output,)
    base = getattr(model, model.base_model_prefix, None)
    if not isinstance(base, nn.Module) or base is model:
        return ()
    inside = set(base.modules())
    outside = [module for module in model.modules() if module not in inside and isinstance(module, nn.Linear)]
    for size in (getattr(model.config, "num_labels", None), getattr(model.config, "vocab_size", None)):
        if found := tuple(module for module in outside if module.out_features == size):
            return found
    return ()


def _matrices(model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """Name and path of every module that holds a matrix or an embedding, in order of definition."""
    found: list[tuple[str, list[nn.Module]]] = []

    def visit(name: str, path: list[nn.Module]) -> None:
        module = path[-1]
        if is_matrix_owner(module) or isinstance(module, EMBEDDING_OWNERS):
            found.append((name, path))
        for child, inner in module.named_children():
            visit(f"{name}.{child}" if name else child, [*path, inner])

    visit("", [model])
    return found


def _may_be_head(path: list[nn.Module], counts: dict[type, int]) -> bool:
    if not isinstance(path[-1], nn.Linear):
        return False
    repeated = any(counts[type(module)] > 1 and not isinstance(module, nn.Sequential) for module in path[1:-1])
    return not repeated and not any(isinstance(module, _BLOCKS) for module in path[:-1])


def _feeds(module: nn.Module, matrices: list[tuple[str, list[nn.Module]]]) -> bool:
    """Tell whether another matrix of the model takes as many numbers in as this Linear gives out."""
    given = getattr(module, "out_features", None)
    return any(path[-1] is not module and _taken(path[-1]) == given for _, path in matrices)


def _taken(module: nn.Module) -> int | None:
    for name in ("in_features", "in_channels", "in1_features", "input_size", "embed_dim"):
        size = getattr(module, name, None)
        if isinstance(size, int):
            return size
    return None
