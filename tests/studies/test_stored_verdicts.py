"""The stored verdicts follow from the stored values: what is written beside a figure is what its rule gives today."""

import json
import math
from pathlib import Path

import pytest

from decaylab.experiments.statistics import mean_comparison, median_interval

STORED = json.loads((Path(__file__).parents[2] / "results" / "mini" / "verdicts.json").read_text())
COMPARISONS = [(ruling["claim"], c) for ruling in STORED for c in ruling["comparisons"]]


def _numbers(values):
    return [float(v) if v is not None else math.nan for v in values]


@pytest.mark.parametrize("kind", ["Mean over seeds with a t interval", "Median over seeds"])
def test_stored_intervals_are_those_of_today(kind):
    chosen = [c for _, c in COMPARISONS if c["rule"].startswith(kind) and c["verdict"] != "not testable at this budget"]
    assert chosen
    for stored in chosen:
        values = _numbers(stored["values"])
        found = mean_comparison(
            dict(enumerate(values)), tuple(_numbers(stored["claimed"])), name="", confidence=stored["confidence"]
        )
        assert found.verdict.value == stored["verdict"], stored["name"]
        for side in ("estimate", "low", "high"):
            assert getattr(found, side) == pytest.approx(float(stored[side]), rel=1e-12), stored["name"]
            assert f"{getattr(found, side):.8g}" == f"{float(stored[side]):.8g}"
    assert median_interval([1.0] * 6)[1] == 1.0
