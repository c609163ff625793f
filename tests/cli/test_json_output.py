"""JSON of every command: one object with its schema, the documented fields, nothing that JSON has not."""

import inspect
import json
from pathlib import Path

import pytest

from decaylab.cli import COMMANDS, main
from decaylab.cli.json_output import SCHEMAS, markdown, print_json
from decaylab.references import load

DOCS = Path(__file__).parents[2] / "docs"
CALLS = {
    "advise": ["--params", "124M", "--tokens", "3B", "--seq-len", "1024", "--batch-size", "512", "--lr", "6e-4"],
    "audit": ["resnet_small"],
    "conformance": ["torch.optim:SGD"],
    "data": ["list"],
    "explain": ["--lr", "1e-3", "--weight-decay", "0.1", "--steps", "100"],
    "glossary": [],
    "list": [],
    "probes": [],
    "rules": [],
    "runs": [],
    "show": ["fig1", "--budget", "smoke"],
}
ELSEWHERE = {"compare", "judge", "probe", "sweep", "tune", "doctor"}  # tested with their commands


@pytest.mark.parametrize("name", sorted(set(SCHEMAS) - ELSEWHERE))
def test_what_is_printed_is_what_is_documented(name, capsys):
    main(["probe" if name == "probes" else name, *CALLS[name], "--json"])
    said = json.loads(capsys.readouterr().out, parse_constant=lambda constant: pytest.fail(constant))
    version, fields = SCHEMAS[name]
    assert next(iter(said)) == "schema" and said["schema"] == f"decaylab.{name}/{version}"
    if "*" not in fields:
        assert set(said) == {"schema", *fields}


def test_every_command_with_json_has_a_schema():
    for name, (target, _) in COMMANDS.items():
        command = load(target)
        if any(part in inspect.signature(command).parameters for part in ("json", "as_json")):
            assert name in SCHEMAS or name in ELSEWHERE, name


def test_the_pages_are_those_of_the_docs(capsys):
    assert (DOCS / "json.md").read_text() == markdown()
    assert main(["glossary", "--markdown"]) == 0
    assert (DOCS / "glossary.md").read_text() == capsys.readouterr().out


def test_numbers_that_json_has_not_are_null(capsys):
    print_json("probe", {"measured": {"a": float("nan"), "b": (float("inf"), 1.0)}})
    assert json.loads(capsys.readouterr().out)["measured"] == {"a": None, "b": [None, 1.0]}
