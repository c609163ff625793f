"""OpenWebText as a token stream: document by document, resumable, with nothing kept but the tokens.

The corpus is about 8 million web pages (9 billion GPT-2 tokens, 17 GB as uint16). One document in 2,000 is for
validation, as in nanoGPT; which ones hangs on the document's number alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from decaylab.data import manifest as records
from decaylab.data.manifest import SIDES, CorpusRecord
from decaylab.data.stream import only_one, open_stream, stream_folder
from decaylab.data.tokenizer import Tokenizer, open_tokenizer
from decaylab.errors import DecaylabError, shown
from decaylab.files import atomic_write_text

_HUB_NAME = "Skylion007/openwebtext"
_ONE_IN = 2000
# Documents between two records of the progress; part of what the hashes in the manifest mean.
_DOCUMENTS_PER_PART = 4096


@runtime_checkable
class _Resumable(Protocol):
    """What a streamed data set of `datasets` can do: say where it stands, and go there."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def prepared_folder(tokenizer: str = "gpt2") -> Path:
    """Return the folder of the prepared stream.

    Raises:
        DecaylabError: When it was not prepared; names the command that does it.
    """
    folder = _folder(tokenizer)
    if not records.exists(folder):
        extra = "" if tokenizer == "gpt2" else f" --tokenizer {tokenizer}"
        begun = " (it was begun, and goes on where it stopped)" if _unfinished(folder).exists() else ""
        command = f"decaylab data get openwebtext{extra}"
        raise DecaylabError(f"openwebtext as {tokenizer} is not on this machine: get it with `{command}`{begun}")
    return folder


def get_openwebtext(
    tokenizer: str = "gpt2",
    *,
    rows: Iterable[Mapping[str, Any]] | None = None,
    source: Path | None = None,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Prepare OpenWebText; call it again after an interruption and it goes on.

    Args:
        tokenizer: ``"gpt2"``, ``"bytes"`` or ``"ascii"``.
        rows: Where the documents come from, as mappings with the key ``text``; None: through `datasets` (the extra
            ``openwebtext``), streamed from the hub or read from ``source``. An object with ``state_dict`` and
            ``load_state_dict``, as `datasets` has them, continues without reading what was done; any other is read
            again up to there.
        source: Folder with the hub's parquet files, where somebody has them already.
        root: Folder with GPT-2's tokenizer files; None: decaylab's own.
        progress: Called with documents and tokens so far, after each part.

    Returns:
        The folder of the finished stream.

    Raises:
        DecaylabError: When `datasets` is not installed, the hub cannot be reached, the files are not those of the data
            set, or the tokenizer is missing.
    """
    chosen = open_tokenizer(tokenizer, root)
    folder = _folder(tokenizer)
    with only_one(folder):
        if not records.exists(folder):
            work = _unfinished(folder)
            work.mkdir(parents=True, exist_ok=True)
            writer = _Writer(work, chosen)
            if rows is None:
                with _quiet():
                    state = _kept(lambda: writer.run(_stream(source), progress))
            else:
                state = writer.run(rows, progress)
            if not all(state[side]["tokens"] for side in SIDES):
                raise DecaylabError(f"{state['documents']} documents are too few: one in {_ONE_IN:,} is for validation")
            corpus = CorpusRecord(
                name="openwebtext", version=_HUB_NAME, split="documents", documents=state["documents"]
            )
            _finish(work, folder, corpus, tokenizer, chosen)
    return folder


def import_openwebtext(source: Path, tokenizer: str = "gpt2", root: Path | None = None) -> Path:
    """Take over ``train.bin`` and ``val.bin`` (uint16 ids) that somebody prepared with other code, such as nanoGPT's.

    Args:
        source: The folder of the two files. They are linked, or copied where the disk cannot link.
        tokenizer: What the ids are of: ``"gpt2"``, ``"bytes"`` or ``"ascii"``.
        root: Folder with GPT-2's tokenizer files; None: decaylab's own.

    Returns:
        The folder of the stream.

    Raises:
        DecaylabError: When a file is missing or is not a stream of such ids.
    """
    folder = _folder(tokenizer)
    if records.exists(folder):
        raise DecaylabError(f"openwebtext is already in {folder}: remove that folder to take another one")
    chosen = open_tokenizer(tokenizer, root)
    with only_one(folder):
        work = _unfinished(folder)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for side in SIDES:
            path = source / f"{side}.bin"
            if not path.is_file():
                raise DecaylabError(f"{path} is missing or damaged: expected uint16 token ids")
            try:
                os.link(path, work / path.name)
            except OSError:
                shutil.copyfile(path, work / path.name)
        _finish(
            work, folder, CorpusRecord(name="openwebtext", version="imported", split="documents"), tokenizer, chosen
        )
    open_stream(folder, root)
    return folder


def _folder(tokenizer: str) -> Path:
    return stream_folder("openwebtext", tokenizer, f"{_HUB_NAME} {_ONE_IN} {_DOCUMENTS_PER_PART}")


def _finish(work: Path, folder: Path, corpus: CorpusRecord, name: str, tokenizer: Tokenizer) -> None:
    """Write the record of two files of tokens and give their folder its name."""
    manifest = records.write_manifest(work, corpus, name, tokenizer)
    (work / "progress.json").unlink(missing_ok=True)
    work.rename(folder)
    records.vouch(folder, manifest)


class _Writer:
    """Appends parts to the two files; after each part the progress on disk says how much of them is good."""

    def __init__(self, work: Path, tokenizer: Tokenizer) -> None:
        self._work = work
        self._tokenizer = tokenizer
        self._end = np.array([tokenizer.end_of_text], dtype="<u2")

    def run(self, rows: Iterable[Mapping[str, Any]], progress: Callable[[int, int], None] | None) -> dict[str, Any]:
        """Write all documents that are not yet written, and return the final progress."""
        state = self._progress()
        for side in SIDES:
            path = self._work / f"{side}.bin"
            path.touch()
            os.truncate(path, 2 * state[side]["tokens"])  # what came after the last record is written again
        for part in self._parts(rows, state):
            sides: dict[str, list[bytes]] = {side: [] for side in SIDES}
            for number, document in enumerate(part, start=state["documents"]):
                sides["val" if _is_val(number) else "train"].append(document)
            for side, documents in sides.items():
                self._append(side, documents, state[side])
            state["documents"] += len(part)
            state["rows"] = rows.state_dict() if isinstance(rows, _Resumable) else None
            atomic_write_text(self._work / "progress.json", json.dumps(state))
            if progress is not None:
                progress(state["documents"], state["train"]["tokens"] + state["val"]["tokens"])
        return state

    def _progress(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {"documents": 0, "rows": None, **{side: {"tokens": 0} for side in SIDES}}
        path = self._work / "progress.json"
        if not path.exists():
            return fresh
        try:
            state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            written = {side: (self._work / f"{side}.bin").stat().st_size for side in SIDES}
            whole = all(written[side] >= 2 * state[side]["tokens"] for side in SIDES)
        except (OSError, ValueError, KeyError, TypeError):
            return fresh
        return state if whole else fresh

    def _parts(self, rows: Iterable[Mapping[str, Any]], state: Mapping[str, Any]) -> Iterator[list[bytes]]:
        skip = int(state["documents"])
        if skip and state["rows"] is not None and isinstance(rows, _Resumable):
            rows.load_state_dict(state["rows"])
            skip = 0
        documents = (str(row["text"] or "").encode() for row in itertools.islice(rows, skip, None))
        while part := list(itertools.islice(documents, _DOCUMENTS_PER_PART)):
            yield part

    def _append(self, side: str, documents: list[bytes], facts: dict[str, Any]) -> None:
        if not documents:
            return
        ids = [array for each in self._tokenizer.encode_documents(documents) for array in (each, self._end)]
        content = np.concatenate(ids).astype("<u2").tobytes()
        with (self._work / f"{side}.bin").open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the progress must never promise what a power cut can take back
        facts["tokens"] += len(content) // 2


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unfinished")


def _is_val(number: int) -> bool:
    return int.from_bytes(hashlib.sha256(f"openwebtext {number}".encode()).digest()[:8]) % _ONE_IN == 0


def _stream(source: Path | None) -> Iterable[Mapping[str, Any]]:
    """Return the documents in the data set's order: from the hub, or from its files in a folder."""
    try:
        import datasets
    except ImportError as error:
        raise DecaylabError("OpenWebText needs an extra: pip install 'decaylab[openwebtext]'") from error
    files = None if source is None else parquet_files(source)
    try:
        rows: Any = (
            datasets.load_dataset(_HUB_NAME, split="train", streaming=True)
            if files is None
            else datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        )
        columns = rows.column_names
    except Exception as error:  # any of the network's many exceptions: the way out is the same
        if source is not None:
            raise DecaylabError(
                f"{source} cannot be read ({type(error).__name__}): expected parquet files with a column text"
            ) from error
        raise DecaylabError(
            f"cannot reach {_HUB_NAME} on the hub ({type(error).__name__}): try again, or take over train.bin and "
            "val.bin prepared elsewhere (or a copy of the hub's parquet files) with `decaylab data get openwebtext "
            "--source FOLDER`"
        ) from error
    if columns is not None and "text" not in columns:
        where = _HUB_NAME if source is None else source
        raise DecaylabError(f"{where} has the columns {', '.join(map(str, columns[:8]))}: expected a column text")
    return rows  # type: ignore[no-any-return]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what `datasets` logs of an error off the terminal: the error itself is one line of ours."""
    logger = logging.getLogger("datasets")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _kept(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Say of an error of the network, or of a damaged file, that what was written before it is not lost."""
    try:
        return action()
    except DecaylabError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # our own disk
            raise
        reason = f"{type(error).__name__}: {shown(str(error), quoted=False)}"
        raise DecaylabError(
            f"reading {_HUB_NAME} stopped ({reason}): what was written is kept, and the same command goes on from there"
        ) from error


def parquet_files(folder: Path) -> list[str]:
    """Return the parquet files below a folder in order of their names, as a copy of the hub's data set has them."""
    return sorted(str(path) for path in folder.rglob("*.parquet"))
