"""How does a trained language model come back from disk: from a run's folder, a snapshot, or transformers' format?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from decaylab import data
from decaylab.config.schema import LanguageRun
from decaylab.data.tokenizer import Tokenizer, bpe_size, open_tokenizer
from decaylab.errors import DecaylabError
from decaylab.models import transformers_format
from decaylab.train.build import language_model
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
    name = tokenizer or config.data.tokenizer
    codec = data.text(config.data.corpus, name).tokenizer if bpe_size(name) else open_tokenizer(name, None)
    model = language_model(config.model, codec.vocab_size)
    checkpoint.load_model_tensors(model, averaged_weights(folder, weights), str(folder))
    return model.eval(), codec


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
