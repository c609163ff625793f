"""Which device is meant, and is it in this machine? Asked before a run enters the store. Imports no torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from decaylab.errors import DecaylabError, unknown

_GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_NO_GPU = "torch finds no GPU here; use --device cpu, or a torch build for this machine's GPU"
_QUESTION = "import torch; print(torch.cuda.device_count(), int(torch.backends.mps.is_available()))"


def require_device(name: str) -> None:
    """Return when a run can be trained on a device.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        DecaylabError: It means nothing, or torch does not find it.
    """
    if name in ("auto", "cpu"):
        return
    if not re.fullmatch(r"cuda(:\d+)?|mps", name):
        raise unknown("device", name, ["auto", "cpu", "cuda", "cuda:N", "mps"])
    gpus, mps = _found()
    if name == "mps":
        if not mps:
            raise DecaylabError("torch finds no Apple GPU (mps) here; use --device cpu")
        return
    if not gpus:
        raise DecaylabError(_NO_GPU)
    number = int(name.partition(":")[2] or 0)
    if number >= gpus:
        there = "cuda:0" if gpus == 1 else f"cuda:0 to cuda:{gpus - 1}"
        raise DecaylabError(f"there is no {name} here: torch finds {there}")


def require_compiler(device: str) -> None:
    """Return when runs with ``compile`` can be compiled on a device: a CPU's code goes through a C++ compiler.

    Args:
        device: As `require_device` takes it.

    Raises:
        DecaylabError: torch would not find the compiler.
    """
    name = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(name) is None and find_device(device)[0] == "cpu":
        raise DecaylabError(
            f"compile needs a C++ compiler, and there is no {name} here: install it, name another one in CXX, or leave "
            "compile off"
        )


def find_device(device: str) -> tuple[str, int]:
    """Resolve ``auto`` to ``cuda`` where there is a GPU and to ``cpu`` elsewhere; count the GPUs.

    torch is asked only where a driver's device file promises an answer: the launcher itself stays light.

    Raises:
        DecaylabError: ``cuda`` is asked for and torch finds none.
    """
    if device not in ("auto", "cuda"):
        return device, 0
    promised = not sys.platform.startswith("linux") or any(Path(name).exists() for name in _GPU_FILES)
    gpus = _found()[0] if device == "cuda" or (promised and sys.platform != "darwin") else 0
    if device == "cuda" and not gpus:
        raise DecaylabError(_NO_GPU)
    return ("cuda", gpus) if gpus else ("cpu", 0)


def _found() -> tuple[int, bool]:
    """Return the number of GPUs and whether there is an Apple one; torch is asked in a process of its own."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.cuda.device_count()), bool(torch.backends.mps.is_available())
    answer = subprocess.run([sys.executable, "-c", _QUESTION], capture_output=True, text=True, check=False).stdout
    gpus, _, mps = answer.strip().partition(" ")
    return int(gpus) if gpus.isdecimal() else 0, mps == "1"
