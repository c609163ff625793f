"""Data of your own: a function that returns images with labels, and one that returns text.

decaylab train vision --data.dataset examples/own/dataset.py:bars --epochs 2
decaylab train language --data.corpus examples/own/dataset.py:sums --steps 50
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]


def bars(seed: int = 0, noise: int = 60) -> Arrays:
    """Noisy pictures of 8 x 8 pixels with one bright bar in one of eight columns: which one?"""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 8, 600)
    images = generator.integers(0, noise, (600, 8, 8), dtype=np.uint8)
    images[np.arange(600), :, labels] += 120
    return images[:500], labels[:500], images[500:], labels[500:]


def sums(seed: int = 0) -> str:
    """Sums of two numbers below a hundred, one a line."""
    generator = np.random.default_rng(seed)
    pairs = generator.integers(0, 100, (5000, 2))
    return "".join(f"{a}+{b}={a + b}\n" for a, b in pairs)
