"""``decaylab compare``: runs that exist, compared seed by seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import tyro

from decaylab.cli.json_output import print_json
from decaylab.cli.paired_table import print_table
from decaylab.config.identity import from_dict
from decaylab.errors import DecaylabError
from decaylab.experiments.config_tables import differing, text
from decaylab.experiments.paired import Setting
from decaylab.experiments.paired import compare as compare_settings
from decaylab.experiments.quantity import final
from decaylab.experiments.results import Results
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.sweep import labels
from decaylab.store.run_ids import whole_id
from decaylab.store.store import Store

_METRICS = {"vision": "test/error", "language": "val/loss"}
_PER_SEED = ("seed", "init_from.run", "decay.norms_from")


@dataclass(frozen=True, kw_only=True)
class _Stored(RunSpec):
    """A run under the id that it has in its store, whichever version of decaylab gave it that."""

    stored: str

    @cached_property
    def id(self) -> str:
        return self.stored


def compare(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional],
    metric: str | None = None,
    highest: bool = False,
    margin: float | None = None,
    store: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Compare runs of a store: those that differ in nothing but the seed are one setting, and differences are paired.

    Args:
        runs: Ids, or the first characters of them; the first one's setting is what the others are compared with.
        metric: What is compared at the end of the runs. Default: val/loss, or test/error of vision.
        highest: High values of the metric are good.
        margin: Differences within so much of 0 make two settings alike.
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: that of DECAYLAB_STORE, or runs.db in
            the platform's data folder.
        as_json: Print JSON.
    """
    if len(runs) < 2:
        raise DecaylabError("name two runs or more; `decaylab runs` lists them")
    with Store(store, read_only=True) as database:
        there = [row.id for row in database.rows()]
        rows = database.rows([whole_id(name, there) for name in runs])
        kinds = {row.kind for row in rows}
        if len(kinds) > 1:
            raise DecaylabError(f"these are runs of several kinds ({', '.join(sorted(kinds))}): compare those of one")
        if not kinds <= set(_METRICS):
            raise DecaylabError("only vision and language runs are compared")
        varied = {
            path: values
            for path, values in differing([{"kind": row.kind, **row.config} for row in rows]).items()
            if path not in _PER_SEED
        }
        names = labels(varied)
        settings: dict[str, dict[Label, str]] = {}
        specs = []
        for number, row in enumerate(rows):
            own = {names[path]: text(values[number]) for path, values in varied.items()}
            name = next(iter(own.values())) if len(own) == 1 else " with ".join(f"{p} {v}" for p, v in own.items())
            seed = int(row.config.get("seed", 0))
            settings.setdefault(name, {})[seed] = row.id
            specs.append(_Stored(config=from_dict(row.config), labels={"seed": seed}, stored=row.id))
        if len(settings) < 2:
            raise DecaylabError("these runs differ in nothing but the seed: there is nothing to compare")
        chosen = metric or _METRICS[next(iter(kinds))]
        if chosen not in set(database.keys()):
            raise DecaylabError(f"--metric {chosen} was not recorded in this store")
        results = Results.from_store(specs, database, budget="mini")
        table = compare_settings(
            results,
            final(chosen),
            [Setting(name=name, runs=own) for name, own in settings.items()],
            margin=margin,
            highest=highest,
            what=next(iter(varied)) if len(varied) == 1 else "",
        )
    if as_json:
        content = {"metric": chosen, "baseline": table.baseline, "rows": table.to_dicts(), "answer": table.sentence}
        print_json("compare", content)
    else:
        print_table(table)
