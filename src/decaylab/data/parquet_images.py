"""Images from parquet files with the schema of the Hugging Face hub's CIFAR data sets."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from decaylab.data.images import Images
from decaylab.errors import DecaylabError, shown

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "fine_label")
_SHAPE = (32, 32, 3)
_MOST_ROWS = 50_000
_ROWS_AT_ONCE = 256


def read_parquet(folder: Path, num_classes: int, dataset: str) -> Images:
    """Read ``train*.parquet`` and ``test*.parquet`` of a folder.

    Each row has an image column (``img`` or ``image``: a struct whose ``bytes`` are a PNG file) and a label column
    (``label``, or ``fine_label`` beside ``coarse_label``).

    Args:
        folder: Where the files are.
        num_classes: Labels must be below this number.
        dataset: Name for the messages.

    Raises:
        DecaylabError: When files are missing, do not have this schema, or are damaged.
    """
    train_x, train_y = _read_split(folder, "train", num_classes, dataset)
    test_x, test_y = _read_split(folder, "test", num_classes, dataset)
    return Images(train_x, train_y, test_x, test_y, num_classes)


def _read_split(
    folder: Path, split: str, num_classes: int, dataset: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    paths = sorted(folder.glob(f"{split}*.parquet"))
    if not paths:
        raise DecaylabError(f"no {split}*.parquet in {folder}: {dataset} needs train and test files")
    pixels: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    for path in paths:
        for images, y in _batches(path):
            if len(y) and not 0 <= y.min() <= y.max() < num_classes:
                raise DecaylabError(
                    f"{path} is damaged: expected labels 0 to {num_classes - 1}, found {y.min()}, {y.max()}"
                )
            labels.append(y)
            pixels.append(_decode(images, path, sum(map(len, pixels))))
            if sum(map(len, pixels)) > _MOST_ROWS:
                raise DecaylabError(f"{path} is damaged: expected at most {_MOST_ROWS:,} images for {split}")
    if not pixels:
        raise DecaylabError(f"{paths[0]} is empty: {dataset} needs train and test images")
    return np.concatenate(pixels).transpose(0, 3, 1, 2).copy(), np.concatenate(labels)


def _batches(path: Path) -> Iterator[tuple[list[object], NDArray[np.int64]]]:
    """Yield the image cells and the labels of a file, a few rows at a time: a small file can claim to be huge."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            image = next((name for name in _IMAGE_COLUMNS if name in names), None)
            label = next((name for name in _LABEL_COLUMNS if name in names), None)
            if image is None or label is None:
                raise DecaylabError(
                    f"{path} has the columns {shown(', '.join(names), quoted=False)}: expected an image (img or image) "
                    "and a label (label or fine_label)"
                )
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[image, label]):
                if batch[label].null_count:
                    raise DecaylabError(f"{path} is damaged: expected a label in each row")
                yield batch[image].to_pylist(), batch[label].to_numpy(zero_copy_only=False).astype(np.int64)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        reason = shown(" ".join(str(error).split()), quoted=False)
        raise DecaylabError(f"{path} is damaged: expected a parquet file ({reason})") from error


def _decode(cells: list[object], path: Path, before: int) -> NDArray[np.uint8]:
    """Return pixels (N, 32, 32, 3); a file's size is read, and refused, before any of it is unpacked."""
    pixels = np.empty((len(cells), *_SHAPE), dtype=np.uint8)
    for number, cell in enumerate(cells):
        content = cell.get("bytes") if isinstance(cell, dict) else None
        if not isinstance(content, bytes):
            raise DecaylabError(f"{path} is damaged: expected the bytes of a PNG file in each row of its image column")
        try:
            pixels[number] = _pixels(content)
        except Exception as error:  # Pillow raises many kinds for a damaged file
            reason = "not a PNG file" if isinstance(error, UnidentifiedImageError) else shown(str(error), quoted=False)
            raise DecaylabError(
                f"{path} is damaged: expected PNG images of 8-bit RGB (image {before + number}: {reason})"
            ) from error
    return pixels


def _pixels(content: bytes) -> NDArray[np.uint8]:
    with warnings.catch_warnings(action="error"), Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        if image.size != _SHAPE[:2] or image.mode != "RGB":  # known from the header: nothing is unpacked yet
            width, height = image.size
            raise ValueError(f"it has {width} x {height} pixels of mode {image.mode}, not 32 x 32 of RGB")
        return np.asarray(image)
