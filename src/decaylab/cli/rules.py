"""``decaylab rules``: every decay rule, what it does, what it costs and where it comes from."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from decaylab.cli.console import console
from decaylab.cli.json_output import print_json
from decaylab.decay.docs_page import page
from decaylab.decay.registry import TABLE, Entry, find
from decaylab.errors import DecaylabError
from decaylab.references import plugins


def rules(
    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]", help_behavior_hint="")] = None,
    markdown: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False,
    costs: Annotated[Path | None, tyro.conf.arg(metavar="CSV", help_behavior_hint="")] = None,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False,
) -> None:
    """List the decay rules, or show one with its options.

    Args:
        name: Only this rule, in full: its name, one under which it was published (AdamC, CWD, SPD, L2-SP, ...), or one
            of your own, as package.module:Class or path/to/file.py:Class.
        markdown: Print the page of the docs.
        costs: With --markdown: ratios that benchmarks/decay_step.py wrote with --out.
        json: Print everything as JSON.
    """
    chosen = list(TABLE.values()) if name is None else [find(name)]
    if markdown:
        print(page(_read(costs) if costs is not None else ()), end="")
    elif json:
        print_json("rules", {"rules": [dataclasses.asdict(entry) | {"aliases": entry.aliases} for entry in chosen]})
    elif name is None:
        _overview(chosen)
    else:
        _one(chosen[0])


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DecaylabError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error):
        rows = []
    if not rows or set(rows[0]) != {"rule", "ratio", "step_ms", "torch_ms"}:
        raise DecaylabError(f"{path} is not a table of costs: write it with benchmarks/decay_step.py --out {path}")
    return rows


def _overview(entries: list[Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="bold", show_edge=False)
    for title in ("rule", "equation", "for", "memory", "paper"):
        table.add_column(title, overflow="fold")
    family = ""
    for entry in entries:
        if entry.family != family:
            family = entry.family
            table.add_row(Text(family, style="bold"))
        columns = (entry.name, entry.equation, entry.applies_to, entry.memory, entry.paper)
        table.add_row(*(Text(column) for column in columns))
    if offered := plugins("rule"):
        table.add_row(Text("plugins", style="bold"))
        for name, path in offered.items():
            table.add_row(Text(name), Text(path))
    console().print(table)
    print("\ndecaylab rules NAME shows a rule with its options; published names such as AdamC or L2-SP are known too.")


def _one(entry: Entry) -> None:
    print(f"{entry.name}  ({entry.path.replace(':', '.')})")
    print(f"  {entry.text}\n")
    rows = [
        ("also", ", ".join(entry.aliases) or "-"),
        ("equation", entry.equation),
        ("for", entry.applies_to),
        ("memory", entry.memory),
        ("zero grad", entry.zero_grad),
        ("paper", entry.paper),
        ("used by", entry.use),
    ]
    for title, text in rows:
        print(f"  {title:<10} {text}")
    options = [(o.name, o.default, o.text) for o in entry.options]
    if entry.scheduled:
        options.append(("schedule", "None", "constant, with_lr, cosine_to_zero, early_only or step"))
        options.append(("total_steps", "None", "length of the run, which most schedules need"))
    if options:
        width, default_width = (max(len(option[i]) for option in options) for i in (0, 1))
        print("\n  options")
        for option, default, text in options:
            print(f"    {option:<{width}}  {default:<{default_width}}  {text}")
