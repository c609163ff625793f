"""What does a reader of images hand over: pixels and labels, before anything is normalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Images:
    """Images as they were read.

    Attributes:
        train_x: Training pixels, uint8 (N, C, H, W).
        train_y: Training labels, int64 (N,).
        test_x: Test pixels.
        test_y: Test labels.
        num_classes: Labels are 0 to this number, exclusive.
    """

    train_x: NDArray[np.uint8]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.int64]
    num_classes: int
