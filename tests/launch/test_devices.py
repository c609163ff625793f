"""A device that is not there is missed before anything is trained."""

import sys

import pytest
import torch

from decaylab.errors import DecaylabError
from decaylab.launch.devices import require_compiler, require_device


@pytest.fixture
def machine(monkeypatch):
    """A machine with some GPUs."""

    def set_up(gpus=0, mps=False):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_up


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_a_device_that_is_there(name, machine):
    machine(gpus=2, mps=True)
    require_device(name)


@pytest.mark.parametrize(
    ("name", "gpus", "said"),
    [
        ("foo", 2, "unknown device 'foo'; known: auto, cpu, cuda, cuda:N, mps"),
        ("cuda:x", 2, "unknown device 'cuda:x'"),
        ("cpu:0:1", 2, "unknown device"),
        ("", 2, "unknown device ''"),
        ("cuda", 0, "no GPU here; use --device cpu"),
        ("cuda:0", 0, "no GPU here"),
        ("cuda:1", 1, "there is no cuda:1 here: torch finds cuda:0$"),
        ("cuda:7", 4, "there is no cuda:7 here: torch finds cuda:0 to cuda:3"),
        ("mps", 1, r"no Apple GPU \(mps\) here"),
    ],
)
def test_a_device_that_is_not(name, gpus, said, machine):
    machine(gpus=gpus)
    with pytest.raises(DecaylabError, match=said):
        require_device(name)


def test_a_cpu_needs_a_compiler_where_a_gpu_does_not(monkeypatch, tmp_path, machine):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(DecaylabError, match=r"no (g|clang)\+\+ here: install it, name another one in CXX"):
        require_compiler("cpu")
    machine(gpus=1)
    require_compiler("cuda")
    compiler = tmp_path / "c++-13"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", compiler.name)
    require_compiler("cpu")


def test_without_torch_another_process_is_asked(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    if torch.cuda.is_available():
        require_device("cuda:0")
    else:
        with pytest.raises(DecaylabError, match="no GPU here"):
            require_device("cuda")
    assert "torch" not in sys.modules
