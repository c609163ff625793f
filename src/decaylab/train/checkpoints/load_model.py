"""Trained language models from disk: from a run's folder, a snapshot, or transformers' format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from decaylab import data
from decaylab.config.schema import FOLDER, LanguageRun
from decaylab.data.text_streams import is_prepared
from decaylab.data.tokenizer import Tokenizer, bpe_size, open_tokenizer
from decaylab.errors import DecaylabError
from decaylab.models import GPT, transformers_format
from decaylab.train.build import embedding_rows, language_model
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.checkpoints import layout as run_folder
from decaylab.train.checkpoints.initial_weights import averaged_weights


def newest_weights(folder: Path) -> Path:
    """Return the folder with a run's latest weights: a snapshot or a checkpoint.

    Args:
        folder: A run's folder; or such a snapshot, or a folder in transformers' format, which are returned.

    Raises:
        DecaylabError: There are no weights.
    """
    if (folder / "config.json").exists():
        return folder
    found = [*run_folder.snapshots(folder), *run_folder.checkpoints(folder)]
    if not found:
        raise DecaylabError(f"there are no weights in {folder}: a language run keeps them when it is done")
    return max(found)[1]


def load_finished(
    folder: Path, *, weights: str = "iterate", tokenizer: str | None = None
) -> tuple[nn.Module, Tokenizer]:
    """Load a language model with its tokenizer.

    Args:
        folder: A run's folder, one of its snapshots, or a GPT-2 in transformers' format.
        weights: ``iterate``, or an average that the run kept, such as ``ema0.999``.
        tokenizer: Another tokenizer than the run's, without training data; GPT-2's for transformers' format.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        DecaylabError: Nothing is there, it is damaged, or it is no language model.
    """
    folder = newest_weights(folder)
    if not (folder / "weights.safetensors").exists():
        return transformers_format.load(folder).eval(), open_tokenizer(tokenizer or "gpt2", None)
    config = checkpoint.load_config(folder)
    if not isinstance(config, LanguageRun):
        raise DecaylabError(f"{folder} holds a vision model, which has no words")
    codec = _tokenizer(config, tokenizer or config.data.tokenizer, folder)
    model = language_model_of(config, averaged_weights(folder, weights), str(folder))
    rows = embedding_rows(config.model, codec.vocab_size)
    if rows != model.vocab_size:
        raise DecaylabError(
            f"{folder} knows {model.vocab_size:,} tokens, its tokenizer {rows:,}: name another tokenizer"
        )
    return model.eval(), codec


def language_model_of(config: LanguageRun, tensors: Mapping[str, Tensor], origin: str) -> GPT:
    """Build a language model of some settings with some weights, once they are known to fit.

    Sizes in settings that somebody else wrote are not believed: what is built is no larger than the file of weights.

    Args:
        config: The run's settings.
        tensors: The weights.
        origin: Their folder, for messages.

    Raises:
        DecaylabError: The weights are of a model with other settings.
    """
    embedding = tensors.get("transformer.wte.weight")
    layers = {name.split(".")[2] for name in tensors if name.startswith("transformer.h.")}
    if embedding is None or embedding.dim() != 2 or len(layers) != config.model.num_layers:
        raise DecaylabError(f"{origin} holds weights of {len(layers)} layers: they belong to a model of other settings")
    places = tensors.get("transformer.wpe.weight", embedding)
    if tuple(places.shape) != (config.model.context, config.model.width):
        sizes = tuple(places.shape)
        raise DecaylabError(f"{origin} holds weights for context and width {sizes}: a model of other settings has them")
    settings = replace(config.model, vocab_size=len(embedding))
    with torch.device("meta"):
        outline = language_model(settings, len(embedding))
    for name, tensor in outline.state_dict().items():
        if name in tensors and tensors[name].shape != tensor.shape:
            found = f"{tuple(tensors[name].shape)}, by its settings {tuple(tensor.shape)}"
            raise DecaylabError(f"{origin}: {name} is {found}: it belongs to a model of other settings")
    model = cast("GPT", language_model(settings, len(embedding)))
    checkpoint.load_model_tensors(model, tensors, origin)
    return model


def _tokenizer(config: LanguageRun, name: str, folder: Path) -> Tokenizer:
    """Return a run's tokenizer; a folder that a checkpoint names is never read for it."""
    if bpe_size(name) is None:
        return open_tokenizer(name, None)
    source = config.data
    if source.corpus.startswith(FOLDER) and not (source.sha256 and is_prepared(name, source.sha256)):
        raise DecaylabError(
            f"the tokenizer {name} of {folder} was trained on {source.corpus}, whose tokens are not on this machine: "
            "train the run here, or measure it with `decaylab probe --corpus`, which encodes the text again"
        )
    return data.text(source.corpus, name, sha256=source.sha256).tokenizer


def convert(folder: Path, target: Path, *, weights: str = "iterate") -> None:
    """Write a finished language model in transformers' format.

    Args:
        folder: A run's folder or one of its snapshots.
        target: A folder for ``config.json`` and ``model.safetensors``.
        weights: ``iterate`` or the name of an average.

    Raises:
        DecaylabError: See :func:`load_finished`; or the model has norms that GPT-2 has not.
    """
    loaded = load_finished(folder, weights=weights)
    model: Any = loaded[0]
    transformers_format.write(model, target, end_of_text=loaded[1].end_of_text)
