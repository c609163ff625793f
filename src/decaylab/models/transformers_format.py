"""GPT-2 checkpoints in the format of the transformers library: read into our model, and written from it.

Only files are exchanged, ``config.json`` and ``model.safetensors``; the library itself is not needed. Read are also the
parts of a large checkpoint and the older ``pytorch_model.bin``, of which nothing is executed. Its linear maps of GPT-2
are stored transposed, and it always has biases: a model without them is written with zeros.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from decaylab.errors import DecaylabError, shown
from decaylab.files import atomic_path, atomic_write_text
from decaylab.models.gpt2 import GPT
from decaylab.models.transformers_config import read_settings, shapes
from decaylab.serialization import read_object
from decaylab.tensors.checkpoint_folder import CONFIG, WEIGHTS, weight_files
from decaylab.tensors.tensor_files import load_tensors

_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_LAYER = re.compile(r"(?:transformer\.)?h\.(\d+)\.")
# Causal masks that older checkpoints carry along.
_MASKS = (".attn.bias", ".attn.masked_bias")


def read(folder: Path, *, bias: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a GPT-2 checkpoint.

    Args:
        folder: With ``config.json`` and the weights, as ``save_pretrained`` writes them: whole or in parts, as
            safetensors or as a ``.bin`` of torch.
        bias: Keep the biases also when all of them are zero, as they are in a fresh model or in one without any.

    Returns:
        Keyword arguments of :class:`decaylab.models.GPT`, and its parameters by name in float32.

    Raises:
        DecaylabError: A file is missing or damaged, or the model is not a GPT-2 that ours can express.
    """
    settings = read_settings(folder)
    theirs = _weights(folder)
    layers = {match[1] for name in theirs if (match := _LAYER.match(name))}
    if len(layers) != settings["num_layers"]:
        raise DecaylabError(f"{folder} has weights of {len(layers)} layers, its config.json {settings['num_layers']}")
    tensors = {}
    for name, tensor in theirs.items():
        if name.endswith(_MASKS):
            continue
        own = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
        tensors[own] = (tensor.t() if own.endswith(_TRANSPOSED) and tensor.dim() == 2 else tensor).float().contiguous()
    if settings["tied"] and "lm_head.weight" in tensors:  # some files have the one name, some the other
        head = tensors.pop("lm_head.weight")
        tensors.setdefault("transformer.wte.weight", head)
    biased = bias or any(bool(tensor.any()) for name, tensor in tensors.items() if name.endswith(".bias"))
    if not biased:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".bias")}
    expected = shapes(settings, bias=biased)
    for name in sorted(expected.keys() ^ tensors.keys()):
        raise DecaylabError(f"{folder}: {shown(name)} is missing or not part of a GPT-2 of these settings")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise DecaylabError(
                f"{folder}: {name} has the shape {tuple(tensors[name].shape)}, by its config.json {shape} is expected"
            )
    return settings | {"bias": biased}, tensors


def load(folder: Path) -> GPT:
    """Build our model with the weights of a GPT-2 checkpoint; see :func:`read` for the errors."""
    settings, tensors = read(folder)
    model = GPT(**settings)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
    return model


def write(model: GPT, folder: Path, *, end_of_text: int | None = None) -> None:
    """Write a model so that ``GPT2LMHeadModel.from_pretrained(folder)`` computes the same logits.

    Args:
        model: Ours; on any device, in any precision (float32 is written).
        folder: Where to; files of the same names are replaced, each in one step.
        end_of_text: Id of the token between two texts, at which ``generate`` stops; none by default.

    Raises:
        DecaylabError: The model has normalised branches, queries or keys, which GPT-2 has not; or the folder holds
            files of these names that are no GPT-2.
    """
    _require_free(folder)
    tensors = {name: p.detach().float().cpu() for name, p in model.named_parameters()}
    extra = [name for name in tensors if any(part in name for part in ("ln_3", "ln_4", "ln_q", "ln_k"))]
    if extra:
        raise DecaylabError(f"the model has {extra[0]!r}, which a GPT-2 has not: it cannot be written as one")
    theirs = {}
    for name, tensor in tensors.items():
        theirs[name] = (tensor.t() if name.endswith(_TRANSPOSED) else tensor).contiguous()
        bias = name.removesuffix("weight") + "bias"
        if name != bias and bias not in tensors and _has_bias(name):
            theirs[bias] = torch.zeros(tensor.shape[0])
    block = cast(Any, model.transformer["h"])[0]
    activation = next(name for name, function in _activation_table().items() if function is block.mlp.activation)
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.vocab_size,
        "n_positions": model.context,
        "n_ctx": model.context,
        "n_embd": model.lm_head.weight.shape[1],
        "n_layer": model.num_layers,
        "n_head": block.attn.num_heads,
        "activation_function": _ACTIVATIONS[activation],
        "layer_norm_epsilon": model.transformer["ln_f"].eps,
        "tie_word_embeddings": model.lm_head.weight is model.transformer["wte"].weight,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
        "attn_pdrop": model.dropout,
        "torch_dtype": "float32",
        # Left out they would be GPT-2's own, 50256, which another vocabulary may not have.
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(theirs, temporary, metadata={"format": "pt"})
    atomic_write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _require_free(folder: Path) -> None:
    """Refuse to replace anything but an earlier GPT-2."""
    there = [folder / name for name in (CONFIG, WEIGHTS[0]) if (folder / name).exists()]
    try:
        ours = not there or read_object(folder / CONFIG, "a model's settings").get("model_type") == "gpt2"
    except DecaylabError:
        ours = False
    if not ours:
        raise DecaylabError(f"{there[0]} is there already and not a GPT-2's: name another folder, or remove it")


def _has_bias(name: str) -> bool:
    return name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight", *_TRANSPOSED))


def _activation_table() -> dict[str, Any]:
    from decaylab.models import gpt2

    return gpt2._ACTIVATIONS


def _weights(folder: Path) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint, from one file or from the files that its index names."""
    tensors: dict[str, Tensor] = {}
    for name in weight_files(folder):
        if not (folder / name).exists():
            raise DecaylabError(f"{folder / name} is missing; the index beside it names it")
        tensors |= load_tensors(folder / name)
    return tensors
