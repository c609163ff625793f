"""``decaylab glossary``: what a term means, as the report and the docs use it."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from decaylab.cli.json_output import print_json
from decaylab.errors import unknown
from decaylab.glossary import GLOSSARY
from decaylab.glossary import markdown as page


def glossary(
    term: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[TERM]", help_behavior_hint="")] = None,
    markdown: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False,
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Say what a term means, or all of them.

    Args:
        term: Only this one.
        markdown: Print the page of the docs.
        as_json: Print JSON.
    """
    by_form = {form.lower(): entry for entry in GLOSSARY for form in (entry.name, *entry.forms)}
    if term is not None and term.lower() not in by_form:
        raise unknown("term", term, by_form)
    chosen = GLOSSARY if term is None else (by_form[term.lower()],)
    if markdown:
        print(page(), end="")
    elif as_json:
        print_json("glossary", {"terms": [dataclasses.asdict(entry) for entry in chosen]})
    else:
        for entry in chosen:
            also = f" ({', '.join(entry.forms)})" if entry.forms else ""
            print(f"{entry.name}{also}\n  {entry.text}")
