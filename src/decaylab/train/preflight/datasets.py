"""Is the data of some runs on this machine? Asked before anything is trained. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from decaylab.components import IMAGE_DATA, TEXT_DATA, image_data, text_data
from decaylab.components.lookup import built
from decaylab.config.schema import AnyRun, LanguageRun, VisionRun
from decaylab.data.catalog import CATALOG, available
from decaylab.data.stream import open_stream
from decaylab.data.text_streams import is_prepared
from decaylab.data.tokenizer import require_tokenizer
from decaylab.references import is_reference, plugins
from decaylab.train.preflight.held_out_text import read_text


def require_data(configs: Iterable[AnyRun]) -> None:
    """Return when the data of every run can be loaded.

    Raises:
        DecaylabError: Some data set is missing, and the message names the command that gets it; or a test text is.
    """
    configs = tuple(configs)
    sources = {_source(config): None for config in configs}
    kept = {_source(c) for c in configs if _is_kept(c)}
    for name, tokenizer in sources:
        if tokenizer:
            require_tokenizer(tokenizer)
        own = is_reference(name) and not name.startswith("folder:")
        if own or (name not in CATALOG and name in plugins("dataset")):
            (text_data if tokenizer else image_data)(name)
        elif (name, tokenizer) not in kept:
            available(name, tokenizer=tokenizer)
        if tokenizer == "gpt2":
            available("gpt2")
    for path in {config.evaluation.text_file for config in configs} - {None}:
        read_text(str(path))


def require_whole(configs: Iterable[AnyRun]) -> None:
    """Return when the fetched data of every run can be read; what comes with the package is taken to be whole.

    Raises:
        DecaylabError: A file is missing or damaged; the message names it and what was expected.
    """
    images: dict[str, None] = {}
    streams: dict[Path, None] = {}
    for config in configs:
        name = config.data.dataset if isinstance(config, VisionRun) else config.data.corpus
        if name in IMAGE_DATA and not IMAGE_DATA[name].embedded:
            images[name] = None
        elif isinstance(config, LanguageRun) and name in TEXT_DATA and TEXT_DATA[name].prepared is not None:
            streams[built(TEXT_DATA[name].prepared or "")(config.data.tokenizer)] = None
    for name in images:
        IMAGE_DATA[name].load(None, 0)
    for folder in streams:
        open_stream(folder)


def _is_kept(config: AnyRun) -> bool:
    """Whether a folder's text is there as tokens, so that the folder need not be."""
    return (
        isinstance(config, LanguageRun)
        and config.data.sha256 is not None
        and (is_prepared(config.data.tokenizer, config.data.sha256))
    )


def _source(config: AnyRun) -> tuple[str, str]:
    if isinstance(config, VisionRun):
        return config.data.dataset, ""
    return config.data.corpus, config.data.tokenizer
