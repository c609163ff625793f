"""What does a reader of images hand over: pixels and labels, before anything is normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decaylab.errors import DecaylabError


@dataclass(frozen=True)
class Images:
    """Images as they were read.

    Attributes:
        train_x: Training pixels, uint8 or float32 (N, C, H, W).
        train_y: Training labels, int64 (N,).
        test_x: Test pixels.
        test_y: Test labels.
        num_classes: Labels are 0 to this number, exclusive.
    """

    train_x: NDArray[Any]
    train_y: NDArray[np.int64]
    test_x: NDArray[Any]
    test_y: NDArray[np.int64]
    num_classes: int


def from_arrays(name: str, arrays: Any) -> Images:
    """Return images and labels that a function of the user's gave.

    Args:
        name: What the user calls the data set, for messages.
        arrays: ``(train_x, train_y, test_x, test_y)``, or an `Images`; images (N, C, S, S) or (N, S, S), of bytes or
            numbers, and whole labels (N,) from 0. Anything that numpy takes for an array.

    Raises:
        DecaylabError: It is nothing of the kind.
    """
    if isinstance(arrays, Images):
        return arrays
    try:
        train_x, train_y, test_x, test_y = (np.asarray(part) for part in arrays)
    except (TypeError, ValueError) as error:
        raise DecaylabError(f"{name} must give four arrays: train_x, train_y, test_x, test_y ({error})") from error
    pixels, labels = [], []
    for side, x, y in (("train", train_x, train_y), ("test", test_x, test_y)):
        x = x[:, None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[2] != x.shape[3] or not len(x):
            raise DecaylabError(f"{name}: {side}_x has the shape {x.shape}, expected (N, C, S, S) or (N, S, S)")
        if y.shape != (len(x),) or y.dtype.kind not in "iufb" or (y != y.astype(np.int64)).any() or y.min() < 0:
            raise DecaylabError(f"{name}: {side}_y must have {len(x)} whole labels from 0, one an image")
        if x.dtype.kind not in "iufb":
            raise DecaylabError(f"{name}: {side}_x holds {x.dtype}, expected numbers")
        x = x if x.dtype == np.uint8 else x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DecaylabError(f"{name}: {side}_x has numbers that are not finite")
        pixels.append(np.ascontiguousarray(x))
        labels.append(y.astype(np.int64))
    if pixels[0].shape[1:] != pixels[1].shape[1:]:
        raise DecaylabError(f"{name}: the images of train_x and test_x have different shapes")
    classes = int(max(labels[0].max(), labels[1].max())) + 1
    if classes < 2:
        raise DecaylabError(f"{name}: all labels are 0, expected two classes or more")
    return Images(pixels[0], labels[0], pixels[1], labels[1], classes)
