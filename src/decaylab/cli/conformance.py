"""``decaylab conformance``: hold any optimizer class to the identities, and name what its lambda means."""

from __future__ import annotations

import ast
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decaylab.cli.console import console as wide_console
from decaylab.cli.json_output import print_json
from decaylab.errors import DecaylabError
from decaylab.references import load

if TYPE_CHECKING:
    from decaylab.conformance import Report


def conformance(
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")],
    /,
    *,
    kwargs: tuple[str, ...] = (),
    convention: str | None = None,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Run identities and golden cases against an optimizer, and say what its weight_decay means or which one broke.

    Exit code 0 when every identity holds, 1 when one broke, 2 when the optimizer cannot be run.

    Args:
        target: An optimizer class, torch.optim.AdamW or package.module:Class, or a function of yours that is called as
            function(params, lr=..., weight_decay=...) and returns an optimizer.
        kwargs: Further arguments of the constructor as key=value, with the value in Python (momentum=0.9).
        convention: What lambda should mean (torch, l2, independent, constant, palm, adamc ...); it is an error of the
            optimizer when it means something else.
        json: Print JSON instead of a table.
    """
    from decaylab.conformance import check

    factory = load(target)
    if not callable(factory):
        raise DecaylabError(f"{target} is a {type(factory).__name__}, not an optimizer class or a function")
    options = dict(_pair(text) for text in kwargs)
    name = target.replace(":", ".") + (f"({', '.join(kwargs)})" if kwargs else "")
    report = check(partial(factory, **options) if options else factory, convention, name=name)
    if json:
        print_json("conformance", report.to_dict())
    else:
        _print(report)
    return 0 if report.conforms else 1


def _pair(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.isidentifier():
        raise DecaylabError(f"--kwargs {text!r} is not of the form key=value")
    if key in ("params", "lr", "weight_decay"):
        raise DecaylabError(f"--kwargs {text!r}: the check sets {key} itself, leave it out")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _print(report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    console = wide_console()
    console.print(Text(report.target, style="bold") + Text(f"  {report.version}" if report.version else ""))
    console.print(Text(report.convention))
    console.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("identity", "", "what was seen"):
        table.add_column(heading, overflow="fold")
    styles = {"holds": "green", "broken": "bold red", "skipped": "dim"}
    for finding in report.findings:
        status = Text(finding.status, style=styles[finding.status])
        table.add_row(finding.identity, status, Text(finding.text, style="dim" if finding.status == "skipped" else ""))
    console.print(table)
    console.print()
    broken = ", ".join(finding.identity for finding in report.broken)
    console.print(Text(f"broken: {broken}" if broken else "conforms", style="bold red" if broken else "bold green"))
