"""Token streams by the name of their corpus and tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from decaylab.components import TEXT_DATA
from decaylab.components.lookup import built
from decaylab.data import manifest as records
from decaylab.data.corpus import Corpus, open_corpus
from decaylab.data.stream import TokenStream, new_folder, only_one, open_stream, stream_folder, write_side
from decaylab.data.tokenizer import BytePairs, Tokenizer, bpe_size, open_tokenizer
from decaylab.errors import DecaylabError


def text(
    corpus: str = "stdlib",
    tokenizer: str = "bytes",
    root: str | Path | None = None,
    *,
    sha256: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> TokenStream:
    """Open a corpus as a stream of tokens; the first call writes it.

    Several processes may call this at once: one writes, the others wait and then read.

    Args:
        corpus: ``"stdlib"``, ``"folder:PATH"`` (see `decaylab.data.corpus`), ``"openwebtext"``, which
            ``decaylab data get openwebtext`` prepares, or a corpus of the user's, see `decaylab.components.text_data`.
        tokenizer: ``"bytes"``, ``"ascii"`` (128 ids), ``"bpe:SIZE"`` (trained on the training text) or ``"gpt2"``.
        root: Folder with GPT-2's files ``vocab.bpe`` and ``encoder.json``; None: decaylab's own.
        sha256: For ``"folder:PATH"``: the digest that its text must have. Where that text was encoded before, the
            stream is opened whatever has become of the folder.
        progress: Called with a line of text when work begins.

    Raises:
        DecaylabError: For unknown names, missing data (names the command that gets it), damaged files, or a text with
            another digest.
    """
    folder_of_files = None if root is None else Path(root).expanduser()
    if (row := TEXT_DATA.get(corpus)) is not None and row.prepared is not None:
        return open_stream(built(row.prepared)(tokenizer), folder_of_files)
    size = bpe_size(tokenizer)
    if size is None:
        open_tokenizer(tokenizer, folder_of_files)  # a wrong name or a missing file is told before the corpus is read
    if sha256 is not None and is_prepared(tokenizer, sha256):
        return open_stream(stream_folder("folder", tokenizer, sha256), folder_of_files)
    source = open_corpus(corpus)
    found = source.digest()
    if sha256 not in (None, found):
        raise DecaylabError(
            f"the text of {corpus} has changed since this run was made (sha256 {str(sha256)[:12]}..., now "
            f"{found[:12]}...): put the earlier text back, or start a new run on this one"
        )
    folder = stream_folder(source.name.split(":")[0], tokenizer, found)
    with only_one(folder):
        if not records.exists(folder):
            if progress is not None:
                progress(f"preparing {corpus} as {tokenizer}")
            with new_folder(folder) as scratch:
                _write(scratch, source, found, tokenizer, folder_of_files)
    return open_stream(folder, folder_of_files)


def is_prepared(tokenizer: str, sha256: str) -> bool:
    """Whether the stream of a folder's text with some digest is on this machine."""
    return records.exists(stream_folder("folder", tokenizer, sha256))


def _write(scratch: Path, source: Corpus, digest: str, name: str, root: Path | None) -> None:
    size = bpe_size(name)
    if size is None:
        tokenizer: Tokenizer = open_tokenizer(name, root)
    else:
        pairs = BytePairs.train(source.documents("train"), size)
        (scratch / records.TOKENIZER_FILE).write_text(pairs.to_json(), encoding="utf-8")
        tokenizer = pairs
    for side in records.SIDES:
        write_side(scratch / f"{side}.bin", tokenizer, source.documents(side))
        if not (scratch / f"{side}.bin").stat().st_size:
            raise DecaylabError(f"{source.name} is too small: no text is left for the {side} side of the split")
    if source.digest() != digest:
        raise DecaylabError(f"the text of {source.name} changes while it is read: wait until nothing writes to it")
    corpus = records.CorpusRecord(name=source.name, version=source.version, sha256=digest, split=source.split)
    records.write_manifest(scratch, corpus, name, tokenizer)
