"""Which text makes a corpus, in which order: Python's own standard library, or a folder of text files.

A corpus is a fixed sequence of documents. Where it brings no split of its own, every document is cut into pieces of
about 2 kilobytes at line breaks, and every twentieth piece of the whole corpus is for validation. Both sides then have
nearly the same distribution (neighbouring texts are alike, so an even comb is a stratified sample), and the difference
of the losses is generalisation, not a difference of topics.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decaylab.components import text_data
from decaylab.components.lookup import built
from decaylab.data.digests import file_digests
from decaylab.errors import DecaylabError, shown

END_OF_TEXT = "<|endoftext|>"
# The comb: one piece in so many, of so many bytes. Smaller pieces make the two sides more alike: a five-gram model's
# loss differs by about 0.01 nats between the sides of the standard library, and by 0.02 with pieces of 16 kilobytes.
# Larger ones hold longer contexts.
_ONE_IN = 20
_PIECE = 2048
# Not part of the library proper: installed packages, tests (large, and hardly code people write), build leftovers.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "_bundled"}
_LEFT_OUT_PREFIXES = ("config-", "_sysconfigdata", "_sysconfig_vars")
_TEXT_SUFFIXES = {".txt", ".text", ".md", ".rst", ".py", ".tex", ".csv", ".json", ".html", ".xml", ".c", ".h", ".js"}


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus.

    Attributes:
        name: What the person called it.
        root: Folder of the files.
        files: Names of the files relative to ``root``, in order.
        split: ``"folders"`` where the subfolders ``train`` and ``val`` are the split, ``"pieces"`` otherwise.
        version: Where the text comes from, for the record.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    split: Literal["folders", "pieces"]
    version: str

    def documents(self, side: str) -> Iterator[bytes]:
        """Yield the text of one side of the split as UTF-8, one unbroken stretch of a document at a time.

        A file is one document, or several where a line is exactly ``<|endoftext|>``.

        Args:
            side: ``"train"`` or ``"val"``.

        Raises:
            DecaylabError: For a file that is not UTF-8 text.
        """
        if self.split == "folders":
            for name in self.files:
                if name.startswith(f"{side}/"):
                    yield from self._read(name)
            return
        number = 0
        for name in self.files:
            for document in self._read(name):
                pieces = list(_cut(document))
                yield from _stretches(pieces, number, want_val=side == "val")
                number += len(pieces)

    def _read(self, name: str) -> Iterator[bytes]:
        try:
            content = (self.root / name).read_bytes()
            content.decode("utf-8")
        except OSError as error:
            raise DecaylabError(f"{self.root / name} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DecaylabError(
                f"{self.root / name} is not text: expected UTF-8 ({error.reason} at byte {error.start})"
            ) from error
        separator = END_OF_TEXT.encode()
        if separator not in content:
            yield content
            return
        lines: list[bytes] = []
        for line in content.splitlines(keepends=True):
            if line.strip() == separator:
                yield b"".join(lines)
                lines = []
            else:
                lines.append(line)
        yield b"".join(lines)

    def digest(self) -> str:
        """Return a hash (64 hex digits) of every name and byte of the corpus, and of the kind of split.

        Raises:
            DecaylabError: A file cannot be read.
        """
        digest = hashlib.sha256(f"{self.split} {_ONE_IN} {_PIECE}\n".encode())
        for name, content in zip(self.files, file_digests(self.root, self.files), strict=True):
            digest.update(os.fsencode(name) + f"\0{content}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class GivenText(Corpus):
    """A corpus that a function of the user's gave.

    Attributes:
        texts: The whole text, cut like that of files; or two, to train and to validate on.
    """

    texts: tuple[str, ...] = ()

    def documents(self, side: str) -> Iterator[bytes]:
        """Yield the text of one side of the split."""
        if len(self.texts) == 2:
            yield self.texts[side == "val"].encode()
        else:
            yield from _stretches(list(_cut(self.texts[0].encode())), 0, want_val=side == "val")

    def digest(self) -> str:
        """Return a hash (64 hex digits) of the text and of the kind of split."""
        digest = hashlib.sha256(f"{self.split} {_ONE_IN} {_PIECE}\n".encode())
        for text in self.texts:
            digest.update(hashlib.sha256(text.encode()).digest())
        return digest.hexdigest()


def from_text(name: str, text: object) -> Corpus:
    """Return a corpus of text that a function of the user's gave.

    Args:
        name: What the user calls it.
        text: One string; or two of them, to train and to validate on.

    Raises:
        DecaylabError: It is neither, or not text that UTF-8 has.
    """
    texts = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, list | tuple) else ()
    if not 1 <= len(texts) <= 2 or not all(isinstance(each, str) and each for each in texts):
        raise DecaylabError(f"{name} must give its text: one string, or two of them, to train and to validate on")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise DecaylabError(f"the text of {name} is not text in UTF-8: {error.reason}") from error
    return GivenText(f"given:{name}", Path(), (), "folders" if len(texts) == 2 else "pieces", name, texts)


def standard_library(name: str) -> Corpus:
    """Return the sources of the running Python's standard library, without tests."""
    return _stdlib(Path(sysconfig.get_paths()["stdlib"]))


def open_corpus(name: str) -> Corpus:
    """Find the files of a corpus.

    Args:
        name: ``"folder:PATH"``, all text files below a folder, by suffix: the subfolders ``train`` and ``val``, where
            both exist, are the split; or a name or reference that `decaylab.components.text_data` takes.

    Raises:
        DecaylabError: For an unknown name, or a folder without text.
    """
    if name.startswith("folder:"):
        try:
            return _folder(name, Path(name.removeprefix("folder:")).expanduser())
        except (RuntimeError, ValueError, OSError) as error:  # no such home, or no name that a file can have
            raise DecaylabError(f"{shown(name)} names no folder ({error}): expected folder:PATH") from error
    row = text_data(name)
    if row.open is None:
        raise DecaylabError(f"the tokens of {name} are prepared by `decaylab data get {name}`")
    found: Corpus = built(row.open)(name)
    return found


def _stdlib(root: Path) -> Corpus:
    names = [
        name
        for name in _names(root, _LEFT_OUT)
        if name.endswith(".py") and not any(part.startswith(_LEFT_OUT_PREFIXES) for part in name.split("/"))
    ]
    if not names:
        raise DecaylabError(f"this Python has no sources of its standard library in {root}: use --corpus folder:PATH")
    return Corpus(
        "stdlib", root, tuple(names), "pieces", f"{platform.python_implementation()} {platform.python_version()}"
    )


def _folder(name: str, root: Path) -> Corpus:
    if not root.is_dir():
        where = shown(str(root), quoted=False, longest=4096)
        raise DecaylabError(f"{where} is not a folder: a corpus is folder:PATH with text files in it")
    names = [n for n in _names(root, {"__pycache__"}) if Path(n).suffix.lower() in _TEXT_SUFFIXES]
    own_split = (root / "train").is_dir() and (root / "val").is_dir()
    if own_split:
        names = [n for n in names if n.startswith(("train/", "val/"))]
    sides = {n.split("/")[0] for n in names}
    if not names or (own_split and len(sides) < 2):
        where = "both subfolders, train and val" if own_split else "it"
        raise DecaylabError(f"{root} lacks text: expected files in {where} ({' '.join(sorted(_TEXT_SUFFIXES))})")
    return Corpus(name, root, tuple(names), "folders" if own_split else "pieces", "folder")


def _names(root: Path, left_out: set[str]) -> list[str]:
    """Return the files below a folder in byte order of their names, which no locale or file system changes."""
    found = []
    for folder, subfolders, files in os.walk(root, onerror=_refuse):
        subfolders[:] = [s for s in subfolders if s not in left_out and not s.startswith(".")]
        relative = Path(folder).relative_to(root)
        found += [(relative / file).as_posix() for file in files if not file.startswith(".")]
    return sorted(found, key=os.fsencode)


def _refuse(error: OSError) -> None:
    """Stop at a folder that cannot be listed: without its files it would be another corpus."""
    raise DecaylabError(f"{error.filename} cannot be read: {error.strerror}") from error


def _stretches(pieces: list[bytes], number: int, *, want_val: bool) -> Iterator[bytes]:
    """Yield what lies on one side of the split, joining pieces that follow each other."""
    run: list[bytes] = []
    for index, piece in enumerate(pieces, start=number):
        if (index % _ONE_IN == _ONE_IN // 2) == want_val:
            run.append(piece)
        elif run:
            yield b"".join(run)
            run = []
    if run:
        yield b"".join(run)


def _cut(document: bytes) -> Iterator[bytes]:
    """Cut a document after the first line break past every 2 kilobytes."""
    start = 0
    while start < len(document):
        end = document.find(b"\n", start + _PIECE) + 1
        end = end or len(document)
        yield document[start:end]
        start = end
