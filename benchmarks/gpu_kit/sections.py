"""The sections of the kit: which there are, how long each may take, and how one runs in a process of its own."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from gpu_kit.record import Record, hardware


@dataclass(frozen=True)
class Section:
    """A part of the kit.

    Attributes:
        name: What the command line and the results call it.
        function: Its module in this package and the function there, which takes an `Environment`.
        seconds: It is stopped after so many.
        timed: Whether it measures time, so that nothing else may run beside it.
        needs_peer: Whether it runs the authors' script.
    """

    name: str
    function: str
    seconds: float
    timed: bool = False
    needs_peer: bool = False


_ALL = (
    Section("rules", "rules:check", 170),
    Section("more-rules", "rules:check_more", 170),
    Section("training", "training:check", 170),
    Section("curvature", "curvature:check", 170),
    Section("parallel", "parallel:check", 170),
    Section("commands", "commands:check", 170),
    Section("compile-256", "language:prepare_256", 170),
    Section("compile-1024", "language:prepare_1024", 170),
    Section("compile-peer-256", "language:prepare_peer_256", 150, needs_peer=True),
    Section("compile-peer-1024", "language:prepare_peer_1024", 150, needs_peer=True),
    Section("language-256", "language:measure_256", 100, timed=True),
    Section("peer-256", "language:measure_peer_256", 100, timed=True, needs_peer=True),
    Section("rule-cost", "rule_cost:measure", 60, timed=True),
    Section("language-1024", "language:measure_1024", 100, timed=True),
    Section("peer-1024", "language:measure_peer_1024", 100, timed=True, needs_peer=True),
    Section("watch-cost", "watching:measure", 60, timed=True),
    Section("ddp-cost", "parallel:measure", 80, timed=True),
    Section("curvature-cost", "curvature:measure", 90, timed=True),
    Section("gpu-hour", "gpu_hour:measure", 80, timed=True),
)
SECTIONS = {section.name: section for section in _ALL}


@dataclass(frozen=True)
class Environment:
    """What a section gets.

    Attributes:
        record: Where it puts what it finds.
        device: ``cuda`` or ``cpu``.
        smoke: Whether to walk through in seconds instead of measuring.
        scratch: A folder, the same for all sections of a command.
        peer: Folder of the authors' script, if there is one.
    """

    record: Record
    device: str
    smoke: bool
    scratch: Path
    peer: Path | None


def run(name: str, size: str, device: str, scratch: Path, peer: Path | None) -> int:
    """Run one section in this process."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here: --size smoke --device cpu walks through without one")
    record = Record(scratch / f"{name}.jsonl")
    record.put("hardware", "hardware", value=hardware(device))
    module, function = SECTIONS[name].function.split(":")
    if not SECTIONS[name].timed:
        torch.set_num_threads(2)  # many of them run at once
    environment = Environment(record, device, size == "smoke", scratch, peer)
    getattr(importlib.import_module(f"gpu_kit.{module}"), function)(environment)
    return 0
