"""What a run was trained on: versions, processor, GPU, commit; nothing that names a person or a machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import decaylab

PACKAGES = ("torch", "numpy", "pandas", "transformers", "tokenizers", "safetensors")


def describe(device: str = "cpu", threads: int | None = None) -> dict[str, str | int]:
    """Describe the software and hardware of this process.

    Args:
        device: The device that trains. A GPU is named only where torch is imported already.
        threads: Number of threads that train, when known.

    Returns:
        A flat mapping: decaylab, commit (empty outside a checkout, ``-dirty`` when it has changes), python, platform,
        cpu, cores, device, gpu, threads and the version of each installed package that matters.
    """
    found: dict[str, str | int] = {
        "decaylab": decaylab.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": _platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "device": device,
        "gpu": _gpu(device),
    }
    if threads is not None:
        found["threads"] = threads
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """Return the number of cores this process may use: its affinity and its control group's quota, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return count


@cache
def commit() -> str:
    """Return the git commit of the running source, empty when it was installed from a package."""
    folder = Path(decaylab.__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # A virtual environment may lie inside another project's checkout: that commit would say nothing.
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _platform() -> str:
    # The release's suffix is its builder's choice and may name a machine; its number is enough.
    release = platform.release().split("-")[0]
    return " ".join(filter(None, (platform.system(), release, platform.machine(), "".join(platform.libc_ver()))))


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu(device: str) -> str:
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_available():
        return ""
    return str(torch.cuda.get_device_name(device))
