"""Is the data of some runs on this machine? Asked before anything is trained. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable

from decaylab.data.catalog import available
from decaylab.train.config import AnyRun, VisionRun
from decaylab.train.held_out import read_text


def require_data(configs: Iterable[AnyRun]) -> None:
    """Return when the data of every run can be loaded.

    Raises:
        DecaylabError: Some data set is missing, and the message names the command that gets it; or a test text is.
    """
    configs = tuple(configs)
    sources = {_source(config): None for config in configs}
    for name, tokenizer in sources:
        available(name, tokenizer=tokenizer)
        if tokenizer == "gpt2":
            available("gpt2")
    for path in {config.evaluation.text_file for config in configs} - {None}:
        read_text(str(path))


def _source(config: AnyRun) -> tuple[str, str]:
    if isinstance(config, VisionRun):
        return config.data.dataset, ""
    return config.data.corpus, config.data.tokenizer
