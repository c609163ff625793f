"""Identity of a run: its settings as JSON and back, and the id that hashes them."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import replace
from typing import Any

from decaylab.config.schema import KINDS, AnyRun, LanguageRun, VisionRun, kind
from decaylab.config.validation import check
from decaylab.errors import DecaylabError, shown
from decaylab.schedules import Schedule
from decaylab.serialization import changes, decode, encode

# Raise it when a default, or the meaning of a setting, changes: every run id changes with it.
FORMAT = 1


# Kind, final_ratio and final_lr of a schedule that is one to a tenth without saying so.
_TO_A_TENTH = ("cosine", None, None)


def to_dict(config: AnyRun) -> dict[str, Any]:
    """Return the whole configuration as nested JSON, with its kind and the format's number first."""
    return {"kind": kind(config), "format": FORMAT, **encode(config)}


def from_dict(content: dict[str, Any]) -> AnyRun:
    """Read what ``to_dict`` wrote; settings that are left out take their defaults.

    Raises:
        DecaylabError: An unknown kind, key or value, or a combination that cannot be trained.
    """
    content = dict(content)
    name = content.pop("kind", None)
    if not isinstance(name, str) or name not in KINDS:
        raise DecaylabError(f'a run needs "kind": "vision" or "language", not {shown(name)}')
    written = content.pop("format", FORMAT)
    if written != FORMAT:
        raise DecaylabError(f"this run was written in format {shown(written)}; this version reads format {FORMAT}")
    config = decode(KINDS[name], content)
    check(config)
    return config


def run_id(config: AnyRun) -> str:
    """Return the run's id: 16 hexadecimal digits of a hash of everything that differs from the defaults."""
    schedule = config.schedule
    if isinstance(config, LanguageRun) and (schedule.kind, schedule.final_ratio, schedule.final_lr) == _TO_A_TENTH:
        config = replace(config, schedule=replace(schedule, final_ratio=0.1))  # the same run, spelled out
    content = {"kind": kind(config), "format": FORMAT, **changes(config, _defaults(kind(config)))}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def _defaults(name: str) -> AnyRun:
    """Return what ids are told apart from: language runs once had the cosine's final ratio in their defaults."""
    spelled_out = Schedule(kind="cosine", warmup_steps=400, final_ratio=0.1)
    return VisionRun() if name == "vision" else LanguageRun(schedule=spelled_out)
