"""Print the table of experiments in docs/results.md from the verdicts beside this file: ``python results/table.py``."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from decaylab import studies

VERDICTS = Path(__file__).with_name("mini") / "verdicts.csv"
WORDS = {"holds": "hold", "fails": "fail", "undecided": "undecided", "not testable at this budget": "not testable"}


def rows() -> list[str]:
    """Return the table's lines: every experiment, what it asks, and how its claims came out at the mini budget."""
    with VERDICTS.open(newline="") as file:
        verdicts = {(row["experiment"], row["claim"]): row["verdict"] for row in csv.DictReader(file)}
    lines = ["| id | paper | what is shown | runs at `mini` | claims at `mini` |", "| --- | --- | --- | --- | --- |"]
    for identity in studies.all_ids():
        experiment = studies.get(identity)
        counts = Counter(verdict for (name, _), verdict in verdicts.items() if name == identity)
        claims = ", ".join(f"{counts[name]} {word}" for name, word in WORDS.items() if counts[name]) or "not run yet"
        number = len(experiment.runs("mini")) if "mini" in experiment.budgets else 0
        lines.append(f"| `{identity}` | {experiment.paper} | {experiment.title} | {number} | {claims} |")
    return lines


if __name__ == "__main__":
    print("\n".join(rows()))
