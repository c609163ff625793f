"""Parquet with the hub's schema: PNG files made by a slow encoder, every filter, both label columns, damage."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decaylab import data
from decaylab.data import parquet_images
from decaylab.errors import DecaylabError


def _png(pixels, filters, *, colour_type=2):
    """Encode (H, W, 3) bytes pixel by pixel as the specification's equations say."""
    height, width, _ = pixels.shape
    x = pixels.astype(int)
    rows = bytearray()
    for i in range(height):
        rows.append(filters[i % len(filters)])
        for j in range(width):
            for c in range(3):
                left = x[i, j - 1, c] if j else 0
                up = x[i - 1, j, c] if i else 0
                corner = x[i - 1, j - 1, c] if i and j else 0
                p = left + up - corner
                near = min((left, up, corner), key=lambda v, p=p: abs(p - v))
                guess = (0, left, up, (left + up) // 2, near)[filters[i % len(filters)]]
                rows.append((x[i, j, c] - guess) % 256)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    packed = zlib.compress(bytes(rows))
    half = len(packed) // 2
    body = chunk(b"tEXt", b"made by hand") + chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def _images(number, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)


def _decoded(files):
    """Decode image cells as the reader of a file does."""
    return parquet_images._decode([{"bytes": file} for file in files], Path("a.parquet"), 0)


def test_every_filter_and_their_mixture():
    pixels = _images(7)
    pixels[6] = pixels[6] // 64  # smooth enough for ties between the neighbours
    filters = [[0], [1], [2], [3], [4], [4, 0, 2, 3, 1], [4, 3]]
    files = [_png(p, f) for p, f in zip(pixels, filters, strict=True)]
    assert np.array_equal(_decoded(files), pixels)


def _bomb(side):
    """A picture of side x side black pixels in a few kilobytes."""
    packer = zlib.compressobj(9)
    rows = packer.compress(b"\0" * (1 + 3 * side)) + b"".join(
        packer.compress(b"\0" * (1 + 3 * side)) for _ in range(side - 1)
    )
    small = _png(_images(1)[0], [0])
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return small[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", rows + packer.flush()) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"GIF89a", "image 1: not a PNG"),
        (_png(_images(1)[0], [0], colour_type=3), "image 1: "),
        (_png(_images(1)[0][:8], [0]), "image 1: it has 32 x 8 pixels of mode RGB"),
        (_png(_images(1)[0], [0])[:400], "image 1: "),
        (_png(_images(1)[0], [0])[:20], "image 1: "),
        (_png(_images(1)[0], [0])[:8], "image 1: not a PNG"),
        (_bomb(5000), "image 1: it has 5000 x 5000 pixels"),
        (_bomb(20000), "image 1: "),
    ],
)
def test_other_files_are_refused_before_they_are_unpacked(file, message):
    tracemalloc.start()
    with pytest.raises(DecaylabError, match=message) as caught:
        _decoded([_png(_images(1)[0], [0]), file])
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_small_file_of_many_large_cells_is_refused_soon(tmp_path):
    """Equal cells are stored once: 60,000 rows of one image take a few kilobytes."""
    rows = [{"bytes": _png(_images(1)[0], [0]), "path": None}] * 60_000
    pq.write_table(pa.table({"img": rows, "label": [0] * 60_000}), tmp_path / "train-0.parquet")
    with pytest.raises(DecaylabError, match="expected at most 50,000 images"):
        data.vision("cifar10", root=tmp_path)
    labels = pa.array([None], pa.int64())
    pq.write_table(pa.table({"img": rows[:1], "label": labels}), tmp_path / "train-0.parquet")
    with pytest.raises(DecaylabError, match="expected a label in each row"):
        data.vision("cifar10", root=tmp_path)


def _write(folder, split, pixels, columns, image="img"):
    rows = [{"bytes": _png(p, [i % 5]), "path": None} for i, p in enumerate(pixels)]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({image: rows, **columns}), folder / f"{split}-00000-of-00001.parquet")


@pytest.mark.parametrize(("dataset", "image"), [("cifar10", "img"), ("cifar100", "image")])
def test_reads_the_hubs_schema(tmp_path, dataset, image):
    label = "label" if dataset == "cifar10" else "fine_label"
    arrays = {}
    for split, number in (("train", 3), ("test", 5)):
        arrays[split] = (_images(number), [(7 * i) % 10 for i in range(number)])
        columns = {label: arrays[split][1]}
        if dataset == "cifar100":
            columns["coarse_label"] = [0] * number
        _write(tmp_path / "plain_text", split, arrays[split][0], columns, image)
    images = data.vision(dataset, root=tmp_path)
    assert images.train_y.tolist() == arrays["train"][1] and images.test_y.tolist() == arrays["test"][1]
    mean, std = (np.array(v)[:, None, None] for v in (images.channel_mean, images.channel_std))
    raw = np.rint(images.test_x.numpy() * std + mean)
    assert np.array_equal(raw.transpose(0, 2, 3, 1), arrays["test"][0])


def test_damage_is_named(tmp_path):
    _write(tmp_path, "train", _images(3), {"label": [0, 1, 2]})
    with pytest.raises(DecaylabError, match=r"no test\*.parquet in"):
        data.vision("cifar10", root=tmp_path)
    test = tmp_path / "test-00000-of-00001.parquet"
    test.write_bytes(b"PAR1 nothing")
    with pytest.raises(DecaylabError, match=r"test-00000-of-00001.parquet is damaged: expected a parquet file"):
        data.vision("cifar10", root=tmp_path)
    _write(tmp_path, "test", _images(3), {"label": [0, 1, 10]})
    with pytest.raises(DecaylabError, match=r"expected labels 0 to 9, found 0, 10"):
        data.vision("cifar10", root=tmp_path)
    pq.write_table(pa.table({"picture": [b""], "label": [0]}), test)
    with pytest.raises(DecaylabError, match=r"has the columns picture, label: expected an image"):
        data.vision("cifar10", root=tmp_path)
    pq.write_table(pa.table({"img": [{"bytes": b"no", "path": None}], "label": [0]}), test)
    with pytest.raises(DecaylabError, match=r"expected PNG images of 8-bit RGB \(image 0: not a PNG file\)"):
        data.vision("cifar10", root=tmp_path)
