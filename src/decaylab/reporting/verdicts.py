"""The verdicts as data: one JSON file with everything, one CSV file with a row a comparison."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from decaylab.csv_cells import cell
from decaylab.experiments.evidence import Comparison, Evidence
from decaylab.experiments.spec import Claim, Experiment

_COLUMNS = (
    "experiment", "version", "budget", "claim", "sentence", "verdict", "comparison", "comparison_verdict", "estimate",
    "low", "high", "confidence", "unit", "claimed_low", "claimed_high", "effect_size", "seeds", "note",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """A claim with the evidence for or against it.

    Attributes:
        experiment: Whose claim it is.
        budget: At which budget it was checked.
        claim: The claim.
        evidence: What its check answered.
    """

    experiment: Experiment
    budget: str
    claim: Claim
    evidence: Evidence


def as_json(rulings: Sequence[Ruling]) -> str:
    """Write rulings as JSON, without anything that is not a number (infinities become strings)."""
    return json.dumps([_ruling(r) for r in rulings], indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(rulings: Sequence[Ruling]) -> str:
    """Write rulings as CSV, one row a comparison; a claim that could not be compared has one row without numbers."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for ruling in rulings:
        head = {
            "experiment": ruling.experiment.id,
            "version": ruling.experiment.version,
            "budget": ruling.budget,
            "claim": ruling.claim.id,
            "sentence": ruling.claim.sentence,
            "verdict": ruling.evidence.verdict.value,
        }
        if not ruling.evidence.comparisons:
            writer.writerow(_cells({**head, "note": ruling.evidence.reason}))
        for c in ruling.evidence.comparisons:
            writer.writerow(_cells({**head, **_row(c)}))
    return out.getvalue()


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    return {name: cell(value) for name, value in row.items()}


def _ruling(ruling: Ruling) -> dict[str, Any]:
    evidence = ruling.evidence
    return {
        "experiment": ruling.experiment.id,
        "version": ruling.experiment.version,
        "paper": ruling.experiment.paper,
        "budget": ruling.budget,
        "claim": ruling.claim.id,
        "sentence": ruling.claim.sentence,
        "verdict": evidence.verdict.value,
        "reason": evidence.reason,
        "rule": evidence.rule,
        "comparisons": [
            {
                "name": c.full_name,
                "verdict": c.verdict.value,
                "estimate": _json(c.estimate),
                "low": _json(c.low),
                "high": _json(c.high),
                "confidence": c.confidence,
                "unit": c.unit,
                "claimed": [_json(v) for v in c.claimed],
                "effect_size": None if c.effect_size is None else _json(c.effect_size),
                "seeds": list(c.seeds),
                "values": [_json(v) for v in c.values],
                "note": c.note,
                "rule": c.rule,
            }
            for c in evidence.comparisons
        ],
    }


def _row(c: Comparison) -> dict[str, Any]:
    return {
        "comparison": c.full_name,
        "comparison_verdict": c.verdict.value,
        "estimate": _digits(c.estimate),
        "low": _digits(c.low),
        "high": _digits(c.high),
        "confidence": c.confidence,
        "unit": c.unit,
        "claimed_low": c.claimed[0],
        "claimed_high": c.claimed[1],
        "effect_size": "" if c.effect_size is None else _digits(c.effect_size),
        "seeds": " ".join(map(str, c.seeds)),
        "note": c.note,
    }


def _json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else value


def _digits(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.8g}"
