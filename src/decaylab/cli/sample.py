"""``decaylab sample`` and ``decaylab convert``: what a trained language model says, and its way to transformers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from decaylab.cli.run_folder import run_folder
from decaylab.errors import DecaylabError, printable

_SHOWN = 10


def sample(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    prompt: str = "\n",
    tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
    weights: str = "iterate",
    tokenizer: str | None = None,
    store: str | None = None,
) -> None:
    """Continue a prompt with a trained language model. Control characters in its text are spelled out.

    Args:
        model: A run's id, or the first characters of it; or a folder: a run's, a snapshot, or a GPT-2 that
            transformers saved.
        prompt: The text to continue. Characters that the tokenizer does not know are named on the standard error; the
            model reads ? for each.
        tokens: Tokens to add.
        temperature: Divides the logits; 0 always takes the most likely token.
        top_k: Draw among the k most likely tokens only. Default: among all.
        seed: Decides the draw: the same seed gives the same text.
        weights: iterate, or an average of the run, such as ema0.999.
        tokenizer: bytes, ascii or gpt2. Default: the run's own; gpt2 for transformers' format.
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: runs.db in the platform's data folder.
    """
    if tokens < 0 or not temperature >= 0 or (top_k is not None and top_k < 1):
        raise DecaylabError("--tokens and --temperature must not be negative, and --top-k must be at least 1")
    if not -(2**63) <= seed < 2**63:
        raise DecaylabError(f"--seed must be below 2^63, not {seed}")
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise DecaylabError("--prompt is not text in UTF-8: convert it")
    folder = run_folder(model, store, kind="language")
    from decaylab.data.tokenizer import lost_characters
    from decaylab.train.checkpoints.load_model import load_finished
    from decaylab.train.generation import complete

    network, codec = load_finished(folder, weights=weights, tokenizer=tokenizer)
    warn_of_lost(lost_characters(codec, prompt))
    said = complete(network, codec, prompt, num_tokens=tokens, temperature=temperature, top_k=top_k, seed=seed)
    print(printable(said))


def warn_of_lost(characters: str) -> None:
    """Say on the standard error which characters of its texts a model cannot read; nothing where it reads all."""
    if characters:
        named = ", ".join(
            ascii(character) if not character.isprintable() else repr(character) for character in characters[:_SHOWN]
        )
        more = f" and {len(characters) - _SHOWN} more" if len(characters) > _SHOWN else ""
        print(f"decaylab: the model's tokenizer does not know {named}{more}: it reads ? there", file=sys.stderr)


def convert(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    to: Path,
    weights: str = "iterate",
    store: str | None = None,
) -> None:
    """Save a trained language model so that transformers loads it: GPT2LMHeadModel.from_pretrained(FOLDER).

    Args:
        model: A run's id, or the first characters of it; or the folder of a run or of a snapshot.
        to: Folder for config.json and model.safetensors.
        weights: iterate, or an average of the run, such as ema0.999.
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: runs.db in the platform's data folder.
    """
    folder = run_folder(model, store, kind="language")
    from decaylab.train.checkpoints import load_model as finished

    finished.convert(folder, to, weights=weights)
    print(f"{printable(str(to))}: config.json and model.safetensors")
