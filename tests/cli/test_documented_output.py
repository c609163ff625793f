"""The commands shown in the documentation on weight decay print today what the pages say."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from decaylab.cli import main
from decaylab.conventions import CONVENTIONS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("lambda.md", "advice.md")
BLOCK = re.compile(r"```console\n\$ decaylab (?P<command>[^\n]+)\n(?P<output>.*?)```", re.DOTALL)
COMMANDS = [
    (page, block["command"], block["output"]) for page in PAGES for block in BLOCK.finditer((DOCS / page).read_text())
]


def _lines(text):
    return [line.rstrip() for line in text.strip("\n").splitlines()]


@pytest.mark.parametrize(("page", "command", "output"), COMMANDS, ids=[command for _, command, _ in COMMANDS])
def test_output_is_current(page, command, output, monkeypatch, capsys):
    """To renew a block: run its command in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    main(shlex.split(command))
    printed = capsys.readouterr()
    assert _lines(printed.out + printed.err) == _lines(output)


def test_pages_show_commands():
    assert {page for page, _, _ in COMMANDS} == set(PAGES)


def test_python_examples():
    failed, attempted = doctest.testfile(str(DOCS / "lambda.md"), module_relative=False)
    assert attempted == 4 and failed == 0


def test_every_convention_is_on_the_page():
    page = (DOCS / "lambda.md").read_text()
    for convention in CONVENTIONS.values():
        assert convention.equation in page
