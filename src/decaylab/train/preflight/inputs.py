"""Content of the files that a run reads: filled into its settings before it has an id, checked when they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from decaylab.components import IMAGE_DATA
from decaylab.components.lookup import built
from decaylab.config.identity import map_references
from decaylab.config.schema import FOLDER, FOREIGN, AnyRun, LanguageRun, VisionRun, reads_files, references_of
from decaylab.data.corpus import open_corpus
from decaylab.data.digests import file_digest, file_digests
from decaylab.data.text_streams import is_prepared, text
from decaylab.errors import DecaylabError, shown
from decaylab.references import absolute_reference, file_reference, source_file
from decaylab.tensors.checkpoint_folder import CONFIG, weight_files


def with_content(config: AnyRun, report: Callable[[str], None] = lambda line: None) -> AnyRun:
    """Return a run's settings with the digest of each of the user's files that it reads.

    The digest, not the path, is part of the run's id: other content is another run, and the same content elsewhere is
    the same run. Paths become absolute, for workers that start elsewhere. What is named in the catalogue (``stdlib``,
    ``cifar10``) has no digest in a run's settings; see `changed_data`.

    Args:
        config: A run's settings. Digests that they have already are checked.
        report: Called with a line where a text has changed and the run goes on with the earlier one.

    Raises:
        DecaylabError: A file or folder is missing or cannot be read, or has other content than the settings say.
    """
    if not reads_files(config):
        return config
    if code := references_of(config):
        config = replace(config, code_sha256=code_digest(code, config.code_sha256))
        config = map_references(config, absolute_reference)
    if not isinstance(config, LanguageRun):
        return config
    data, evaluation, origin = config.data, config.evaluation, config.init_from
    if data.corpus.startswith(FOLDER):
        digest = _corpus_digest(data.corpus, data.tokenizer, data.sha256, report)
        data = replace(data, corpus=FOLDER + _absolute(data.corpus.removeprefix(FOLDER)), sha256=digest)
    if evaluation.text_file is not None:
        digest = text_digest(evaluation.text_file, evaluation.text_sha256)
        evaluation = replace(evaluation, text_file=_absolute(evaluation.text_file), text_sha256=digest)
    if origin is not None and origin.run.startswith(FOREIGN):
        place = origin.run.removeprefix(FOREIGN)
        digest = checkpoint_digest(Path(place), origin.sha256)
        origin = replace(origin, run=FOREIGN + _absolute(place), sha256=digest)
    return replace(config, data=data, evaluation=evaluation, init_from=origin)


def code_digest(names: Iterable[str], expected: str | None) -> str | None:
    """Return a digest of the files that define the components of the user's; None where they are installed packages'.

    Of each module its own file counts, not what it imports.

    Args:
        names: References, as `decaylab.references.load` takes them.
        expected: The digest that they must have.

    Raises:
        DecaylabError: A file is missing, or they are not the expected ones.
    """
    digest = hashlib.sha256()
    files = 0
    for name in sorted({*names}, key=file_reference):
        if (path := source_file(name)) is not None:
            digest.update(f"{file_reference(name)} {file_digest(path)}\n".encode())
            files += 1
    if not files:
        return None
    return _same("the code of your own components", digest.hexdigest(), expected, "code-sha256")


def text_digest(path: str, expected: str | None) -> str:
    """Return the SHA-256 of a test text.

    Raises:
        DecaylabError: It cannot be read, or is not the expected one.
    """
    try:
        found = file_digest(_expanded(Path(path)))
    except DecaylabError as error:
        raise DecaylabError(f"the test text {error}") from error
    return _same(f"the test text {path}", found, expected, "evaluation.text-sha256")


def checkpoint_digest(folder: Path, expected: str | None) -> str:
    """Return a digest of the files of a checkpoint in transformers' format: its settings and its weights.

    Raises:
        DecaylabError: A file is missing or cannot be read, or they are not the expected ones.
    """
    folder = _expanded(folder)
    if not folder.is_dir():
        if expected is not None:
            return expected  # a run that has begun needs it no more, and any other is told when it is read
        raise DecaylabError(f"there is no folder {folder} to start from: give hf: and the folder of a checkpoint")
    if not (folder / CONFIG).is_file():
        raise DecaylabError(f"{folder / CONFIG} is missing; expected a folder that transformers' save_pretrained wrote")
    names = [CONFIG, *weight_files(folder)]
    digest = hashlib.sha256()
    for name, content in zip(names, file_digests(folder, names), strict=True):
        digest.update(f"{name} {content}\n".encode())
    return _same(f"the checkpoint {folder}", digest.hexdigest(), expected, "init-from.sha256")


def _corpus_digest(name: str, tokenizer: str, expected: str | None, report: Callable[[str], None]) -> str:
    prepared = expected is not None and is_prepared(tokenizer, expected)
    try:
        found = open_corpus(name).digest()
    except DecaylabError:
        if not prepared:
            raise
        found = None
    if found == expected or expected is None:
        assert found is not None
        return found
    if not prepared:
        return _same(f"the text of {name}", str(found), expected, "data.sha256")
    state = "is gone" if found is None else "has changed"
    report(
        f"the text of {name} {state} since these settings were written: the run goes on with the earlier text, kept as "
        "tokens (--data.sha256 None takes the text as it is now)"
    )
    return expected


def _same(what: str, found: str, expected: str | None, flag: str) -> str:
    if expected not in (None, found):
        raise DecaylabError(
            f"{what} has changed since these settings were written (sha256 {str(expected)[:12]}..., now "
            f"{found[:12]}...): put the earlier content back, or give --{flag} None for a new run on this one"
        )
    return found


def _absolute(path: str) -> str:
    return os.path.abspath(_expanded(Path(path)))


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # no home of that name
        raise DecaylabError(f"{shown(str(path))} is no path: {error}") from error


def data_digest(config: AnyRun) -> str | None:
    """Return 16 digits that tell the data of the catalogue apart which a run reads; None for data of the package.

    Raises:
        DecaylabError: The data is not on this machine, or damaged.
    """
    if isinstance(config, VisionRun):
        row = IMAGE_DATA.get(config.data.dataset)
        return None if row is None or row.digest is None else str(built(row.digest)(config.data.dataset))[:16]
    return str(text(config.data.corpus, config.data.tokenizer, sha256=config.data.sha256).manifest["train"]["sha256"])[
        :16
    ]


def changed_data(runs: Iterable[tuple[AnyRun, Mapping[str, Any]]]) -> list[str]:
    """Say in a line each which data sets of the catalogue are not what they were when runs were trained on them.

    Such a data set is part of a run's id by its name. The standard library is another text with another Python, and
    the files of CIFAR can be replaced.

    Args:
        runs: Their settings, and what each said at its end.
    """
    now: dict[str, str | None] = {}
    counts: dict[tuple[str, str, str], int] = {}
    for config, summary in runs:
        if isinstance(config, VisionRun):
            name, then = str(config.data.dataset), summary.get("files")
            source = name
        else:
            name, then = config.data.corpus, summary.get("data")
            source = f"{name} {config.data.tokenizer} {config.data.sha256}"
        if then is None:
            continue
        if source not in now:
            now[source] = _digest_if_here(config)
        found = now[source]
        if found is not None and found != then:
            counts[name, str(then), found] = counts.get((name, str(then), found), 0) + 1
    lines = []
    for (name, then, found), count in counts.items():
        which = "this run was" if count == 1 else f"{count} of the runs were"
        lines.append(
            f"{name} has changed on this machine since {which} trained on it (sha256 {then}, now {found}): what was "
            "measured is of the earlier data; train anew in another --store"
        )
    return lines


def _digest_if_here(config: AnyRun) -> str | None:
    try:
        return data_digest(config)
    except DecaylabError:  # no longer here: nothing to compare, and a finished run needs it no more
        return None
