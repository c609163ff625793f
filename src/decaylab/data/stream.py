"""Token streams on disk: where they lie, how they appear in one step, how they are opened.

A stream is a folder ``data_home()/text/NAME`` with ``train.bin`` and ``val.bin`` (uint16, little endian, documents one
after the other with the end-of-text id behind each) and ``manifest.json``. The folder's name is a hash of all that
decides the content, and the folder appears in one step, so it is either whole or absent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decaylab.data import manifest as records
from decaylab.data.tokenizer import BytePairs, Tokenizer, bpe_size, open_tokenizer
from decaylab.errors import DecaylabError
from decaylab.files import data_home
from decaylab.serialization import encode

# Raised when the same corpus and tokenizer would give another stream than before.
FORMAT = 1


@dataclass(frozen=True)
class TokenStream:
    """Tokens to train and to validate on.

    Attributes:
        train: Memory-mapped uint16 ids.
        val: Memory-mapped uint16 ids.
        vocab_size: Ids are 0 to this number, exclusive.
        manifest: What was written, as `decaylab.data.manifest.Manifest` in plain values: corpus and its hash,
            tokenizer, vocabulary size, tokens, hash and largest id of each side.
        tokenizer: Text to ids and back.
        folder: Where the files are.
    """

    train: NDArray[np.uint16]
    val: NDArray[np.uint16]
    vocab_size: int
    manifest: Mapping[str, Any]
    tokenizer: Tokenizer
    folder: Path

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return [int(i) for ids in self.tokenizer.encode_documents([text.encode()]) for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of some ids."""
        return self.tokenizer.decode([int(i) for i in ids])


def stream_folder(corpus: str, tokenizer: str, content: str) -> Path:
    """Return where the stream of some content, encoded by some tokenizer, is kept."""
    key = hashlib.sha256(f"{FORMAT} {corpus} {tokenizer} {content}".encode()).hexdigest()[:16]
    return data_home() / "text" / f"{corpus}-{tokenizer.replace(':', '')}-{key}"


def open_stream(folder: Path, root: Path | None = None) -> TokenStream:
    """Map a written stream into memory, once its record and its files agree.

    The digests of the files are computed, or known from before where the file system says that the files are the same.

    Args:
        folder: Where it is.
        root: Folder with GPT-2's tokenizer files; None: decaylab's own.

    Raises:
        DecaylabError: When a file is missing or damaged (names it and what was expected).
    """
    manifest = records.read_manifest(folder)
    name = manifest.tokenizer
    tokenizer: Tokenizer = (
        open_tokenizer(name, root) if bpe_size(name) is None else BytePairs.load(folder / records.TOKENIZER_FILE)
    )
    if (tokenizer.vocab_size, tokenizer.end_of_text) != (manifest.vocab_size, manifest.end_of_text):
        raise DecaylabError(
            f"{folder} was written with a vocabulary of {manifest.vocab_size:,}, and {name} has "
            f"{tokenizer.vocab_size:,}: remove it to write it again"
        )
    # Copy on write: torch wants memory that may be written to, and the file must stay as it is.
    train, val = (np.memmap(folder / f"{side}.bin", dtype="<u2", mode="c") for side in records.SIDES)
    return TokenStream(train, val, manifest.vocab_size, encode(manifest), tokenizer, folder)


def write_side(path: Path, tokenizer: Tokenizer, documents: Iterable[bytes]) -> None:
    """Write documents one after the other, with the end-of-text id behind each."""
    end = np.array([tokenizer.end_of_text], dtype="<u2")
    with path.open("wb") as file:
        for ids in tokenizer.encode_documents(documents):
            file.write(np.concatenate([ids.astype("<u2"), end]).tobytes())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder``; when the block ends well, it gets that name in one step."""
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if folder.exists() and not records.exists(folder):
            shutil.rmtree(folder)  # a folder without a manifest was never finished
        try:
            scratch.rename(folder)
        except OSError:
            if not records.exists(folder):  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time into the block; the others wait.

    The lock spares double work only: without it (where the system has no ``flock``) the rename still decides. The
    system gives it up when its holder dies.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
