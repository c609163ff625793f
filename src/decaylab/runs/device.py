"""Is the device that somebody asks for in this machine? Asked before a run enters the store. Imports no torch."""

from __future__ import annotations

import re
import subprocess
import sys

from decaylab.errors import DecaylabError, unknown

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
        raise DecaylabError("torch finds no GPU here; use --device cpu, or a torch build for this machine's GPU")
    number = int(name.partition(":")[2] or 0)
    if number >= gpus:
        there = "cuda:0" if gpus == 1 else f"cuda:0 to cuda:{gpus - 1}"
        raise DecaylabError(f"there is no {name} here: torch finds {there}")


def _found() -> tuple[int, bool]:
    """Return the number of GPUs and whether there is an Apple one; torch is asked in a process of its own."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.cuda.device_count()), bool(torch.backends.mps.is_available())
    answer = subprocess.run([sys.executable, "-c", _QUESTION], capture_output=True, text=True, check=False).stdout
    gpus, _, mps = answer.strip().partition(" ")
    return int(gpus or 0), mps == "1"
