import math

import pytest

from decaylab.experiments.statistics import mean_comparison
from decaylab.reporting import numbers
from decaylab.reporting.forest import picture

BELOW = (-math.inf, 0.0)


def compared(values, claimed=BELOW, unit=""):
    return mean_comparison(dict(enumerate(values)), claimed, name="x", unit=unit)


@pytest.mark.parametrize(
    ("values", "unit", "estimate", "interval"),
    [
        ([-2.0, -2.2, -2.4], "percentage points", "−2.20 percentage points", "−2.70 to −1.70"),
        ([-0.041, -0.043, -0.040], "nats", "−0.0413 nats", "−0.0451 to −0.0375"),
        ([1.0e-6, 1.1e-6, 1.2e-6], "", "1.10 × 10⁻⁶", "0.85 to 1.35 × 10⁻⁶"),
        ([1234.0, 1250.0, 1300.0], "", "1\u202f261", "1\u202f176 to 1\u202f347"),
        ([0.0, 0.0, 0.0], "", "0", "0 to 0"),
        ([1.0], "", "1", "no interval"),
        ([-math.inf] * 6, "nats", "−∞ nats", "−∞ to −∞"),
        ([math.nan], "nats", "– nats", "no interval"),
    ],
)
def test_digits_follow_the_interval(values, unit, estimate, interval):
    comparison = compared(values, unit=unit)
    assert numbers.estimate(comparison) == estimate
    assert numbers.interval(comparison) == interval


def test_no_minus_before_a_zero():
    assert numbers.plain(-0.0) == "0"
    assert numbers.fixed(-0.001) == "0.00"


def coordinates(svg, what):
    import xml.etree.ElementTree as tree

    return [e.attrib for e in tree.fromstring(svg).iter() if e.get("class") == what]


def test_the_picture_shows_the_interval_beside_the_claimed_region():
    svg = picture(compared([-2.0, -2.2, -2.4]))
    (region,), (bar,), (dot,) = (coordinates(svg, c) for c in ("claimed", "interval", "estimate"))
    left, right = float(region["x"]), float(region["x"]) + float(region["width"])
    assert left <= float(bar["x1"]) < float(dot["cx"]) < float(bar["x2"]) < right
    assert len(coordinates(svg, "seed")) == 3


def test_a_picture_of_infinite_ends():
    assert len(coordinates(picture(compared([-1.0])), "interval")) == 3  # the bar and two arrows
    assert picture(compared([math.nan], claimed=(-math.inf, math.inf))) == ""
    assert "<svg" in picture(compared([-math.inf] * 6))
