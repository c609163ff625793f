"""Manifest of a token stream: the one record that every writer leaves and that is checked when a stream is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decaylab.data.digests import file_digest, remember
from decaylab.data.tokenizer import Tokenizer
from decaylab.errors import DecaylabError
from decaylab.files import atomic_write_text
from decaylab.serialization import decode, encode, read_object

# Raised when the record gets other fields; earlier ones are read, measured and written anew.
FORMAT = 2
SIDES = ("train", "val")
TOKENIZER_FILE = "tokenizer.json"
_FILE = "manifest.json"
_AT_ONCE = 2**24


@dataclass(frozen=True, kw_only=True)
class Side:
    """One file of tokens.

    Attributes:
        tokens: How many, two bytes each.
        sha256: Digest of the file.
        largest: The largest id in it.
    """

    tokens: int
    sha256: str
    largest: int


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """Where the text came from.

    Attributes:
        name: As it was asked for.
        version: Which edition of it.
        split: How the two sides were told apart: ``pieces``, ``folders`` or ``documents``.
        sha256: Digest of the text, where it lay in files.
        documents: How many there were, where they were counted.
    """

    name: str
    version: str
    split: str
    sha256: str | None = None
    documents: int | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a stream holds.

    Attributes:
        format: Number of this record's form.
        corpus: Where the text came from.
        tokenizer: How it was encoded.
        tokenizer_sha256: Digest of ``tokenizer.json``, where the tokenizer was trained on this text.
        vocab_size: Ids are 0 to this number, exclusive.
        end_of_text: The id behind each document.
        train: The training side.
        val: The validation side.
    """

    format: int = FORMAT
    corpus: CorpusRecord
    tokenizer: str
    tokenizer_sha256: str | None = None
    vocab_size: int
    end_of_text: int
    train: Side
    val: Side

    def side(self, name: str) -> Side:
        """Return ``train`` or ``val``."""
        return self.train if name == "train" else self.val


def exists(folder: Path) -> bool:
    """Whether a stream was finished in a folder."""
    return (folder / _FILE).exists()


def write_manifest(folder: Path, corpus: CorpusRecord, name: str, tokenizer: Tokenizer) -> Manifest:
    """Measure the two files of tokens that lie in a folder, and write the record of them.

    Args:
        folder: With ``train.bin`` and ``val.bin``, and ``tokenizer.json`` where it was trained.
        corpus: Where the text came from.
        name: The tokenizer's name.
        tokenizer: The tokenizer.

    Raises:
        DecaylabError: A file is missing, empty, not whole, or has ids that the tokenizer has not.
    """
    own = folder / TOKENIZER_FILE
    manifest = Manifest(
        corpus=corpus,
        tokenizer=name,
        tokenizer_sha256=file_digest(own) if own.exists() else None,
        vocab_size=tokenizer.vocab_size,
        end_of_text=tokenizer.end_of_text,
        train=measure(folder / "train.bin", tokenizer.vocab_size),
        val=measure(folder / "val.bin", tokenizer.vocab_size),
    )
    atomic_write_text(folder / _FILE, json.dumps(encode(manifest), indent=2) + "\n")
    return manifest


def measure(path: Path, vocab_size: int) -> Side:
    """Read a file of tokens from its beginning to its end.

    Args:
        path: uint16 ids, little endian.
        vocab_size: All ids must lie below.

    Raises:
        DecaylabError: It is missing, empty, not whole, or has a larger id.
    """
    digest, largest, size = hashlib.sha256(), -1, 0
    try:
        with path.open("rb") as file:
            while content := file.read(2 * _AT_ONCE):
                if len(content) % 2:
                    raise DecaylabError(f"{path} is damaged: expected uint16 token ids, found half of one at its end")
                digest.update(content)
                largest = max(largest, int(np.frombuffer(content, dtype="<u2").max()))
                size += len(content)
    except OSError as error:
        raise DecaylabError(f"{path} is missing or damaged: expected uint16 token ids ({error.strerror})") from None
    if not size:
        raise DecaylabError(f"{path} is missing or damaged: expected uint16 token ids, it is empty")
    if largest >= vocab_size:
        raise DecaylabError(f"{path} is damaged: expected ids below {vocab_size}, found {largest}")
    return Side(tokens=size // 2, sha256=digest.hexdigest(), largest=largest)


def vouch(folder: Path, manifest: Manifest) -> None:
    """Keep the digests of a stream that this process has just measured and given its name."""
    for side in SIDES:
        remember(folder / f"{side}.bin", manifest.side(side).sha256)


def read_manifest(folder: Path) -> Manifest:
    """Read and check the record of a stream, and that the files beside it are those that it was written for.

    A record of an earlier form is brought to this one: the files are read once for it.

    Raises:
        DecaylabError: The record is damaged, or a file is not what was written; names it and what was expected.
    """
    path = folder / _FILE
    try:
        content = read_object(path, "the facts of a token stream")
    except DecaylabError:
        if not path.exists():
            raise
        raise _damaged(path, folder) from None
    if content.get("format") == 1:
        content = _upgraded(folder, content)
    try:
        manifest = decode(Manifest, content)
    except DecaylabError:
        raise _damaged(path, folder) from None
    sides = [manifest.side(side) for side in SIDES]
    possible = 0 <= manifest.end_of_text < manifest.vocab_size <= 2**16
    if manifest.format != FORMAT or not possible or any(side.largest >= manifest.vocab_size for side in sides):
        raise _damaged(path, folder)
    for name in SIDES:
        _verify(folder / f"{name}.bin", manifest.side(name), folder)
    if manifest.tokenizer_sha256 is not None:
        own = folder / TOKENIZER_FILE
        if file_digest(own) != manifest.tokenizer_sha256:
            raise DecaylabError(f"{own} is damaged: expected the tokenizer that was trained; {_again(folder)}")
    return manifest


def _verify(path: Path, side: Side, folder: Path) -> None:
    found = path.stat().st_size if path.is_file() else 0
    if found != 2 * side.tokens:
        raise DecaylabError(
            f"{path} is damaged: expected {2 * side.tokens:,} bytes ({side.tokens:,} tokens), found {found:,}; "
            f"{_again(folder)}"
        )
    if file_digest(path) != side.sha256:
        raise DecaylabError(f"{path} is damaged: its tokens are not those that were written; {_again(folder)}")


def _upgraded(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a record of format 1 to this one; its digests, where it has them, must be those of the files."""
    path = folder / _FILE
    try:
        corpus, vocab_size = dict(content["corpus"]), int(content["vocab_size"])
        written = {side: (int(content[side]["tokens"]), content[side].get("sha256")) for side in SIDES}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged(path, folder) from None
    sides = {}
    for name, (tokens, digest) in written.items():
        file = folder / f"{name}.bin"
        found = file.stat().st_size if file.is_file() else 0
        if found == 2 * tokens:
            sides[name] = measure(file, vocab_size)
        if found != 2 * tokens or digest not in (None, sides[name].sha256):
            raise DecaylabError(
                f"{file} is damaged: expected the {2 * tokens:,} bytes ({tokens:,} tokens) that were written, found "
                f"{found:,}; {_again(folder)}"
            )
    own = folder / TOKENIZER_FILE
    new = {
        **content,
        "format": FORMAT,
        "corpus": {"split": "documents", **corpus},
        "tokenizer_sha256": file_digest(own) if own.exists() else None,
        **{name: encode(side) for name, side in sides.items()},
    }
    with suppress(OSError):  # a read-only home: measured again the next time
        atomic_write_text(path, json.dumps(new, indent=2) + "\n")
    return new


def _damaged(path: Path, folder: Path) -> DecaylabError:
    return DecaylabError(f"{path} is damaged: expected the facts of a token stream; {_again(folder)}")


def _again(folder: Path) -> str:
    return f"remove {folder} to write it again"
