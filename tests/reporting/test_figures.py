import altair as alt
import pytest
from tests.support.report_sample import items

from decaylab.reporting import figures, legend
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


def _domain(figure, panel=0):
    layers = figures.page_views(figure)[panel]["layer"]
    return next(layer["encoding"]["y"]["scale"]["domain"] for layer in layers if "encoding" in layer)


@pytest.mark.parametrize("name", ["error", "loss", "final", "by-rate"])
def test_the_axis_contains_both_ends_of_every_interval(made, name):
    figure = made["vision", name]
    assert figure.points["low"].notna().any()
    low, high = _domain(figure)
    assert low <= figure.points["low"].min() and figure.points["high"].max() <= high


def test_a_difference_whose_least_mean_is_zero_shows_that_its_interval_covers_zero(made):
    figure = made["vision", "error"]
    lowest = figure.points["y"].min()
    points = figure.points.assign(y=figure.points["y"] - lowest, low=-0.028, high=0.065)
    assert _domain(Figure(chart=figure.chart, points=points, colours=figure.colours))[0] <= -0.028


def test_on_a_logarithmic_axis_a_point_without_an_interval_is_shown_too(made):
    figure = made["vision", "loss"]
    points = figure.points.copy()
    points.loc[0, ["y", "low", "high"]] = [points["low"].min() / 10, float("nan"), float("nan")]
    assert _domain(Figure(chart=figure.chart, points=points, colours=figure.colours))[0] == points.loc[0, "y"]


def _marks(figure):
    layers = [layer for layer in figures.page_views(figure)[0]["layer"] if "shape" in layer.get("encoding", {})]
    return [layer["encoding"]["shape"] for layer in layers]


def test_what_a_colour_says_a_mark_says_too(made):
    (shape,) = _marks(made["vision", "error"])
    assert shape["field"] == "color" and len(set(shape["scale"]["range"])) == 4
    assert shape["scale"]["domain"] == list(made["vision", "error"].colours)
    assert _marks(made["vision", "by-rate"])  # points too; bars stand in the order of their legend
    assert not _marks(made["vision", "final"])


def test_a_long_curve_bears_a_few_marks_at_places_of_its_own(made):
    figure = made["language", "loss"]
    points = legend.with_marks(figure.points, figure)
    places = {colour: set(own.loc[own["marked"] == 1, "x"]) for colour, own in points.groupby("color")}
    assert all(3 <= len(own) <= 6 for own in places.values())
    assert len(set.union(*places.values())) == sum(map(len, places.values()))


def test_the_title_can_be_left_out_of_the_drawing(made):
    assert "title" in figures.static_view(made["vision", "loss"])
    assert "title" not in figures.static_view(made["vision", "loss"], title=False)


def test_bars_begin_at_zero(made):
    assert figures.page_views(made["vision", "final"])[0]["layer"][0]["encoding"]["y"]["scale"]["domain"][0] == 0.0
