"""What the README says is what the project does: its table, its tree and its code."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_experiments_is_that_of_the_results():
    lines = runpy.run_path(str(ROOT / "results" / "table.py"))["rows"]()
    page = (ROOT / "docs" / "results.md").read_text()
    assert "\n".join(lines) in page, "run `python results/table.py` and put its table into docs/results.md"


def test_the_readme_is_short():
    assert len(README.encode()) < 10_240


def test_the_rooms_are_those_of_the_package():
    lines = runpy.run_path(str(ROOT / "docs" / "tree.py"))["lines"]()
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert "\n".join(lines) in page, "run `python docs/tree.py` and put its rows into docs/architecture.md"


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.S))
def test_the_code_runs(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
