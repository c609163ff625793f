"""The page of a search: each chart's data are the answer's, and a legend stands once."""

import re

import pytest
from tests.support import quadratic

from decaylab import tune
from decaylab.tuning import page


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    place = tmp_path_factory.mktemp("study") / "s.journal"
    return tune(quadratic.loss, steps=32_000, lr=1e-3, budget=3, storage=place, say=lambda line: None)


def test_the_band_is_predicted_for_every_length_and_ends_at_the_answer(answer):
    assert [p.steps for p in answer.vertices] == sorted({t.steps for t in answer.trials})[-3:]
    assert answer.band[0].steps == answer.vertices[0].steps and answer.band[-1].steps == answer.steps
    end = answer.band[-1]
    assert end.value == pytest.approx(answer.weight_decay.value, rel=0.1)
    assert (end.low, end.high) == pytest.approx((answer.weight_decay.low, answer.weight_decay.high), rel=0.02)
    for place in (*answer.band, *answer.vertices):  # 3 timescales are best at every length
        assert place.low < 3 / (1e-3 * place.steps) < place.high
    widths = [p.high / p.low for p in answer.band]
    assert widths[-1] > min(widths)  # the farther from the trials, the wider


def test_a_legend_stands_once(answer, tmp_path):
    text = page.write(answer, tmp_path).read_text()
    charts = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        assert chart.count('aria-roledescription="legend"') == 1
    assert charts[0].count(">complete runs of<") == 1 and "predictive band" in text
