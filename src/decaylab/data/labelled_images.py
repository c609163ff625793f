"""What does a vision run train on: normalised tensors, with a fixed share of wrong training labels if asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decaylab.components import image_data
from decaylab.data.images import Images
from decaylab.errors import DecaylabError


@dataclass(frozen=True)
class VisionSet:
    """A whole image data set as tensors on the CPU.

    Attributes:
        name: The data set.
        train_x: float32 (N, C, H, W); each channel has mean 0 and standard deviation 1 over the training images.
        train_y: int64 (N,), the labels to train on, flips included.
        clean_train_y: int64 (N,), the labels before any flip.
        test_x: Test images, shifted and scaled by the training images' statistics.
        test_y: Test labels; never flipped.
        num_classes: Number of classes.
        channel_mean: Mean of each channel over the training images, in pixel values.
        channel_std: Standard deviation of each channel over the training images, in pixel values.
        fingerprint: Hash (16 hex digits) of the pixels and labels: equal exactly when the data are.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    clean_train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    num_classes: int
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    fingerprint: str


def vision(
    dataset: str,
    train_size: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    root: str | Path | None = None,
    *,
    parity: bool = False,
    options: Iterable[tuple[str, Any]] = (),
) -> VisionSet:
    """Load an image data set.

    Args:
        dataset: ``"digits"``, ``"cifar10"``, ``"cifar100"`` (the hundred fine classes), or a data set of the user's
            (see `decaylab.components.image_data`).
        train_size: Number of training images, drawn by ``seed`` in equal numbers per class as far as possible (digits:
            drawn over all classes, the rest is the test set); None: all of them.
        label_noise: Share of the training labels that is replaced by another class, each other class equally likely.
            The number of flipped labels is this share rounded to whole images, so that seeds differ in which labels
            are wrong and not in how many.
        seed: Decides the subset and the flips, each by its own stream.
        parity: Replace every label by whether its class is odd: two classes.
        options: Settings of a data set of the user's, as (name, value) pairs.
        root: Folder with the data set's files (CIFAR: official archive, binary files or parquet); None: where
            ``decaylab data get`` puts them.

    Raises:
        DecaylabError: For an unknown data set, a share outside [0, 1], more images than there are, missing files (names
            the command that gets them) or damaged ones.
    """
    if not 0 <= label_noise <= 1:
        raise DecaylabError(f"label_noise is a share from 0 to 1, not {label_noise}")
    row = image_data(dataset)
    images = row.load(train_size, seed, root, options)
    if not row.splits:
        images = _subset(dataset, images, train_size, seed)
    if parity:
        images = replace(images, train_y=images.train_y % 2, test_y=images.test_y % 2, num_classes=2)
    noisy = _flip(images.train_y, images.num_classes, label_noise, seed)
    mean, std = _channel_statistics(images.train_x)
    return VisionSet(
        name=dataset,
        train_x=_normalise(images.train_x, mean, std),
        train_y=torch.from_numpy(noisy),
        clean_train_y=torch.from_numpy(images.train_y),
        test_x=_normalise(images.test_x, mean, std),
        test_y=torch.from_numpy(images.test_y),
        num_classes=images.num_classes,
        channel_mean=tuple(mean.tolist()),
        channel_std=tuple(std.tolist()),
        fingerprint=_fingerprint(images.train_x, noisy, images.test_x, images.test_y),
    )


def _subset(dataset: str, images: Images, train_size: int | None, seed: int) -> Images:
    if train_size is None:
        return images
    y = images.train_y
    if not 1 <= train_size <= len(y):
        raise DecaylabError(
            f"{dataset} has {len(y)} training images: train_size must be 1 to {len(y)}, not {train_size}"
        )
    # Rank every image within its class in a random order; the lowest ranks make an even subset for any size.
    order = np.argsort(np.random.PCG64([seed, 2]).random_raw(len(y)), kind="stable")
    rank = np.empty(len(y), dtype=np.int64)
    for label in range(images.num_classes):
        members = order[y[order] == label]
        rank[members] = np.arange(len(members))
    chosen = np.sort(order[np.argsort(rank[order], kind="stable")][:train_size])
    return Images(images.train_x[chosen], y[chosen], images.test_x, images.test_y, images.num_classes)


def _flip(y: NDArray[np.int64], num_classes: int, share: float, seed: int) -> NDArray[np.int64]:
    bits = np.random.PCG64([seed, 1])
    victims = np.argsort(bits.random_raw(len(y)), kind="stable")[: round(share * len(y))]
    noisy = y.copy()
    # Adding 1 to C - 1 modulo C reaches each other class with the same probability, and never the same class.
    shift = 1 + (bits.random_raw(len(victims)) % np.uint64(num_classes - 1)).astype(np.int64)
    noisy[victims] = (y[victims] + shift) % num_classes
    return noisy


def _channel_statistics(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation per channel; of bytes exact, from the counts of the 256 values."""
    if x.dtype != np.uint8:
        numbers = x.astype(np.float64)
        mean, std = numbers.mean(axis=(0, 2, 3)), numbers.std(axis=(0, 2, 3))
        if std.min() == 0:
            raise DecaylabError("the training images are all of one colour: they cannot be normalised")
        return mean, std
    values = np.arange(256, dtype=np.float64)
    means, deviations = [], []
    for channel in range(x.shape[1]):
        counts = np.bincount(x[:, channel].ravel(), minlength=256)
        mean = float(counts @ values / counts.sum())
        means.append(mean)
        deviations.append(float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum())))
    if min(deviations) == 0:
        raise DecaylabError("the training images are all of one colour: they cannot be normalised")
    return np.array(means), np.array(deviations)


def _normalise(x: NDArray[Any], mean: NDArray[np.float64], std: NDArray[np.float64]) -> Tensor:
    result = torch.from_numpy(x).to(torch.float32, copy=True)
    shape = (1, -1, 1, 1)
    result -= torch.from_numpy(mean).to(torch.float32).view(shape)
    result /= torch.from_numpy(std).to(torch.float32).view(shape)
    return result


def _fingerprint(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
