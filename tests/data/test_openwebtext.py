"""OpenWebText's machinery on a small made-up data set: the split, interruptions at any place, imports."""

import hashlib
import json

import numpy as np
import pytest

from decaylab import data
from decaylab.data import openwebtext
from decaylab.data.openwebtext import get_openwebtext, prepared_folder
from decaylab.errors import DecaylabError


class Interrupted(Exception):
    pass


class Rows:
    """Documents that can say where they stand, as streamed data sets can; fails before document ``fails_at``."""

    def __init__(self, number, fails_at=None):
        self.number, self.fails_at, self.position = number, fails_at, 0
        self.read = 0

    def __iter__(self):
        while self.position < self.number:
            if self.position == self.fails_at:
                raise Interrupted
            self.position += 1
            self.read += 1
            yield {"text": f"document {self.position - 1} é", "url": "x"}

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(openwebtext, "_DOCUMENTS_PER_PART", 10)
    monkeypatch.setattr(openwebtext, "_ONE_IN", 8)


def _content(folder):
    return {side: (folder / f"{side}.bin").read_bytes() for side in ("train", "val")}


def test_every_document_is_on_one_side():
    progress = []
    folder = get_openwebtext("bytes", rows=Rows(95), progress=lambda n, tokens: progress.append((n, tokens)))
    stream = data.text("openwebtext", "bytes")
    assert stream.folder == folder == prepared_folder("bytes")
    sides = [stream.decode(ids).split("<|endoftext|>")[:-1] for ids in (stream.train, stream.val)]
    assert sorted(sides[0] + sides[1]) == sorted(f"document {i} é" for i in range(95))
    assert 4 <= len(sides[1]) <= 22
    assert [n for n, _ in progress] == [*range(10, 100, 10), 95]
    assert progress[-1][1] == len(stream.train) + len(stream.val)
    assert stream.manifest["corpus"]["documents"] == 95
    assert get_openwebtext("bytes", rows=Rows(0)) == folder  # done: nothing is read
    data.available("openwebtext", tokenizer="bytes")


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("fails_at", [3, 10, 57, 94])
def test_an_interruption_changes_nothing(tmp_path, monkeypatch, fails_at, resumable):
    whole = _content(get_openwebtext("bytes", rows=Rows(95)))
    manifest = json.loads((prepared_folder("bytes") / "manifest.json").read_text())
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path))
    first, second = Rows(95, fails_at), Rows(95)
    with pytest.raises(Interrupted):
        get_openwebtext("bytes", rows=first if resumable else iter(first))
    with pytest.raises(DecaylabError, match="it was begun, and goes on where it stopped"):
        prepared_folder("bytes")
    # What a crash left behind the last record of the progress must not stay.
    (work,) = [p for p in (tmp_path / "text").iterdir() if p.is_dir()]
    with (work / "train.bin").open("ab") as file:
        file.write(b"rest of a part")
    folder = get_openwebtext("bytes", rows=second if resumable else iter(second))
    assert _content(folder) == whole
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert second.read == (95 - fails_at // 10 * 10 if resumable else 95)
    assert [p.name for p in (tmp_path / "text").iterdir() if p.is_dir()] == [folder.name]


def test_damaged_progress_starts_again(tmp_path, monkeypatch):
    whole = _content(get_openwebtext("ascii", rows=Rows(40)))
    for damage in ("{", "short"):
        monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path / damage))
        with pytest.raises(Interrupted):
            get_openwebtext("ascii", rows=Rows(40, 35))
        (work,) = [p for p in (tmp_path / damage / "text").iterdir() if p.is_dir()]
        if damage == "{":
            (work / "progress.json").write_text("{")
        else:
            (work / "train.bin").write_bytes(b"1")
        assert _content(get_openwebtext("ascii", rows=Rows(40))) == whole


def test_too_few_documents():
    with pytest.raises(DecaylabError, match="2 documents are too few"):
        get_openwebtext("bytes", rows=Rows(2))


def test_files_prepared_elsewhere(tmp_path, monkeypatch):
    class Fake:
        vocab_size, end_of_text = 50257, 50256

    monkeypatch.setattr(openwebtext, "open_tokenizer", lambda name, root: Fake())
    monkeypatch.setattr(openwebtext, "open_stream", lambda folder, root: None)
    ids = np.array([15496, 995, 50256] * 10, dtype="<u2")
    ids.tofile(tmp_path / "train.bin")
    with pytest.raises(DecaylabError, match=r"val.bin is missing or damaged: expected uint16"):
        openwebtext.import_openwebtext(tmp_path)
    np.array([60000], dtype="<u2").tofile(tmp_path / "val.bin")
    with pytest.raises(DecaylabError, match=r"val.bin is damaged: expected ids below 50257, found 60000"):
        openwebtext.import_openwebtext(tmp_path)
    ids[:3].tofile(tmp_path / "val.bin")
    folder = openwebtext.import_openwebtext(tmp_path)
    assert (folder / "train.bin").read_bytes() == ids.tobytes()
    facts = {"tokens": 30, "sha256": hashlib.sha256(ids.tobytes()).hexdigest(), "largest": 50256}
    assert json.loads((folder / "manifest.json").read_text())["train"] == facts
    with pytest.raises(DecaylabError, match="is already in"):
        openwebtext.import_openwebtext(tmp_path)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DecaylabError, match=r"pip install 'decaylab\[openwebtext\]'"):
        get_openwebtext("bytes")


def test_without_the_hub(monkeypatch):
    class Datasets:
        @staticmethod
        def load_dataset(*args, **kwargs):
            raise ConnectionError("no network")

    monkeypatch.setitem(__import__("sys").modules, "datasets", Datasets)
    with pytest.raises(DecaylabError, match=r"cannot reach .* take over train.bin and val.bin prepared elsewhere"):
        get_openwebtext("bytes")
