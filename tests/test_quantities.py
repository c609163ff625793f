"""Sizes as people write them: exact values, round trips, and one clear line for a mistake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaylab.errors import DecaylabError
from decaylab.quantities import format_count, format_number, parse_count, parse_steps, rounding

GOOD = {
    "124M": 124_000_000,
    "124m": 124_000_000,
    "3.26B": 3_260_000_000,
    "3.26 B": 3_260_000_000,
    "1e9": 10**9,
    "1.5E+3": 1500,
    "2^19": 524_288,
    "2**10": 1024,
    "3,260,252,160": 3_260_252_160,
    "3_260_252_160": 3_260_252_160,
    "3260252160 tokens": 3_260_252_160,
    "3.26B token": 3_260_000_000,
    "12K": 12_000,
    "2T": 2 * 10**12,
    "0.5K": 500,
    ".5M": 500_000,
    "1E": 10**18,
    "33165": 33_165,
    " 7 ": 7,
}


@pytest.mark.parametrize("text", GOOD)
def test_reads(text):
    assert parse_count(text, "--tokens", "tokens") == GOOD[text]


def test_reads_numbers_too():
    assert parse_count(33165, "steps") == 33165
    assert parse_count(1e9, "tokens") == 10**9


BAD = {
    "": "number such as",
    "many": "number such as",
    "-3": "at least 1, got '-3'",
    "-3.26B": "at least 1",
    "--3": "number such as",
    "-x": "number such as",
    "nan": "number such as",
    "inf": "number such as",
    "0": "at least 1",
    "0M": "at least 1",
    "1.5": "whole number",
    "1e-3": "whole number",
    "124MB": "number such as",
    "12x": "unknown suffix",
    "3,26B": "comma groups thousands",
    "3,26": "comma groups thousands",
    "1e99": "out of any range",
    "9^999": "out of any range",
    "3183840 sequences": "counted in tokens",
    "1 000": "number such as",
}


@pytest.mark.parametrize("text", BAD)
def test_a_mistake_gets_one_clear_line(text):
    with pytest.raises(DecaylabError, match=BAD[text]) as error:
        parse_count(text, "--tokens", "tokens")
    assert "--tokens" in str(error.value) and "\n" not in str(error.value)


def test_a_unit_where_there_is_none():
    with pytest.raises(DecaylabError, match="has no unit"):
        parse_count("96 tokens", "--params")


@given(st.integers(1, 10**18))
def test_whole_numbers_survive(number):
    assert parse_count(str(number), "n") == parse_count(f"{number:,}", "n") == parse_count(f"{number}e0", "n") == number


@given(st.integers(1, 999), st.sampled_from("KMBT"))
def test_short_forms_survive(number, suffix):
    count = parse_count(f"{number}{suffix}", "n")
    assert count == number * 1000 ** (" KMBT".index(suffix))
    if suffix in "MBT":
        assert format_count(count) == f"{number}{suffix}"


def test_steps_or_a_share_of_the_run():
    assert parse_steps("400", "--warmup", 50_000) == 400
    assert parse_steps("2%", "--warmup", 50_000) == 1000
    assert parse_steps("2.5 %", "--warmup", 1000) == 25
    assert parse_steps("0", "--warmup", 1000) == parse_steps("0%", "--warmup", 1000) == 0
    for text in ("-1%", "-5"):
        with pytest.raises(DecaylabError, match="--warmup must be at least 0"):
            parse_steps(text, "--warmup", 1000)
    for text in ("101%", "x%", "2.5", "10 epochs"):
        with pytest.raises(DecaylabError, match="--warmup"):
            parse_steps(text, "--warmup", 1000)


def test_rounding_of_what_was_written():
    assert rounding("3.26B") == pytest.approx(0.005 / 3.26)
    assert rounding("124M") == pytest.approx(0.5 / 124)
    assert rounding("1e9") == rounding("1B") == rounding(".5M") == 0.05  # not 50 %: 1B is no half a billion
    assert rounding("3260252160") == rounding("2^19") == rounding(33165) == 0.0


def test_formats():
    assert format_count(33165) == "33,165"
    assert format_count(3_260_252_160) == "3.26B"
    assert format_count(999_999_999) == "1B"
    assert format_count(1_000_000) == "1M"
    assert format_count(2.03e18) == "2.03e18"
    assert format_count(269.4) == "269"
    assert format_number(0.337240) == "0.3372"
    assert format_number(4e-4) == "4e-4"
    assert format_number(0.001) == "0.001"
    assert format_number(25000.0) == "25,000"
    assert format_number(123456.7) == "123,500"
    assert format_number(0.99995, 4) == "0.9999" or format_number(0.99995, 4) == "1"
    assert format_number(0) == "0"
    assert format_number(-0.25) == "-0.25"
    assert format_number(5.0e18) == "5e18"


@given(st.floats(1e-12, 1e12), st.integers(3, 12))
def test_formatted_numbers_read_back(number, digits):
    assert float(format_number(number, digits).replace(",", "")) == pytest.approx(number, rel=10.0 ** (1 - digits))
