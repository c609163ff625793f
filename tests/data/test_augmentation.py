"""Flip and crop: every output is one of the possible windows, all of them occur, and the generator decides."""

import torch
from torch.nn import functional as F

from decaylab import data


def _windows(image, padding):
    """Every window of the padded image, plain and mirrored, by slicing."""
    _, height, width = image.shape
    padded = F.pad(image, (padding,) * 4)
    for flipped in (False, True):
        for top in range(2 * padding + 1):
            for left in range(2 * padding + 1):
                window = padded[:, top : top + height, left : left + width]
                yield (flipped, top, left), window.flip(2) if flipped else window


def test_every_output_is_a_window_and_every_window_occurs():
    image = torch.arange(1.0, 3 * 5 * 6 + 1).view(3, 5, 6)
    out = data.augment(image.expand(1500, 3, 5, 6), torch.Generator().manual_seed(0), padding=2)
    assert out.shape == (1500, 3, 5, 6)
    known = {tuple(window.flatten().tolist()): key for key, window in _windows(image, 2)}
    counts: dict[tuple[bool, int, int], int] = {}
    for row in out.flatten(1).tolist():
        key = known[tuple(row)]
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 50
    expected = 1500 / 50
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 85.4  # 99.9 %, 49 degrees of freedom


def test_each_image_has_its_own_place():
    images = torch.randn(64, 3, 8, 8)
    out = data.augment(images, torch.Generator().manual_seed(0))
    for before, after in zip(images, out, strict=True):
        assert any(torch.equal(after, window) for _, window in _windows(before, 4))


def test_the_generator_decides():
    images = torch.randn(16, 3, 8, 8)
    state = torch.random.get_rng_state()
    first, again, other = (data.augment(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_flips_and_padding_nothing_happens():
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(data.augment(images, torch.Generator(), padding=0, flip=False), images)
