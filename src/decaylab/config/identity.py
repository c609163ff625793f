"""Identity of a run: its settings as JSON and back, and the id that hashes them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from decaylab.config.schema import FOLDER, FOREIGN, KINDS, AnyRun, LanguageRun, VisionRun, kind
from decaylab.config.validation import check
from decaylab.errors import DecaylabError, shown
from decaylab.references import file_reference
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
    """Return the run's id: 16 hexadecimal digits of a hash of everything that differs from the defaults.

    Of files whose digests are known (`decaylab.train.preflight.inputs.with_content`), the content counts, not the path.
    """
    schedule = config.schedule
    if isinstance(config, LanguageRun) and (schedule.kind, schedule.final_ratio, schedule.final_lr) == _TO_A_TENTH:
        config = replace(config, schedule=replace(schedule, final_ratio=0.1))  # the same run, spelled out
    if isinstance(config, LanguageRun):
        config = _by_content(config)
    if config.code_sha256 is not None:
        config = map_references(config, file_reference)  # whose content is known: its folder does not matter
    content = {"kind": kind(config), "format": FORMAT, **changes(config, _defaults(kind(config)))}
    if config.init_from is not None and config.init_from.sha256 is None:
        del content["init_from"]["sha256"]  # a later setting: ids of earlier runs do not know it
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def map_references(config: AnyRun, change: Callable[[str], str]) -> AnyRun:
    """Return a run's settings with every name of a component changed, which a reference to one of the user's may be."""
    names, curvature = (tuple(map(change, own)) for own in (config.probes.names, config.probes.curvature))
    config = replace(
        config,
        decay=replace(config.decay, rule=change(config.decay.rule)),
        optimizer=replace(config.optimizer, name=change(config.optimizer.name)),
        probes=replace(config.probes, names=names, curvature=curvature),
    )
    if isinstance(config, LanguageRun):
        corpus = config.data.corpus
        data = config.data if corpus.startswith(FOLDER) else replace(config.data, corpus=change(corpus))
        model = replace(config.model, architecture=change(config.model.architecture))
        return replace(config, model=model, data=data)
    return replace(
        config,
        model=replace(config.model, architecture=change(config.model.architecture)),
        data=replace(config.data, dataset=change(config.data.dataset)),
    )


def _by_content(config: LanguageRun) -> LanguageRun:
    """Leave out the paths of files whose content is known: where it lies does not matter."""
    data, evaluation, origin = config.data, config.evaluation, config.init_from
    if data.sha256 is not None:
        data = replace(data, corpus=FOLDER)
    if evaluation.text_sha256 is not None:
        evaluation = replace(evaluation, text_file=None)
    if origin is not None and origin.sha256 is not None:
        origin = replace(origin, run=FOREIGN)
    return replace(config, data=data, evaluation=evaluation, init_from=origin)


@functools.cache
def _defaults(name: str) -> AnyRun:
    """Return what ids are told apart from: language runs once had the cosine's final ratio in their defaults."""
    spelled_out = Schedule(kind="cosine", warmup_steps=400, final_ratio=0.1)
    return VisionRun() if name == "vision" else LanguageRun(schedule=spelled_out)
