"""The docs page is what the table and the measured costs say."""

import csv
from pathlib import Path

import pytest

from decaylab.decay.docs_page import page
from decaylab.decay.registry import TABLE

ROOT = Path(__file__).parents[2]
COSTS = ROOT / "results" / "decay_step.csv"


@pytest.mark.skipif(not COSTS.exists(), reason="only in a checkout, where the docs and results are")
def test_the_page_is_up_to_date():
    with COSTS.open(newline="") as file:
        expected = page(list(csv.DictReader(file)))
    message = "write it again: decaylab rules --markdown --costs results/decay_step.csv > docs/rules.md"
    assert (ROOT / "docs" / "rules.md").read_text() == expected, message


@pytest.mark.skipif(not COSTS.exists(), reason="only in a checkout, where the docs and results are")
def test_every_rule_has_its_cost_and_the_kernel_its_target():
    with COSTS.open(newline="") as file:
        ratios = {row["rule"]: float(row["ratio"]) for row in csv.DictReader(file)}
    assert {name.split(" ")[0] for name in ratios} == {name for name, entry in TABLE.items() if entry.use == "attach"}
    assert ratios["decoupled"] <= 1.10


def test_every_rule_has_a_section_with_its_options():
    text = page()
    assert "## Cost" not in text
    for entry in TABLE.values():
        assert f"### {entry.path.split(':')[1]}\n" in text and entry.equation in text
        assert all(f"| `{option.name}` |" in text for option in entry.options)
