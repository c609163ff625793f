"""How does text become token ids below 65,536: bytes, ASCII, a byte-level BPE trained here, or GPT-2's own.

Every tokenizer has one id that ends a document and that no text produces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from decaylab.data.corpus import END_OF_TEXT
from decaylab.data.digests import file_digest
from decaylab.errors import DecaylabError, shown, unknown
from decaylab.files import data_home

Ids = NDArray[np.uint16]
# OpenAI's files, and their digests as published.
GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
_NUL, _SUBSTITUTE = 0, 26
_NAMES = ("bytes", "ascii", "gpt2", "bpe:SIZE")


class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
        vocab_size: Ids are 0 to this number, exclusive.
        end_of_text: The id between documents.
    """

    vocab_size: int
    end_of_text: int

    def encode_documents(self, documents: Iterable[bytes]) -> Iterator[Ids]:
        """Yield the ids of each UTF-8 document, without the end of text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids; what is not whole UTF-8 becomes the replacement character."""
        ...


class Bytes:
    """UTF-8 bytes as they are, and id 256 for the end of a text: nothing is lost."""

    vocab_size = 257
    end_of_text = 256

    def encode_documents(self, documents: Iterable[bytes]) -> Iterator[Ids]:
        """Yield the bytes of each document."""
        for document in documents:
            yield np.frombuffer(document, dtype=np.uint8).astype(np.uint16)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; the end of a text is written out."""
        return b"".join(END_OF_TEXT.encode() if i >= 256 else bytes([i]) for i in ids).decode("utf-8", "replace")


class Ascii:
    """The 128 ASCII codes: small enough for the smallest language models.

    A character outside ASCII becomes SUB (26, "substitute") and NUL (0) ends a text; a NUL inside a text becomes SUB.
    """

    vocab_size = 128
    end_of_text = _NUL

    def encode_documents(self, documents: Iterable[bytes]) -> Iterator[Ids]:
        """Yield one id a character."""
        for document in documents:
            codes = np.frombuffer(document, dtype=np.uint8)
            codes = codes[(codes & 0xC0) != 0x80]  # of a longer UTF-8 sequence only the first byte counts
            yield np.where((codes >= 128) | (codes == _NUL), _SUBSTITUTE, codes).astype(np.uint16)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; substitutes become question marks and the end of a text is written out."""
        return "".join(END_OF_TEXT if i == _NUL else "?" if i == _SUBSTITUTE else chr(i) for i in ids)


class BytePairs:
    """A byte-level byte-pair encoding (Sennrich et al. 2016; on bytes, Radford et al. 2019)."""

    def __init__(self, inner: Any) -> None:
        end = inner.token_to_id(END_OF_TEXT)
        if end is None:
            raise DecaylabError(f"the tokenizer has no token {END_OF_TEXT}")
        inner.encode_special_tokens = True  # "<|endoftext|>" inside a text is ordinary text
        self._inner = inner
        self.vocab_size = int(inner.get_vocab_size())
        self.end_of_text = int(end)

    @classmethod
    def train(cls, documents: Iterable[bytes], vocab_size: int) -> BytePairs:
        """Learn merges from documents; the same documents give the same tokenizer, byte for byte."""
        from tokenizers import Tokenizer as Inner
        from tokenizers import decoders, models, pre_tokenizers, trainers

        inner = Inner(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator((document.decode() for document in documents), trainer)
        return cls(inner)

    @classmethod
    def gpt2(cls, folder: Path) -> BytePairs:
        """Read GPT-2's ``vocab.bpe`` and ``encoder.json``.

        Raises:
            DecaylabError: When a file is missing or damaged.
        """
        from tokenizers import AddedToken, decoders, models, pre_tokenizers
        from tokenizers import Tokenizer as Inner

        merges, vocabulary = (folder / name for name in GPT2_FILES)
        for path in (merges, vocabulary):
            if not path.exists():
                raise DecaylabError(f"{path} is missing: get GPT-2's tokenizer with `decaylab data get gpt2`")
            expected = GPT2_FILES[path.name]
            if file_digest(path) != expected:
                raise DecaylabError(f"{path} is damaged: expected GPT-2's file with sha256 {expected[:12]}...")
        try:
            model = models.BPE.from_file(str(vocabulary), str(merges))
        except Exception as error:  # the Rust side raises plain Exception
            raise DecaylabError(f"{vocabulary} or {merges} cannot be read as GPT-2's files") from error
        inner = Inner(model)
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        inner.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
        return cls(inner)

    @classmethod
    def load(cls, path: Path) -> BytePairs:
        """Read a tokenizer that was written by `to_json`.

        Raises:
            DecaylabError: When the file is damaged.
        """
        from tokenizers import Tokenizer as Inner

        try:
            return cls(Inner.from_str(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise DecaylabError(f"{path} cannot be read: {error.strerror}") from error
        except Exception as error:
            reason = shown(" ".join(str(error).split()), quoted=False)
            raise DecaylabError(f"{path} is damaged: expected a tokenizer in JSON ({reason})") from error

    def to_json(self) -> str:
        """Return the whole tokenizer as JSON."""
        return str(self._inner.to_str())

    def encode_documents(self, documents: Iterable[bytes]) -> Iterator[Ids]:
        """Yield the ids of each document.

        Long texts are cut after a line break every few hundred kilobytes, which bounds the memory.
        """
        for batch in _batches(documents):
            cut = [_pieces(document.decode()) for document in batch]
            encoded = iter(
                self._inner.encode_batch([text for texts in cut for text in texts], add_special_tokens=False)
            )
            for texts in cut:
                yield np.concatenate([np.asarray(next(encoded).ids, dtype=np.uint16) for _ in texts])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; the end of a text is written out."""
        return str(self._inner.decode(list(ids), skip_special_tokens=False))


def _batches(documents: Iterable[bytes], limit: int = 2**22) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= limit:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces(text: str, limit: int = 2**18) -> list[str]:
    """Cut a long text after line breaks; a short or empty one is its own single piece."""
    pieces, start = [], 0
    while len(text) - start > limit:
        end = text.find("\n", start + limit) + 1 or len(text)
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def open_tokenizer(name: str, root: Path | None = None) -> Tokenizer:
    """Return a tokenizer that needs no training.

    Args:
        name: ``"bytes"``, ``"ascii"`` or ``"gpt2"``.
        root: Folder with GPT-2's files; None: where ``decaylab data get gpt2`` puts them.

    Raises:
        DecaylabError: For an unknown name, or missing or damaged files.
    """
    if name == "bytes":
        return Bytes()
    if name == "ascii":
        return Ascii()
    if name == "gpt2":
        return BytePairs.gpt2(root or gpt2_folder())
    raise unknown("tokenizer", name, _NAMES)


def require_tokenizer(name: str) -> None:
    """Return for a name that some tokenizer has; nothing is read.

    Raises:
        DecaylabError: None has it.
    """
    if bpe_size(name) is None and name not in _NAMES[:-1]:
        raise unknown("tokenizer", name, _NAMES)


def lost_characters(tokenizer: Tokenizer, text: str) -> str:
    """Return the characters of a text that a tokenizer does not know, each once; it reads something else for them."""
    found = []
    for character in dict.fromkeys(text):
        ids = [int(i) for part in tokenizer.encode_documents([character.encode()]) for i in part]
        if tokenizer.decode(ids) != character:
            found.append(character)
    return "".join(found)


def bpe_size(name: str) -> int | None:
    """Return the vocabulary size of a ``"bpe:SIZE"`` name, or None for another tokenizer's name.

    Raises:
        DecaylabError: When the size is not a whole number from 257 (the bytes and the end of text) to 65,536.
    """
    if not name.startswith("bpe"):
        return None
    digits = name.removeprefix("bpe").removeprefix(":")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5) or not 257 <= int(digits) <= 65536:
        raise DecaylabError(
            f"tokenizer {shown(name)} is not bpe:SIZE with a SIZE from 257 to 65536, for example bpe:8192"
        )
    return int(digits)


def gpt2_folder() -> Path:
    """Return the folder inside decaylab's data folder for GPT-2's tokenizer."""
    return data_home() / "tokenizers" / "gpt2"
