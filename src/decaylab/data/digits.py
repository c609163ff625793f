"""Where do the embedded images come from: scikit-learn's handwritten digits, on every machine that has the package."""

from __future__ import annotations

import gzip
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decaylab.data.images import Images
from decaylab.errors import DecaylabError

# Test images that are left when no number of training images is asked for: 1,297 + 500 = 1,797.
_DEFAULT_TRAIN_SIZE = 1297


def read(name: str, train_size: int | None, seed: int, root: object = None, options: object = ()) -> Images:
    """Read the digits for their row in `decaylab.components.datasets`; they have no files of their own."""
    return read_digits(train_size, seed)


def read_digits(train_size: int | None, seed: int) -> Images:
    """Split the 1,797 images of 8x8 pixels (integers 0 to 16) into training and test images.

    The data set has no split of its own, so the seed draws one: ``train_size`` images are for training and all others
    for testing.

    Args:
        train_size: Number of training images, 1 to 1,796; None: 1,297.
        seed: Which images.

    Raises:
        DecaylabError: When nothing would be left for one side of the split.
    """
    x, y = _read()
    size = _DEFAULT_TRAIN_SIZE if train_size is None else train_size
    if not 1 <= size < len(y):
        raise DecaylabError(f"digits has {len(y)} images: train_size must be 1 to {len(y) - 1}, not {size}")
    # PCG64's raw output is part of numpy's stable interface; sorting it gives the same permutation for ever.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(y)), kind="stable")
    train, test = order[:size], order[size:]
    return Images(x[train], y[train], x[test], y[test], num_classes=10)


def _read() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all images (1797, 1, 8, 8) and their labels (1797,)."""
    table = _table()
    if table is None:  # another layout of scikit-learn's: let it read its own file
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)
    return table[:, :64].astype(np.uint8).reshape(-1, 1, 8, 8), table[:, 64].astype(np.int64)


@cache
def _table() -> NDArray[np.int64] | None:
    """Read scikit-learn's file without importing it: scipy and pandas come along, which takes longer than a small run.

    Each line holds the 64 pixels of an image and its label.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        return None
    with gzip.open(path, "rt") as file:
        table = np.array([line.split(",") for line in file if line.strip()], dtype=np.float64).astype(np.int64)
    return table if table.shape == (1797, 65) else None
