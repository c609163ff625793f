"""How are CIFAR-10 and CIFAR-100 read: the official binary archives, their files, or the hub's parquet files.

The binary version (Krizhevsky 2009) stores each image as one record: the label in one byte (CIFAR-100: coarse label,
then fine label), then 3,072 bytes, the red, green and blue plane of 32x32 pixels in row order.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from decaylab.data.digests import file_digests
from decaylab.data.download import fetch
from decaylab.data.images import Images
from decaylab.data.parquet_images import read_parquet
from decaylab.errors import DecaylabError
from decaylab.files import data_home

_PIXELS = 3 * 32 * 32
# No file of the official archives has more records, and no archive more bytes when it is unpacked.
_MOST_RECORDS = 50_000
_MOST_BYTES = 2**28
_SITE = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class _Archive:
    """What the official archive of one data set holds."""

    file_name: str
    md5: str  # as published beside the archive
    folder: str
    train: tuple[str, ...]
    test: str
    label_bytes: int
    num_classes: int


_ARCHIVES = {
    "cifar10": _Archive(
        file_name="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test="test_batch.bin",
        label_bytes=1,
        num_classes=10,
    ),
    "cifar100": _Archive(
        file_name="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        label_bytes=2,
        num_classes=100,
    ),
}


def read(name: str, train_size: int | None, seed: int, root: str | Path | None = None, options: object = ()) -> Images:
    """Read all images for a row in `decaylab.components.datasets`."""
    return read_cifar(name, root)


def read_cifar(dataset: str, root: str | Path | None = None) -> Images:
    """Read CIFAR-10, or CIFAR-100 with its fine labels.

    Args:
        dataset: ``"cifar10"`` or ``"cifar100"``.
        root: A folder with the binary files, the official archive or parquet files (directly, or in the folder that the
            archive makes); None: decaylab's own data folder.

    Returns:
        All images in the files' order. Fewer records than the official 50,000 and 10,000 are accepted, as long as the
        five training files of CIFAR-10 are equally long: that is how a subset is handed over.

    Raises:
        DecaylabError: When nothing is found (names the command that gets it) or a file is damaged (names the file and
            what was expected).
    """
    archive = _ARCHIVES[dataset]
    folder = find_cifar(dataset, root)
    if folder.suffix == ".gz":
        # Somebody's own folder is only read: the archive is unpacked elsewhere.
        with tempfile.TemporaryDirectory() as scratch:
            return _read_folder(dataset, unpack(dataset, folder, Path(scratch)))
    if (folder / archive.test).exists():
        return _read_folder(dataset, folder)
    return read_parquet(folder, archive.num_classes, dataset)


def cifar_folder(dataset: str) -> Path:
    """Return the folder inside decaylab's data folder where a data set's files are kept."""
    return data_home() / "vision" / dataset


def get_cifar(dataset: str, source: Path | None = None, *, progress: bool = True) -> Path:
    """Put a data set's binary files into decaylab's data folder, once.

    Args:
        dataset: ``"cifar10"`` or ``"cifar100"``.
        source: The official archive, where somebody has it already; None: download it.
        progress: Show the download on a terminal.

    Returns:
        The folder of the files.

    Raises:
        DecaylabError: When the download fails or the archive is not the official one.
    """
    archive, home = _ARCHIVES[dataset], cifar_folder(dataset)
    try:
        return find_cifar(dataset)
    except DecaylabError:
        pass  # not there yet
    packed = fetch(_SITE + archive.file_name, home, f"md5:{archive.md5}", source=source, progress=progress)
    folder = unpack(dataset, packed, home)
    _read_folder(dataset, folder)
    if source is None:
        packed.unlink()
    return folder


def unpack(dataset: str, packed: Path, home: Path) -> Path:
    """Extract the data files of an archive into ``home``; nothing else in the archive is written.

    Returns:
        The folder of the files, complete: it appears under its name in one step.

    Raises:
        DecaylabError: When the archive cannot be read or lacks a file.
    """
    archive = _ARCHIVES[dataset]
    missing = {f"{archive.folder}/{name}" for name in (*archive.train, archive.test)}
    target = home / archive.folder
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        try:
            with gzip.open(packed) as stream:
                bounded = cast("IO[bytes]", _Bounded(stream, _MOST_BYTES))
                with tarfile.open(fileobj=bounded, mode="r|") as tar:
                    for member in tar:
                        if member.name in missing and member.isreg():
                            tar.extract(member, scratch, filter="data")
                            missing.discard(member.name)
        except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
            raise DecaylabError(f"{packed} is damaged: expected the archive {archive.file_name} ({error})") from error
        if missing:
            raise DecaylabError(f"{packed} is not {archive.file_name}: it lacks {min(missing)}")
        try:
            (Path(scratch) / archive.folder).rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster, with the same files
                raise
    return target


class _Bounded:
    """A stream that refuses to give more than an archive of this kind holds, whatever its headers claim."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int) -> bytes:
        content = self._stream.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise OSError("it unpacks to far more than the images need")
        return content


def find_cifar(dataset: str, root: str | Path | None = None) -> Path:
    """Return the folder with a data set's files, or the path of its archive; nothing is read.

    Raises:
        DecaylabError: When nothing is there; names the command that gets it.
    """
    archive = _ARCHIVES[dataset]
    base = cifar_folder(dataset) if root is None else Path(root).expanduser()
    for folder in (base, base / archive.folder):
        if (folder / archive.test).exists():
            return folder
    if root is not None and (base / archive.file_name).exists():
        return base / archive.file_name
    for folder in (base, base / "plain_text", base / dataset):
        if any(folder.glob("train*.parquet")):
            return folder
    if root is None:
        raise DecaylabError(f"{dataset} is not on this machine: get it with `decaylab data get {dataset}`")
    raise DecaylabError(
        f"no {dataset} in {base}: expected {archive.test}, {archive.file_name} or train*.parquet there, "
        f"or use `decaylab data get {dataset}` and no folder"
    )


def cifar_digest(dataset: str) -> str:
    """Return a digest (64 hex digits) of the files that `read_cifar` reads from decaylab's data folder.

    Raises:
        DecaylabError: Nothing is there.
    """
    archive, folder = _ARCHIVES[dataset], find_cifar(dataset)
    names = [*archive.train, archive.test]
    if not (folder / archive.test).exists():
        names = sorted(path.name for split in ("train", "test") for path in folder.glob(f"{split}*.parquet"))
    digest = hashlib.sha256()
    for name, content in zip(names, file_digests(folder, names), strict=True):
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def _read_folder(dataset: str, folder: Path) -> Images:
    archive = _ARCHIVES[dataset]
    parts = [_read_records(folder / name, archive) for name in archive.train]
    for name, (labels, _) in zip(archive.train, parts, strict=True):
        if len(labels) != len(parts[0][0]):
            raise DecaylabError(
                f"{folder / name} is damaged: expected {len(parts[0][0]):,} records as in {archive.train[0]}, "
                f"found {len(labels):,}"
            )
    test_y, test_x = _read_records(folder / archive.test, archive)
    train_x = parts[0][1] if len(parts) == 1 else np.concatenate([x for _, x in parts])
    train_y = np.concatenate([y for y, _ in parts])
    return Images(train_x, train_y, test_x, test_y, archive.num_classes)


def _read_records(path: Path, archive: _Archive) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    if not path.exists():
        raise DecaylabError(f"{path} is missing: expected {len(archive.train)} training files and {archive.test}")
    record = archive.label_bytes + _PIXELS
    if path.stat().st_size > _MOST_RECORDS * record:
        raise DecaylabError(
            f"{path} is damaged: expected at most {_MOST_RECORDS:,} records of {record:,} bytes, found "
            f"{path.stat().st_size:,} bytes"
        )
    raw = np.fromfile(path, dtype=np.uint8)
    if not len(raw) or len(raw) % record:
        raise DecaylabError(
            f"{path} is damaged: expected whole records of {record:,} bytes, found {len(raw):,} bytes "
            f"({len(raw) / record:.2f} records)"
        )
    table = raw.reshape(-1, record)
    labels = table[:, archive.label_bytes - 1].astype(np.int64)  # the fine label is the last one
    if labels.max() >= archive.num_classes:
        raise DecaylabError(f"{path} is damaged: expected labels below {archive.num_classes}, found {labels.max()}")
    pixels = np.ascontiguousarray(table[:, archive.label_bytes :]).reshape(-1, 3, 32, 32)
    return labels, pixels
