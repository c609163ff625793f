"""Files of tensors from strangers: nothing is executed, nothing small fills the memory, torch's advice stays unsaid."""

import argparse
import io
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from decaylab.errors import DecaylabError
from decaylab.tensors.tensor_files import load_archive, load_tensors


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def _said(path, load=load_tensors):
    with pytest.raises(DecaylabError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message and len(message) < 400
    assert "weights_only" not in message and "trust" not in message and str(path) in message
    return message


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "content", [Trap(), {"a": Trap()}, {"a": print}, argparse.Namespace(a=1), {"a": np.float64(1)}]
)
def test_more_than_tensors_is_refused_without_advice(content, legacy, tmp_path):
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    assert "more than tensors" in _said(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"PK\x03\x04" + b"\0" * 60, b"\x80\x02}q\x00.", b"\x80\x02N."])
@pytest.mark.parametrize("suffix", ["pt", "bin", "safetensors"])
def test_damaged_files(content, suffix, tmp_path):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    _said(path)


def test_cut_files(tmp_path):
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "w.pt")
    save_file({"a": torch.arange(1000.0)}, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for size in (10, len(whole) // 2, len(whole) - 1):
            (tmp_path / name).write_bytes(whole[:size])
            _said(tmp_path / name)


def test_a_packed_archive_is_not_unpacked(tmp_path):
    """torch reads packed entries, though it never writes any: four kilobytes hold four megabytes, or four gigabytes."""
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "x.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry.filename), zipfile.ZIP_DEFLATED)
    assert torch.load(tmp_path / "x.pt", weights_only=True)["a"].shape == (10**6,)
    assert "its content is packed" in _said(tmp_path / "x.pt")


def test_a_view_that_claims_more_than_the_file_holds(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**11)}, tmp_path / "w.pt")
    assert "'a' claims more values than the file holds" in _said(tmp_path / "w.pt")
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "w.pt")
    assert "is not a dense tensor" in _said(tmp_path / "w.pt")


def test_what_is_no_file_of_tensors(tmp_path):
    for content in ([1], {"a": 1}, {3: torch.zeros(1)}, torch.zeros(1)):
        torch.save(content, tmp_path / "w.pt")
        assert "does not hold tensors by name" in _said(tmp_path / "w.pt")
    for name in ("no.pt", "no.safetensors"):
        assert "there is no file" in _said(tmp_path / name)
    for name in ("d.pt", "d.safetensors"):
        (tmp_path / name).mkdir()
        _said(tmp_path / name)


def test_honest_files_come_back(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.randn(2).bfloat16()}
    torch.save(tensors, tmp_path / "w.pt")
    torch.save(tensors, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "w.safetensors")
    for name in ("w.pt", "old.bin", "w.safetensors"):
        found = load_tensors(tmp_path / name)
        assert found.keys() == tensors.keys() and all(torch.equal(found[n], tensors[n]) for n in tensors)
    stream = io.BytesIO()
    torch.save({"step": 3, "list": [1.5, "x", None, True]}, stream)
    (tmp_path / "s.pt").write_bytes(stream.getvalue())
    assert load_archive(tmp_path / "s.pt") == {"step": 3, "list": [1.5, "x", None, True]}
