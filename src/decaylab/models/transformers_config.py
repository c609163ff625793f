"""Settings of a GPT-2 in the format of transformers: types and sizes are checked before anything is built of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decaylab.errors import DecaylabError, shown
from decaylab.serialization import read_object
from decaylab.tensors.checkpoint_folder import CONFIG

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
# Far above every GPT-2, and far below what hangs a computer.
_SIZES = {"vocab_size": 2**24, "n_positions": 2**24, "n_layer": 10_000, "n_head": 2**16, "n_embd": 2**20}


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of a GPT-2.

    Args:
        folder: With ``config.json``, as ``save_pretrained`` writes it.

    Returns:
        Keyword arguments of `decaylab.models.GPT` but ``bias``, which only the weights tell.

    Raises:
        DecaylabError: The file is missing or damaged, a value has the wrong type or no possible size, or the model is
            not a GPT-2 that ours can express.
    """
    path = folder / CONFIG
    config = read_object(path, "a model's settings, as transformers' save_pretrained writes them")
    for name in _SIZES:
        if name not in config:
            raise DecaylabError(f"{path} has no {name}: it is not the configuration of a GPT-2")
    model_type, activation = config.get("model_type", "gpt2"), config.get("activation_function", "gelu_new")
    if model_type != "gpt2" or not isinstance(activation, str) or activation not in ACTIVATIONS:
        what = f"model_type {shown(model_type)} with activation {shown(activation)}"
        raise DecaylabError(f"{folder} holds {what}; only GPT-2 with {', '.join(ACTIVATIONS)} can be read")
    sizes = {name: _size(path, name, config[name], most) for name, most in _SIZES.items()}
    if sizes["n_embd"] % sizes["n_head"]:
        raise DecaylabError(f"{path}: n_embd {sizes['n_embd']} is not a multiple of n_head {sizes['n_head']}")
    if not _flag(path, config, "scale_attn_weights", True) or _flag(
        path, config, "scale_attn_by_inverse_layer_idx", False
    ):
        raise DecaylabError(f"{folder} scales its attention in another way than GPT-2: it cannot be read")
    inner = config.get("n_inner")
    if inner is not None and inner != 4 * sizes["n_embd"]:
        raise DecaylabError(f"{path} has n_inner {shown(inner)}: only 4 n_embd = {4 * sizes['n_embd']} can be read")
    eps = config.get("layer_norm_epsilon", 1e-5)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < math.inf:
        raise DecaylabError(f"{path} has layer_norm_epsilon {shown(eps)}: expected a positive number")
    return {
        "vocab_size": sizes["vocab_size"],
        "context": sizes["n_positions"],
        "num_layers": sizes["n_layer"],
        "num_heads": sizes["n_head"],
        "width": sizes["n_embd"],
        "tied": _flag(path, config, "tie_word_embeddings", True),
        "activation": ACTIVATIONS[activation],
        "norm_eps": float(eps),
    }


def _size(path: Path, name: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise DecaylabError(f"{path} has {name} {shown(value)}: expected a whole number from 1 to {most:,}")
    return value


def _flag(path: Path, config: Mapping[str, Any], name: str, default: bool) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise DecaylabError(f"{path} has {name} {shown(value)}: expected true or false")
    return value


def shapes(settings: Mapping[str, Any], *, bias: bool) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a GPT-2, by its name in our model (transposed from transformers').

    Args:
        settings: What `read_settings` returned.
        bias: With those of the linear maps and norms.
    """
    width, rows = settings["width"], settings["vocab_size"]
    found: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (rows, width),
        "transformer.wpe.weight": (settings["context"], width),
    }
    linear = {"attn.c_attn": 3 * width, "attn.c_proj": width, "mlp.c_fc": 4 * width, "mlp.c_proj": width}
    for layer in range(settings["num_layers"]):
        block = f"transformer.h.{layer}"
        for name in ("ln_1", "ln_2"):
            found[f"{block}.{name}.weight"] = (width,)
        for name, outputs in linear.items():
            found[f"{block}.{name}.weight"] = (outputs, 4 * width if name == "mlp.c_proj" else width)
        if bias:
            found |= {f"{block}.{name}.bias": (width,) for name in ("ln_1", "ln_2")}
            found |= {f"{block}.{name}.bias": (outputs,) for name, outputs in linear.items()}
    found["transformer.ln_f.weight"] = (width,)
    if bias:
        found["transformer.ln_f.bias"] = (width,)
    if not settings["tied"]:
        found["lm_head.weight"] = (rows, width)
    return found
