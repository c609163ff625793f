"""Which data sets are there, which of them lie on this machine, and how are the others fetched. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from decaylab.components import IMAGE_DATA, TEXT_DATA
from decaylab.components.lookup import built
from decaylab.data import openwebtext
from decaylab.data.corpus import open_corpus
from decaylab.data.download import fetch
from decaylab.data.tokenizer import GPT2_FILES, BytePairs, gpt2_folder
from decaylab.errors import DecaylabError, unknown
from decaylab.files import atomic_write_bytes
from decaylab.references import is_reference

# The vocabulary as OpenAI published it.
_GPT2_SITE = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"


@dataclass(frozen=True)
class Dataset:
    """One line of the catalogue.

    Attributes:
        name: What to call it in a configuration or on the command line.
        kind: ``images``, ``text`` or ``tokenizer``.
        what: One line for people.
        embedded: Whether it is on every machine that has the package.
        download: What fetching it moves over the network.
    """

    name: str
    kind: str
    what: str
    embedded: bool
    download: str = ""


CATALOG: dict[str, Dataset] = {
    **{row.name: Dataset(row.name, "images", row.help, row.embedded, row.download) for row in IMAGE_DATA.values()},
    **{row.name: Dataset(row.name, "text", row.help, row.embedded, row.download) for row in TEXT_DATA.values()},
    "gpt2": Dataset("gpt2", "tokenizer", "GPT-2's byte-pair encoding, 50,257 tokens", False, "1.5 MB"),
}


def available(name: str, *, tokenizer: str = "gpt2", root: str | Path | None = None) -> None:
    """Return when a data set can be loaded without a network; raise otherwise.

    Only names and sizes of files are looked at, so the answer is fast.

    Args:
        name: A name of the catalogue, or ``"folder:PATH"``.
        tokenizer: For ``"openwebtext"``, as what it was prepared.
        root: Folder with the files of ``cifar10`` or ``cifar100``; None: decaylab's own.

    Raises:
        DecaylabError: For an unknown name, or missing data; then the message names the command that gets it.
    """
    if name.startswith("folder:"):
        open_corpus(name)
        return
    if name not in CATALOG:
        if not is_reference(name) and Path(name).expanduser().exists():
            raise DecaylabError(f"{name} is a path: a folder of texts is given as folder:{name}")
        raise unknown("data set", name, [*CATALOG, "folder:PATH"])
    if name in IMAGE_DATA:
        IMAGE_DATA[name].require(root)
    elif name in TEXT_DATA:
        if (prepared := TEXT_DATA[name].prepared) is not None:
            built(prepared)(tokenizer)
    elif name == "gpt2" and not all((gpt2_folder() / file).exists() for file in GPT2_FILES):
        raise DecaylabError("GPT-2's tokenizer is not on this machine: get it with `decaylab data get gpt2`")


def is_available(name: str) -> bool:
    """Say whether a data set can be loaded without a network."""
    try:
        available(name)
    except DecaylabError:
        return False
    return True


def get(
    name: str,
    *,
    source: Path | None = None,
    tokenizer: str = "gpt2",
    progress: Callable[[str], None] | None = None,
) -> str:
    """Put a data set onto this machine; what is there already is left alone.

    Args:
        name: A name of the catalogue.
        source: Files that somebody has already, instead of a download: the official archive or its folder (CIFAR), the
            folder of ``vocab.bpe`` and ``encoder.json`` (gpt2), or of ``train.bin`` and ``val.bin`` or the hub's
            parquet files (openwebtext).
        tokenizer: For ``"openwebtext"``: ``"gpt2"``, ``"bytes"`` or ``"ascii"``.
        progress: Called with lines about what happens.

    Returns:
        One line that says where it is.

    Raises:
        DecaylabError: For an unknown name, or when it cannot be had; the message says what to do instead.
    """
    if name not in CATALOG:
        raise unknown("data set", name, CATALOG)
    if CATALOG[name].embedded:
        return f"{name} is embedded: nothing to get"
    if name in IMAGE_DATA:
        fetch_images = built(IMAGE_DATA[name].fetch or "")
        return f"{name} is in {fetch_images(name, source, progress=progress is not None)}"
    if name == "gpt2":
        return f"gpt2 is in {_get_gpt2(source, progress is not None)}"
    if tokenizer == "gpt2":
        _get_gpt2(None, progress is not None)
    if source is not None and (source / "train.bin").exists():
        return f"openwebtext is in {openwebtext.import_openwebtext(source, tokenizer)}"
    if source is not None and not openwebtext.parquet_files(source):
        raise DecaylabError(f"{source} has neither train.bin and val.bin nor *.parquet: give a folder with either")
    report = None if progress is None else lambda n, tokens: progress(f"{n:,} documents, {tokens:,} tokens")
    return f"openwebtext is in {openwebtext.get_openwebtext(tokenizer, source=source, progress=report)}"


def _get_gpt2(source: Path | None, progress: bool) -> Path:
    folder = gpt2_folder()
    if not is_available("gpt2"):
        folder.mkdir(parents=True, exist_ok=True)
        for file, digest in GPT2_FILES.items():
            path = fetch(_GPT2_SITE + file, folder, f"sha256:{digest}", source=source, progress=progress)
            if path.parent != folder:
                atomic_write_bytes(folder / file, path.read_bytes())
    BytePairs.gpt2(folder)
    return folder
