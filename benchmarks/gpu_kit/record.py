"""What a section has found, a line of JSON each, written at once: a section that is stopped leaves what it had."""

from __future__ import annotations

import json
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Record:
    """Takes results of checks and measurements.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, kind: str, name: str, **values: Any) -> None:
        """Write one row."""
        row = {"kind": kind, "name": name, **values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if kind != "hardware":
            print(row, flush=True)

    @contextmanager
    def check(self, name: str) -> Iterator[dict[str, Any]]:
        """Record whether what is done inside raises nothing; what it puts into the dictionary is kept beside it."""
        details: dict[str, Any] = {}
        began = time.perf_counter()
        try:
            yield details
        except Exception as error:
            traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            at = f"{Path(where.filename).name}:{where.lineno}"
            told = f"{type(error).__name__} at {at}: {str(error)[:600]}"
            self.put("check", name, ok=False, error=told, seconds=round(time.perf_counter() - began, 2), **details)
        else:
            self.put("check", name, ok=True, seconds=round(time.perf_counter() - began, 2), **details)

    def number(self, name: str, value: float, unit: str, **more: Any) -> None:
        """Record a measurement."""
        self.put("number", name, value=value, unit=unit, **more)


def hardware(device: str) -> dict[str, Any]:
    """Return the names of the machine's parts and of the software that counts."""
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version(), "device": device}
    found["platform"] = f"{platform.system()} {platform.machine()}"
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "bfloat16_datasheet_tflops": datasheet_tflops(properties.name),
        }
    else:
        found["name"] = f"cpu {platform.machine()}"
    return found


def datasheet_tflops(name: str) -> float | None:
    """Return the dense bfloat16 rate of a GPU's data sheet (without sparsity), where it is known here."""
    known = {"H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "4090": 165.2}
    return next((rate for part, rate in known.items() if part in name), None)


def wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def peak_mebibytes(device: str) -> float:
    """Return the most memory that tensors have taken so far: of the GPU, or of the process."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
