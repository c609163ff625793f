"""The first characters of an id are enough."""

import pytest

from decaylab.errors import DecaylabError
from decaylab.store.run_ids import whole_id

KNOWN = ["aa11", "ab22", "b3", "b34"]


@pytest.mark.parametrize(("name", "whole"), [("aa", "aa11"), ("ab22", "ab22"), ("b3", "b3"), ("b34", "b34")])
def test_a_beginning_that_only_one_has(name, whole):
    assert whole_id(name, KNOWN) == whole


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a", "'a' is the beginning of 2 runs: aa11, ab22; say more of the id"),
        ("aa12", "unknown run 'aa12'; did you mean 'aa11'"),
    ],
)
def test_any_other_beginning_is_one_line(name, said):
    with pytest.raises(DecaylabError, match=said):
        whole_id(name, KNOWN)


def test_of_many_candidates_a_few_are_shown():
    with pytest.raises(DecaylabError, match="12 runs: r00, r01, r02, r03 and 8 more;"):
        whole_id("r", [f"r{i:02}" for i in range(12)])
