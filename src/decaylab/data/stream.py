"""How does a corpus become one stream of tokens: written once, memory-mapped, shared by all processes.

A stream is a folder ``data_home()/text/NAME`` with ``train.bin`` and ``val.bin`` (uint16, little endian, documents one
after the other with the end-of-text id behind each) and ``manifest.json``. The folder's name is a hash of all that
decides the content, and the folder appears in one step, so it is either whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decaylab.data.tokenizer import BytePairs, Tokenizer, bpe_size, open_tokenizer
from decaylab.errors import DecaylabError
from decaylab.files import data_home

# Raised when the same corpus and tokenizer would give another stream than before.
FORMAT = 1
SIDES = ("train", "val")
_TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class TokenStream:
    """Tokens to train and to validate on.

    Attributes:
        train: Memory-mapped uint16 ids.
        val: Memory-mapped uint16 ids.
        vocab_size: Ids are 0 to this number, exclusive.
        manifest: What was written: corpus and its hash, tokenizer, vocabulary size, tokens and hash of each side.
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


def write_manifest(
    folder: Path, corpus: Mapping[str, Any], name: str, tokenizer: Tokenizer, sides: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write ``manifest.json``, the record of what a stream holds."""
    manifest = {
        "format": FORMAT,
        "corpus": corpus,
        "tokenizer": name,
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": tokenizer.end_of_text,
        **sides,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def open_stream(folder: Path, root: Path | None = None) -> TokenStream:
    """Map a written stream into memory.

    Raises:
        DecaylabError: When a file is missing or damaged (names it and what was expected).
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        name, tokens = str(manifest["tokenizer"]), {side: int(manifest[side]["tokens"]) for side in SIDES}
    except OSError as error:
        raise DecaylabError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DecaylabError(f"{path} is damaged: expected the facts of a token stream; remove {folder}") from error
    tokenizer: Tokenizer = (
        open_tokenizer(name, root) if bpe_size(name) is None else BytePairs.load(folder / _TOKENIZER_FILE)
    )
    maps = {}
    for side in SIDES:
        path = folder / f"{side}.bin"
        found = path.stat().st_size if path.exists() else 0
        if found != 2 * tokens[side]:
            raise DecaylabError(
                f"{path} is damaged: expected {2 * tokens[side]:,} bytes ({tokens[side]:,} tokens), found {found:,}; "
                f"remove {folder} to write it again"
            )
        # Copy on write: torch wants memory that may be written to, and the file must stay as it is.
        maps[side] = np.memmap(path, dtype="<u2", mode="c")
    return TokenStream(maps["train"], maps["val"], int(manifest["vocab_size"]), manifest, tokenizer, folder)


def _write(path: Path, tokenizer: Tokenizer, documents: Iterable[bytes]) -> dict[str, Any]:
    tokens, digest = 0, hashlib.sha256()
    end = np.array([tokenizer.end_of_text], dtype="<u2")
    with path.open("wb") as file:
        for ids in tokenizer.encode_documents(documents):
            content = np.concatenate([ids.astype("<u2"), end]).tobytes()
            file.write(content)
            digest.update(content)
            tokens += len(ids) + 1
    return {"tokens": tokens, "sha256": digest.hexdigest()}


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder``; when the block ends well, it gets that name in one step."""
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if folder.exists() and not (folder / "manifest.json").exists():
            shutil.rmtree(folder)  # a folder without a manifest was never finished
        try:
            scratch.rename(folder)
        except OSError:
            if not (folder / "manifest.json").exists():  # else another process was faster, with the same content
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
