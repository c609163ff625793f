"""CIFAR: records written by hand are read back, from files, archives and parquet; damaged ones are named."""

import hashlib
import io
import os
import runpy
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from decaylab import data
from decaylab.data import catalog, cifar
from decaylab.errors import DecaylabError
from decaylab.files import data_home

NAMES = {
    "cifar10": ("cifar-10-batches-bin", [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin", 1, 10),
    "cifar100": ("cifar-100-binary", ["train.bin"], "test.bin", 2, 100),
}


def _write(folder: Path, dataset, x, y, test_x, test_y):
    """Write uint8 NHWC images in the format of the official binary version."""
    _, names, test, label_bytes, _ = NAMES[dataset]
    folder.mkdir(parents=True, exist_ok=True)

    def records(images, labels):
        rows = bytearray()
        for image, label in zip(images, labels, strict=True):
            rows += bytes([77] * (label_bytes - 1) + [int(label)])  # the coarse label is not used
            for channel in range(3):
                rows += image[:, :, channel].tobytes()
        return bytes(rows)

    share = len(x) // len(names)
    for i, name in enumerate(names):
        part = slice(i * share, (i + 1) * share)
        (folder / name).write_bytes(records(x[part], y[part]))
    (folder / test).write_bytes(records(test_x, test_y))
    return folder


def _random(dataset, number=200, seed=0):
    rng = np.random.default_rng(seed)
    classes = NAMES[dataset][4]
    return (
        rng.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8),
        rng.permutation(np.arange(number) % classes),
        rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8),
        rng.integers(0, classes, 40),
    )


def _assert_holds(images, x, y, test_x, test_y):
    mean = torch.tensor(images.channel_mean).view(1, 3, 1, 1)
    std = torch.tensor(images.channel_std).view(1, 3, 1, 1)
    assert np.array_equal((images.train_x * std + mean).round().numpy().transpose(0, 2, 3, 1), x)
    assert np.array_equal((images.test_x * std + mean).round().numpy().transpose(0, 2, 3, 1), test_x)
    assert images.train_y.tolist() == list(y) and images.test_y.tolist() == list(test_y)
    assert torch.allclose(images.train_x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(images.train_x.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("dataset", NAMES)
@pytest.mark.parametrize("inside", [False, True])
def test_reads_what_was_written(tmp_path, dataset, inside):
    arrays = _random(dataset)
    _write(tmp_path / NAMES[dataset][0] if inside else tmp_path, dataset, *arrays)
    images = data.vision(dataset, root=tmp_path)
    _assert_holds(images, *arrays)
    assert images.num_classes == NAMES[dataset][4]


def test_a_subset_has_the_same_number_of_each_class(tmp_path):
    arrays = _random("cifar10")
    _write(tmp_path, "cifar10", *arrays)
    part = data.vision("cifar10", train_size=50, seed=2, root=tmp_path)
    assert torch.bincount(part.train_y).tolist() == [5] * 10
    more = data.vision("cifar10", train_size=105, seed=2, root=tmp_path)
    assert sorted(torch.bincount(more.train_y).tolist()) == [10] * 5 + [11] * 5
    other = data.vision("cifar10", train_size=50, seed=3, root=tmp_path)
    assert other.fingerprint != part.fingerprint
    assert torch.equal(part.test_y, other.test_y)
    with pytest.raises(DecaylabError, match="1 to 200, not 201"):
        data.vision("cifar10", train_size=201, root=tmp_path)


def _archive(tmp_path, dataset, *, extra=None):
    folder = _write(tmp_path / "made" / NAMES[dataset][0], dataset, *_random(dataset))
    path = tmp_path / cifar._ARCHIVES[dataset].file_name
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=NAMES[dataset][0])
        if extra:
            tar.addfile(tarfile.TarInfo(extra), io.BytesIO())
    return path


@pytest.mark.parametrize("dataset", NAMES)
def test_an_archive_in_somebodys_folder_is_read_and_left_alone(tmp_path, dataset):
    path = _archive(tmp_path, dataset, extra="../escaped")
    before = path.read_bytes()
    _assert_holds(data.vision(dataset, root=tmp_path), *_random(dataset))
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"made", path.name}
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize("dataset", NAMES)
def test_get_unpacks_an_archive_once(tmp_path, dataset, monkeypatch):
    path = _archive(tmp_path, dataset)
    with pytest.raises(DecaylabError, match=r"is damaged: expected md5 .*, found"):
        catalog.get(dataset, source=path)
    official = cifar._ARCHIVES[dataset]
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(cifar._ARCHIVES, dataset, cifar._Archive(**{**official.__dict__, "md5": md5}))
    assert catalog.is_available(dataset) is False
    line = catalog.get(dataset, source=tmp_path)
    assert str(data_home() / "vision" / dataset / official.folder) in line
    assert catalog.is_available(dataset)
    data.available(dataset)
    path.unlink()  # the second time nothing is needed
    assert catalog.get(dataset) == line
    _assert_holds(data.vision(dataset), *_random(dataset))
    assert [p.name for p in (data_home() / "vision" / dataset).iterdir()] == [official.folder]


def test_the_published_hashes():
    assert cifar._ARCHIVES["cifar10"].md5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert cifar._ARCHIVES["cifar100"].md5 == "03b5dce01913d631647c71ecec9e9cb8"


def test_a_failed_download_says_what_to_do(monkeypatch):
    import pooch

    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(DecaylabError, match=r"cannot download .* get cifar-10-binary.tar.gz another way"):
        catalog.get("cifar10")


def _damage_size(folder):
    path = folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-100])
    return r"data_batch_3.bin is damaged: expected whole records of 3,073 bytes, found 122,820 bytes"


def _damage_count(folder):
    path = folder / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-3073])
    return r"data_batch_4.bin is damaged: expected 40 records as in data_batch_1.bin, found 39"


def _damage_label(folder):
    path = folder / "test_batch.bin"
    path.write_bytes(b"\x0b" + path.read_bytes()[1:])
    return r"test_batch.bin is damaged: expected labels below 10, found 11"


def _damage_missing(folder):
    (folder / "data_batch_5.bin").unlink()
    return r"data_batch_5.bin is missing: expected 5 training files and test_batch.bin"


@pytest.mark.parametrize("damage", [_damage_size, _damage_count, _damage_label, _damage_missing])
def test_damaged_files_are_named(tmp_path, damage):
    _write(tmp_path, "cifar10", *_random("cifar10"))
    message = damage(tmp_path)
    with pytest.raises(DecaylabError, match=message):
        data.vision("cifar10", root=tmp_path)


@pytest.mark.parametrize("kind", ["cut", "no archive", "other files"])
def test_damaged_archives_are_named(tmp_path, kind):
    path = _archive(tmp_path, "cifar10")
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-20_000])
    elif kind == "no archive":
        path.write_bytes(b"<html>not found</html>")
    else:
        with tarfile.open(path, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("readme.html"), io.BytesIO())
    with pytest.raises(DecaylabError, match=r"cifar-10-binary.tar.gz is (damaged|not cifar)"):
        data.vision("cifar10", root=tmp_path)


@pytest.mark.parametrize("where", ["a wanted file", "another file", "a header"])
def test_archives_that_unpack_to_far_too_much_are_refused(tmp_path, monkeypatch, where):
    """A tar of zeros shrinks a thousandfold; neither memory nor disk may be filled before that is noticed."""
    monkeypatch.setattr(cifar, "_MOST_BYTES", 2**20)
    path = tmp_path / "cifar-10-binary.tar.gz"
    entry = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin" if where == "a wanted file" else "other.bin")
    entry.size = 2**24
    if where == "a header":
        entry.type = tarfile.XHDTYPE
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(entry, io.BytesIO(bytes(2**24)))
    assert path.stat().st_size < 2**16
    with pytest.raises(DecaylabError, match="unpacks to far more than the images need"):
        data.vision("cifar10", root=tmp_path)


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(3073))
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in (*NAMES["cifar10"][1], NAMES["cifar10"][2]):
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
            tar.addfile(entry)
    with pytest.raises(DecaylabError, match=r"is not cifar-10-binary\.tar\.gz: it lacks"):
        data.vision("cifar10", root=tmp_path)


def test_a_file_of_far_too_many_records_is_not_read(tmp_path):
    _write(tmp_path, "cifar10", *_random("cifar10"))
    with (tmp_path / "test_batch.bin").open("r+b") as file:
        file.truncate(2**40 // 3073 * 3073)  # a sparse file takes no room
    with pytest.raises(DecaylabError, match="expected at most 50,000 records"):
        data.vision("cifar10", root=tmp_path)


def test_an_empty_folder_says_what_was_expected(tmp_path):
    with pytest.raises(DecaylabError, match=r"no cifar10 in .*expected test_batch.bin, cifar-10-binary.tar.gz or"):
        data.vision("cifar10", root=tmp_path)


def _real_images():
    """12,000 CIFAR-10 images, 10,000 of them for training, and their labels; where a folder of test data is given."""
    folder = os.environ.get("DECAYLAB_TEST_DATA")
    if not folder:
        pytest.skip("DECAYLAB_TEST_DATA does not name a folder with real images")
    path = Path(folder) / "cifar10_sub12k_lossless.medxz"
    if not path.exists():
        pytest.skip(f"no {path.name} in DECAYLAB_TEST_DATA")
    return runpy.run_path(str(Path(folder) / "codec.py"))["decode"](path)


@pytest.mark.slow
def test_real_images_survive_the_round_trip(tmp_path):
    pixels, arrays = _real_images()
    train, test = pixels[:10_000], pixels[10_000:]
    _write(tmp_path, "cifar10", train, arrays["y_train"], test, arrays["y_test"])
    images = data.vision("cifar10", root=tmp_path)
    _assert_holds(images, train, arrays["y_train"], test, arrays["y_test"])
    # CIFAR-10's known channel statistics, in pixel values; a tenth of the images comes near.
    assert images.channel_mean == pytest.approx((125.3, 123.0, 113.9), abs=1.5)
    assert images.channel_std == pytest.approx((63.0, 62.1, 66.7), abs=1.0)
    assert torch.bincount(images.train_y).tolist() == [1000] * 10
