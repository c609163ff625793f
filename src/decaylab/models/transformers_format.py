"""GPT-2 checkpoints in the format of the transformers library: read into our model, and written from it.

Only files are exchanged, ``config.json`` and ``model.safetensors``; the library itself is not needed. Read are also the
parts of a large checkpoint and the older ``pytorch_model.bin``, of which nothing is executed. Its linear maps of GPT-2
are stored transposed, and it always has biases: a model without them is written with zeros.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decaylab.errors import DecaylabError
from decaylab.files import atomic_path, atomic_write_text
from decaylab.models.gpt2 import GPT

_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
_FROM_THEIRS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_FILES = ("model.safetensors", "pytorch_model.bin")
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
    config = _config(folder)
    activation = config.get("activation_function", "gelu_new")
    if config.get("model_type", "gpt2") != "gpt2" or activation not in _FROM_THEIRS:
        what = f"model_type {config.get('model_type')!r} with activation {activation!r}"
        raise DecaylabError(f"{folder} holds {what}; only GPT-2 with {', '.join(_FROM_THEIRS)} can be read")
    if not config.get("scale_attn_weights", True) or config.get("scale_attn_by_inverse_layer_idx", False):
        raise DecaylabError(f"{folder} scales its attention in another way than GPT-2: it cannot be read")
    theirs = _weights(folder)
    tensors = {}
    for name, tensor in theirs.items():
        if name.endswith(_MASKS):
            continue
        own = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
        tensors[own] = (tensor.t() if own.endswith(_TRANSPOSED) else tensor).float().contiguous()
    tied = bool(config.get("tie_word_embeddings", True))
    if tied:
        tensors.pop("lm_head.weight", None)
    settings = {
        "vocab_size": config["vocab_size"],
        "context": config["n_positions"],
        "num_layers": config["n_layer"],
        "num_heads": config["n_head"],
        "width": config["n_embd"],
        "bias": bias or any(tensor.any() for name, tensor in tensors.items() if name.endswith(".bias")),
        "tied": tied,
        "activation": _FROM_THEIRS[activation],
        "norm_eps": config.get("layer_norm_epsilon", 1e-5),
    }
    if not settings["bias"]:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".bias")}
    return settings, tensors


def load(folder: Path) -> GPT:
    """Build our model with the weights of a GPT-2 checkpoint; see :func:`read` for the errors."""
    settings, tensors = read(folder)
    model = GPT(**settings)
    own = dict(model.named_parameters())
    different = own.keys() ^ tensors.keys()
    if different:
        raise DecaylabError(f"{folder}: {sorted(different)[0]!r} is missing or not part of a GPT-2")
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
    block = model.transformer["h"][0]
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
    there = [folder / name for name in ("config.json", "model.safetensors") if (folder / name).exists()]
    try:
        ours = not there or json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == "gpt2"
    except (OSError, ValueError, KeyError, TypeError):
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
    for name in _FILES:
        if (folder / name).exists():
            return _tensors(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            try:
                parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError):
                raise DecaylabError(f"{index} is damaged; expected the names of a checkpoint's files") from None
            return {name: tensor for part in parts for name, tensor in _tensors(folder / Path(part).name).items()}
    raise DecaylabError(f"{folder} has neither {_FILES[0]} nor {_FILES[1]}; expected a checkpoint of transformers")


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise DecaylabError(f"{path} is missing; the index beside it names it") from None
    except Exception as error:  # torch raises many kinds for a damaged archive; all mean the same to the reader
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DecaylabError(f"{path} is damaged, or holds more than tensors ({line})") from None


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DecaylabError(f"{path} is missing; expected a folder that transformers' save_pretrained wrote") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DecaylabError(f"{path} is damaged ({error}); expected a model's settings as JSON") from None
    missing = {"vocab_size", "n_positions", "n_layer", "n_head", "n_embd"} - content.keys()
    if missing:
        raise DecaylabError(f"{path} has no {sorted(missing)[0]}: it is not the configuration of a GPT-2")
    return dict(content)
