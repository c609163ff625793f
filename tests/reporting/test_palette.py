import itertools

import pytest

from decaylab.reporting.palette import NEUTRAL, PLAIN, colours, ramp


def luminance(colour):
    """Relative luminance by the WCAG's formula."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [*PLAIN, NEUTRAL, *ramp(8)])
@pytest.mark.parametrize("paper", ["#ffffff", "#14171a"])
def test_every_colour_shows_on_light_and_dark_paper(colour, paper):
    assert contrast(colour, paper) > 2.0


def deuteranope(colour):
    """Simulate a missing green cone (Viénot, Brettel and Mollon 1999), in linear RGB."""
    r, g, b = ((int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return 0.29275 * r + 0.70725 * g, 0.29275 * r + 0.70725 * g, -0.02234 * r + 0.02234 * g + b


def test_the_first_four_colours_differ_for_a_colour_blind_reader():
    for a, b in itertools.combinations([*PLAIN[:4], NEUTRAL], 2):
        distance = sum((x - y) ** 2 for x, y in zip(deuteranope(a), deuteranope(b), strict=True)) ** 0.5
        assert distance > 0.1, (a, b)


def test_a_decay_has_one_colour_in_every_figure():
    first = colours("wd", ["0", "0.1", "0.05"], everywhere=["0", "0.1", "0.05", "0.02"])
    second = colours("wd", ["0.02", "0.05", "none"], everywhere=["0", "0.1", "0.05", "0.02"])
    assert first["0.05"] == second["0.05"]
    assert first["0"] == second["none"] == NEUTRAL
    assert len({*first.values(), *second.values()}) == 4


def test_rates_go_along_the_ramp():
    found = colours("lr", ["0.1", "0.001", "0.01"])
    assert [found["0.001"], found["0.01"], found["0.1"]] == ramp(3)
    assert list(found) == ["0.1", "0.001", "0.01"]
    assert colours("lr", ["small", "large"]) == {"small": PLAIN[1], "large": PLAIN[0]}


def test_ramp_and_plain_of_any_length():
    assert ramp(1) == [ramp(2)[0]] and ramp(0) == []
    assert len(colours("plain", map(str, range(11)))) == 11
    assert list(colours("ordered", ["a", "b"]).values()) == ramp(2)
