import pandas as pd
import pytest

from decaylab.csv_cells import cell, cells


@pytest.mark.parametrize("text", ["=1+1", "+cmd|'/C calc'!A0", "-x", "@SUM(A1)", "\t=1", "\r=1"])
def test_text_that_a_spreadsheet_would_carry_out_gets_an_apostrophe(text):
    assert cell(text).startswith("'") and text.strip() in cell(text)


@pytest.mark.parametrize("value", ["-0.5", "+1e-3", "-inf", "-0.1 +0.2", "a=b", "", "-", -0.5, 3, None, True])
def test_numbers_and_other_text_stay(value):
    assert cell(value) == value


def test_control_characters_are_spelled():
    assert cell("a\x1b[31m\x00\x9b\u202eb\n\tc") == "a\\x1b[31m\\x00\\x9b\\u202eb\n\tc"


def test_a_whole_table():
    table = pd.DataFrame({"=a": ["=x", None], "b": [-1, 2], "c": pd.Series(["-y", "1"], dtype="str")})
    safe = cells(table)
    assert list(safe.columns) == ["'=a", "b", "c"]
    assert safe["'=a"].tolist()[0] == "'=x" and safe["'=a"].isna().tolist() == [False, True]
    assert safe["b"].tolist() == [-1, 2] and safe["c"].tolist() == ["'-y", "1"]
    assert table["c"].tolist() == ["-y", "1"]  # its own
