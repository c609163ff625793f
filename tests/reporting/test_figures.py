import altair as alt
import pytest
from tests.support.report_sample import items

from decaylab.reporting import figures
from decaylab.reporting.aggregate import drawn
from decaylab.reporting.figure import Figure
from decaylab.reporting.palette import colours

CHARTS = [(experiment.id, chart.id) for experiment, _ in items() for chart in experiment.charts]


@pytest.fixture(scope="module")
def made():
    found = {}
    for experiment, results in items():
        for chart in experiment.charts:
            points = drawn(chart, results)
            rules = tuple(chart.rules(results)) if chart.rules else ()
            palette = colours(chart.palette, points["color"])
            found[experiment.id, chart.id] = Figure(chart=chart, points=points, colours=palette, rules=rules)
    return found


@pytest.mark.parametrize("name", [name for name in CHARTS if name[1] != "nothing"], ids="-".join)
def test_specifications_are_valid_vega_lite(made, name):
    alt.Chart.from_dict(figures.page_views(made[name])[0], validate=True)


def test_the_drawing_is_valid_vega_lite(made):
    alt.Chart.from_dict(figures.static_view(made["vision", "error"]), validate=True)


def test_small_multiples_share_one_axis_and_one_legend(made):
    views = figures.page_views(made["vision", "error"])
    assert len(views) == 2
    domains = [layer["encoding"]["y"]["scale"] for view in views for layer in view["layer"] if "encoding" in layer]
    assert all(domain == domains[0] for domain in domains)
    assert all(
        layer["encoding"]["color"]["legend"] is None for view in views for layer in view["layer"] if "encoding" in layer
    )
    assert {p["name"] for p in views[0]["params"]} >= {"pickedColor", "pickedDash"}


def test_numbers_are_in_the_view_once(made):
    view = figures.page_views(made["language", "loss"])[0]
    assert "http" not in str(view)
    assert all("data" not in layer for layer in view["layer"])
    lines = view["data"]["values"].splitlines()
    assert 600 < len(lines) < 1300  # three curves of 2,000 points, thinned


def test_an_interval_far_beyond_the_curves_does_not_squeeze_them(made):
    figure = made["vision", "error"]
    points = figure.points.assign(low=figure.points["low"] - 1000.0, high=figure.points["high"] + 1000.0)
    wide = Figure(chart=figure.chart, points=points, colours=figure.colours)
    scale = figures.page_views(wide)[0]["layer"][0]["encoding"]["y"]["scale"]
    assert 0.0 <= scale["domain"][0] < figure.points["y"].min()
    assert figure.points["y"].max() < scale["domain"][1] < 70


def test_bars_begin_at_zero(made):
    assert figures.page_views(made["vision", "final"])[0]["layer"][0]["encoding"]["y"]["scale"]["domain"][0] == 0.0
