"""Images as tensors: splits, flipped labels, subsets, normalisation, errors."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from decaylab import data
from decaylab.data import digits
from decaylab.errors import DecaylabError


def test_digits_are_split_without_loss():
    images = data.vision("digits", train_size=512, seed=3)
    assert images.train_x.shape == (512, 1, 8, 8) and images.test_x.shape == (1285, 1, 8, 8)
    assert images.train_x.dtype is torch.float32 and images.train_y.dtype is torch.int64
    assert images.num_classes == 10
    raw = torch.cat([images.train_x, images.test_x]) * images.channel_std[0] + images.channel_mean[0]
    rows = {tuple(row) for row in raw.flatten(1).round().long().tolist()}
    assert rows == {tuple(row) for row in load_digits().data.astype(int).tolist()}
    assert len(data.vision("digits").train_y) == 1297


def test_digits_are_there_without_importing_the_package_that_brings_them():
    program = "import sys; from decaylab import data; data.vision('digits'); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_digits_come_through_their_package_where_its_file_is_not_found(monkeypatch):
    before = data.vision("digits", train_size=100)
    monkeypatch.setattr(digits, "_table", lambda: None)
    after = data.vision("digits", train_size=100)
    assert torch.equal(before.train_x, after.train_x) and torch.equal(before.test_y, after.test_y)


def test_labels_stay_with_their_images():
    images = data.vision("digits", train_size=300)
    bunch = load_digits()
    label_of = {tuple(row): label for row, label in zip(bunch.data.astype(int).tolist(), bunch.target, strict=True)}
    raw = (images.train_x * images.channel_std[0] + images.channel_mean[0]).flatten(1).round().long()
    assert [label_of[tuple(row)] for row in raw.tolist()] == images.train_y.tolist()


def test_normalised_by_the_training_images():
    images = data.vision("digits", train_size=400)
    assert images.train_x.mean().item() == pytest.approx(0, abs=1e-6)
    assert images.train_x.std(unbiased=False).item() == pytest.approx(1, abs=1e-6)
    assert abs(images.test_x.mean().item()) > 1e-4  # the test images do not enter


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_asked_share_of_labels_is_flipped_to_another_class(share):
    images = data.vision("digits", train_size=1000, label_noise=share)
    assert (images.train_y != images.clean_train_y).sum() == round(share * 1000)
    clean = data.vision("digits", train_size=1000)
    assert torch.equal(images.clean_train_y, clean.train_y)
    assert torch.equal(images.train_x, clean.train_x) and torch.equal(images.test_y, clean.test_y)


def test_flips_reach_every_other_class_evenly():
    shifts = torch.cat(
        [
            (images.train_y - images.clean_train_y) % 10
            for images in (data.vision("digits", train_size=1796, label_noise=1.0, seed=s) for s in range(5))
        ]
    )
    counts = torch.bincount(shifts, minlength=10)
    assert counts[0] == 0
    expected = len(shifts) / 9
    chi_squared = ((counts[1:] - expected) ** 2 / expected).sum().item()
    assert chi_squared < 26.1  # 99.9 % of the distribution with 8 degrees of freedom


def test_seeds_decide_and_repeat():
    first, again, other = (data.vision("digits", 500, 0.3, seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert torch.equal(first.train_x, again.train_x) and torch.equal(first.train_y, again.train_y)
    assert first.fingerprint != data.vision("digits", 500, 0.29, 0).fingerprint


def test_the_split_of_a_seed_never_changes():
    # Stored numbers: a change here makes every stored vision run another run.
    images = data.vision("digits", 8, 0.5, 0)
    assert images.clean_train_y.tolist() == [0, 6, 3, 8, 1, 8, 4, 1]
    assert images.train_y.tolist() == [0, 7, 3, 8, 4, 7, 4, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "digit"}, "unknown data set 'digit'; did you mean 'digits'"),
        ({"dataset": "digits", "label_noise": 1.5}, "share from 0 to 1"),
        ({"dataset": "digits", "train_size": 1797}, "1 to 1796"),
        ({"dataset": "digits", "train_size": 0}, "1 to 1796"),
        ({"dataset": "cifar10"}, "get it with `decaylab data get cifar10`"),
        ({"dataset": "cifar100"}, "get it with `decaylab data get cifar100`"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, message):
    with pytest.raises(DecaylabError, match=message) as caught:
        data.vision(**arguments)
    assert "\n" not in str(caught.value)


def test_parity_keeps_the_images_and_asks_whether_the_class_is_odd():
    ten, two = data.vision("digits", 256), data.vision("digits", 256, parity=True)
    assert torch.equal(ten.train_x, two.train_x)
    assert torch.equal(ten.train_y % 2, two.train_y)
    assert torch.equal(ten.test_y % 2, two.test_y)
    assert two.num_classes == 2
    noisy = data.vision("digits", 256, 0.25, parity=True)
    assert int((noisy.train_y != noisy.clean_train_y).sum()) == 64
    assert set(noisy.train_y.tolist()) == {0, 1}


def test_the_normalisation_equals_numpy():
    images = data.vision("digits", 700)
    raw = np.rint(images.train_x.numpy() * images.channel_std[0] + images.channel_mean[0])
    assert images.channel_mean[0] == pytest.approx(raw.mean(), rel=1e-6)
    assert images.channel_std[0] == pytest.approx(raw.std(), rel=1e-6)
