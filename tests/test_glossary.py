import json

import pytest

from decaylab.cli import main
from decaylab.glossary import GLOSSARY, find


def test_no_form_stands_for_two_terms():
    forms = [form.lower() for term in GLOSSARY for form in (term.name, *term.forms)]
    assert len(forms) == len(set(forms))
    assert [term.name.lower() for term in GLOSSARY] == sorted(term.name.lower() for term in GLOSSARY)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("the gap in nats", ["gap", "nats"]),
        ("Effective LR and the trace of the Hessian", ["effective learning rate", "Hessian trace"]),
        ("stopgap, seedling, g", []),
        ("decoupled weight decay, not decoupled-ish", ["decoupled weight decay"]),
    ],
)
def test_terms_are_found_as_whole_words(text, names):
    assert [term.name for _, _, term in find(text)] == names


def test_one_term_by_any_of_its_forms(capsys):
    assert main(["glossary", "SWA"]) == 0
    assert capsys.readouterr().out.startswith("uniform average (SWA")
    assert main(["glossary", "timescal"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["glossary", "gap", "--json"]) == 0
    assert [term["name"] for term in json.loads(capsys.readouterr().out)["terms"]] == ["gap"]
