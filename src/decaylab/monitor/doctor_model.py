"""Names and roles of a checkpoint's weights, from its model where there is one, else from names and shapes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from decaylab.errors import DecaylabError
from decaylab.monitor.doctor_files import Checkpoint
from decaylab.params.role import assign
from decaylab.params.role_by_name import role_by_name
from decaylab.tensors.state_dicts import match

_MOST_LABELS, _MOST_SIZE = 100_000, 100_000_000  # a label is an entry of a table, and a size a dimension


def named_weights(checkpoint: Checkpoint, model: nn.Module | None) -> tuple[dict[str, Tensor], dict[str, str], bool]:
    """Return a checkpoint's weights, their roles, and whether they are in the order in which the model defines them.

    Of tied weights the first name is kept. Buffers are left out where the model says what they are.

    Args:
        checkpoint: What was read.
        model: The user's; of a transformers folder one is made from ``config.json`` without values where transformers
            is installed.

    Raises:
        DecaylabError: The weights are not those of the user's model.
    """
    own = model if model is not None else _from_config(checkpoint)
    if own is not None:
        try:
            tensors = match(own, checkpoint.weights, str(checkpoint.path))
        except DecaylabError:
            if model is not None:
                raise
        else:
            roles = {item.name: str(item.role) for item in assign(own)}
            return {name: tensors[name] for name, _ in own.named_parameters() if name in tensors}, roles, True
    weights, seen = {}, set()
    for name, tensor in checkpoint.weights.items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.is_floating_point() and tensor.numel() and place not in seen:
            seen.add(place)
            weights[name] = tensor
    return weights, {name: role_by_name(name, tensor) for name, tensor in weights.items()}, checkpoint.ordered


def _from_config(checkpoint: Checkpoint) -> nn.Module | None:
    """Make transformers' own class from its settings, without values; None where it is not transformers' own."""
    listed = checkpoint.config.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], str) else ""
    if not name.isidentifier() or not _is_plausible(checkpoint.config, len(checkpoint.weights)):
        return None
    try:
        import transformers

        made = getattr(transformers, name, None)
        if not isinstance(made, type) or not issubclass(made, transformers.PreTrainedModel):
            return None
        known: Any = made
        # Neither code nor kernels that settings may name are fetched.
        kept = {k: v for k, v in checkpoint.config.items() if k not in ("auto_map", "quantization_config")}
        with warnings.catch_warnings(), _silent(transformers.logging), torch.device("meta"):
            warnings.simplefilter("ignore")
            config = known.config_class.from_dict({**kept, "attn_implementation": "eager"})
            found = known(config)
        return found if isinstance(found, nn.Module) else None
    except Exception:  # settings of any kind; names and shapes do without
        return None


@contextmanager
def _silent(logging: Any) -> Iterator[None]:
    """Keep transformers' remarks about settings out of the output."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _is_plausible(config: Mapping[str, Any], tensors: int) -> bool:
    """Whether no number of layers is beyond the tensors that there are: a model of millions would never be made."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            if not _is_plausible(value, tensors):
                return False
        elif isinstance(value, int):
            counts = any(word in str(key) for word in ("layer", "expert", "block", "stage", "depth"))
            if value > (max(tensors, 64) if counts else _MOST_LABELS if "label" in str(key) else _MOST_SIZE):
                return False
    return True
