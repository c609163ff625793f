"""How are images flipped and cropped at random: the classic CIFAR augmentation, a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(x: Tensor, generator: torch.Generator, *, padding: int = 4, flip: bool = True) -> Tensor:
    """Shift every image by up to ``padding`` pixels in both directions and mirror half of them left to right.

    Equal to padding each image with zeros (the channels' mean, for normalised images), cutting out a window of the old
    size at a random place, and mirroring with probability one half. Every image has its own place and its own coin.

    Args:
        x: Images (N, C, H, W).
        generator: The only source of randomness, on the CPU, so that all devices see the same choices.
        padding: Largest shift in pixels.
        flip: Whether to mirror.

    Returns:
        New images (N, C, H, W), in channels-last memory order.
    """
    number, _, height, width = x.shape
    device = x.device
    choices = torch.randint(0, 2 * padding + 1, (2, number, 1), generator=generator)
    coins = torch.randint(0, 2, (number, 1), generator=generator).bool() if flip else None
    rows = choices[0] + torch.arange(height)
    columns = torch.arange(width).expand(number, width)
    if coins is not None:
        columns = torch.where(coins, columns.flip(1), columns)
    columns = columns + choices[1]
    padded_NHWC = F.pad(x, (padding,) * 4).permute(0, 2, 3, 1)
    images = torch.arange(number, device=device)[:, None, None]
    picked_NHWC = padded_NHWC[images, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
    return picked_NHWC.permute(0, 3, 1, 2)
