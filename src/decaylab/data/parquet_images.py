"""How are images read from parquet files with the schema of the Hugging Face hub's CIFAR data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decaylab.data.images import Images
from decaylab.data.png import decode_pngs
from decaylab.errors import DecaylabError

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "fine_label")


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
    pixels, labels = [], []
    for path in paths:
        table = _table(path)
        image = next((name for name in _IMAGE_COLUMNS if name in table.column_names), None)
        label = next((name for name in _LABEL_COLUMNS if name in table.column_names), None)
        if image is None or label is None:
            raise DecaylabError(
                f"{path} has the columns {', '.join(table.column_names)}: expected an image (img or image) and a label "
                "(label or fine_label)"
            )
        y = table[label].to_numpy().astype(np.int64)
        if len(y) and not 0 <= y.min() <= y.max() < num_classes:
            raise DecaylabError(
                f"{path} is damaged: expected labels 0 to {num_classes - 1}, found {y.min()}, {y.max()}"
            )
        labels.append(y)
        pixels.append(_decode(table[image], path))
    return np.concatenate(pixels).transpose(0, 3, 1, 2).copy(), np.concatenate(labels)


def _table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DecaylabError(f"{path} is damaged: expected a parquet file ({error})") from error


def _decode(column: Any, path: Path) -> NDArray[np.uint8]:
    rows = column.to_pylist()
    files = [row["bytes"] for row in rows if isinstance(row, dict) and isinstance(row.get("bytes"), bytes)]
    if not files or len(files) < len(rows):
        raise DecaylabError(f"{path} is damaged: expected the bytes of a PNG file in each row of its image column")
    try:
        pixels = decode_pngs(files)
    except ValueError as error:
        raise DecaylabError(f"{path} is damaged: expected PNG images of 8-bit RGB ({error})") from error
    if pixels.shape[1:] != (32, 32, 3):
        raise DecaylabError(f"{path} is damaged: expected images of 32 x 32 pixels, found {pixels.shape[1:3]}")
    return pixels
