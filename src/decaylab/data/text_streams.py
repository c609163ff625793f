"""Token streams by the name of their corpus and tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from decaylab.data.corpus import open_corpus
from decaylab.data.stream import (
    _TOKENIZER_FILE,
    SIDES,
    TokenStream,
    _new_folder,
    _write,
    only_one,
    open_stream,
    stream_folder,
    write_manifest,
)
from decaylab.data.tokenizer import BytePairs, bpe_size, open_tokenizer
from decaylab.errors import DecaylabError


def text(
    corpus: str = "stdlib",
    tokenizer: str = "bytes",
    root: str | Path | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> TokenStream:
    """Open a corpus as a stream of tokens; the first call writes it.

    Several processes may call this at once: one writes, the others wait and then read.

    Args:
        corpus: ``"stdlib"``, ``"folder:PATH"`` (see `decaylab.data.corpus`) or ``"openwebtext"``, which
            ``decaylab data get openwebtext`` prepares.
        tokenizer: ``"bytes"``, ``"ascii"`` (128 ids), ``"bpe:SIZE"`` (trained on the training text) or ``"gpt2"``.
        root: Folder with GPT-2's files ``vocab.bpe`` and ``encoder.json``; None: decaylab's own.
        progress: Called with a line of text when work begins.

    Raises:
        DecaylabError: For unknown names, missing data (names the command that gets it) or damaged files.
    """
    folder_of_files = None if root is None else Path(root).expanduser()
    if corpus == "openwebtext":
        from decaylab.data.openwebtext import prepared_folder

        return open_stream(prepared_folder(tokenizer), folder_of_files)
    size = bpe_size(tokenizer)
    if size is None:
        open_tokenizer(tokenizer, folder_of_files)  # a wrong name or a missing file is told before the corpus is read
    source = open_corpus(corpus)
    corpus_hash = source.digest()
    folder = stream_folder(source.name.split(":")[0], tokenizer, corpus_hash)
    with only_one(folder):
        if not (folder / "manifest.json").exists():
            if progress is not None:
                progress(f"preparing {corpus} as {tokenizer}")
            with _new_folder(folder) as scratch:
                if size is None:
                    chosen = open_tokenizer(tokenizer, folder_of_files)
                else:
                    pairs = BytePairs.train(source.documents("train"), size)
                    (scratch / _TOKENIZER_FILE).write_text(pairs.to_json(), encoding="utf-8")
                    chosen = pairs
                sides = {side: _write(scratch / f"{side}.bin", chosen, source.documents(side)) for side in SIDES}
                for side, facts in sides.items():
                    if not facts["tokens"]:
                        raise DecaylabError(f"{corpus} is too small: no text is left for the {side} side of the split")
                corpus_facts = {"name": corpus, "version": source.version, "sha256": corpus_hash, "split": source.split}
                write_manifest(scratch, corpus_facts, tokenizer, chosen, sides)
    return open_stream(folder, folder_of_files)
