"""The record of a token stream: every change of the files or of the record is noticed when the stream is opened."""

import hashlib
import json

import numpy as np
import pytest

from decaylab import data
from decaylab.data.manifest import measure
from decaylab.data.openwebtext import get_openwebtext
from decaylab.data.stream import open_stream
from decaylab.errors import DecaylabError


@pytest.fixture
def stream(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(f"text {number} of a small corpus\n" * 200)
    return data.text(f"folder:{tmp_path}", "ascii")


def _flip(folder, side, value, at=50):
    ids = np.fromfile(folder / f"{side}.bin", dtype="<u2")
    ids[at] = value
    ids.tofile(folder / f"{side}.bin")


@pytest.mark.parametrize("value", [65, 65535])  # inside the vocabulary, and far outside of it
@pytest.mark.parametrize("side", ["train", "val"])
def test_one_changed_token_is_noticed(stream, side, value):
    _flip(stream.folder, side, value)
    with pytest.raises(DecaylabError, match=rf"{side}.bin is damaged: its tokens are not those that were written; rem"):
        open_stream(stream.folder)


def _set(content, path, value):
    *inner, last = path
    for name in inner:
        content = content[name]
    if value is None:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("train", "tokens"), 10**9),
        (("train", "tokens"), "12"),
        (("train", "sha256"), "0" * 64),
        (("train", "sha256"), None),
        (("val", "largest"), 128),
        (("vocab_size",), 10**9),
        (("vocab_size",), 100),
        (("end_of_text",), -1),
        (("format",), 3),
        (("tokenizer",), 7),
        (("corpus",), []),
        (("more",), 1),
    ],
)
def test_a_changed_record_is_noticed(stream, path, value):
    file = stream.folder / "manifest.json"
    content = json.loads(file.read_text())
    _set(content, path, value)
    file.write_text(json.dumps(content))
    with pytest.raises(DecaylabError, match=r"is damaged: .*; remove|remove it to write it again") as caught:
        open_stream(stream.folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 10**5, "{", '{"format": ' + "9" * 5000 + "}", "null", "\xff"])
def test_a_record_that_is_none(stream, content):
    (stream.folder / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DecaylabError, match="expected the facts of a token stream; remove"):
        open_stream(stream.folder)


@pytest.mark.parametrize("kept", ["sha256", "parts_sha256", None])
def test_records_of_the_first_form_are_measured_and_written_anew(stream, kept):
    file = stream.folder / "manifest.json"
    content = new = json.loads(file.read_text())
    old = {**content, "format": 1}
    del old["tokenizer_sha256"]
    for side in ("train", "val"):
        digest = {"sha256": content[side]["sha256"], "parts_sha256": "0" * 64}
        old[side] = {"tokens": content[side]["tokens"], **({} if kept is None else {kept: digest[kept]})}
    file.write_text(json.dumps(old))
    assert open_stream(stream.folder).manifest == new
    assert json.loads(file.read_text()) == new
    file.write_text(json.dumps(old))
    _flip(stream.folder, "train", 65)
    if kept == "sha256":
        with pytest.raises(DecaylabError, match="is damaged"):
            open_stream(stream.folder)
    _flip(stream.folder, "train", 200)
    with pytest.raises(DecaylabError, match="expected ids below 128, found 200"):
        open_stream(stream.folder)


def test_what_is_measured(tmp_path):
    path = tmp_path / "x.bin"
    ids = np.random.default_rng(0).integers(0, 500, 1001).astype("<u2")
    ids[700] = 500
    ids.tofile(path)
    side = measure(path, 501)
    assert (side.tokens, side.largest, side.sha256) == (1001, 500, hashlib.sha256(ids.tobytes()).hexdigest())
    with pytest.raises(DecaylabError, match="expected ids below 500, found 500"):
        measure(path, 500)
    path.write_bytes(b"123")
    with pytest.raises(DecaylabError, match="half of one"):
        measure(path, 500)
    for content in (b"", None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DecaylabError, match="missing or damaged"):
            measure(path, 500)


def test_all_writers_leave_the_same_record(stream, tmp_path):
    rows = [{"text": f"document {number}"} for number in range(6000)]
    other = open_stream(get_openwebtext("ascii", rows=rows)).manifest
    assert [list(other[name]) for name in ("corpus", "train", "val")] == [
        list(stream.manifest[name]) for name in ("corpus", "train", "val")
    ]
    assert other.keys() == stream.manifest.keys()
