"""What the kit found, in words and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def slug(name: str) -> str:
    """Return a file name for a piece of hardware."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def failures(results: Mapping[str, Any]) -> list[str]:
    """Return a line for each check that failed and each section that did not end by itself."""
    lines = []
    for name, found in results["sections"].items():
        if found["status"] != "done":
            lines.append(f"FAILED {name}: {found['status']}")
        lines += [f"FAILED {name}: {r['name']}: {r['error']}" for r in found["rows"] if not r.get("ok", True)]
    return lines


def section(name: str, found: Mapping[str, Any]) -> str:
    """Return the lines that the terminal shows of one section."""
    checks = [row for row in found["rows"] if row["kind"] == "check"]
    held = sum(row["ok"] for row in checks)
    lines = [f"{name}: {held} of {len(checks)} checks hold, {found['seconds']:.0f} s, {found['status']}"]
    lines += [f"  FAILED {row['name']}: {row['error']}" for row in checks if not row["ok"]]
    lines += [f"  {row['name']}: {_number(row)}" for row in found["rows"] if row["kind"] == "number"]
    return "\n".join(lines)


def whole(results: Mapping[str, Any]) -> str:
    """Return everything as Markdown."""
    hardware = results["hardware"]
    lines = [f"# {hardware.get('name', 'unknown hardware')}", ""]
    lines += ["Printed by `python benchmarks/gpu.py`.", "", "| | |", "| --- | --- |"]
    lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in hardware.items()]
    lines += ["", "## Speed", "", *_speeds(results)]
    lines += ["", "## Checks", "", "| section | held | seconds | ended |", "| --- | --- | --- | --- |"]
    for name, found in results["sections"].items():
        checks = [row for row in found["rows"] if row["kind"] == "check"]
        held = f"{sum(row['ok'] for row in checks)} of {len(checks)}"
        lines.append(f"| {name} | {held} | {found['seconds']:.0f} | {found['status']} |")
    failed = failures(results)
    lines += ["", "Every check holds." if not failed else "\n".join(f"- {line}" for line in failed)]
    if results.get("left_out"):
        lines += ["", f"Left out for lack of time: {', '.join(results['left_out'])}."]
    return "\n".join(lines) + "\n"


def _speeds(results: Mapping[str, Any]) -> list[str]:
    lines = ["| section | what | value | beside it |", "| --- | --- | --- | --- |"]
    rows = [(name, row) for name, found in results["sections"].items() for row in found["rows"]]
    for name, row in rows:
        if row["kind"] == "number":
            lines.append(f"| {name} | {row['name']} | {_number(row)} | {_beside(row)} |")
    rates = {row["name"]: row["value"] for _, row in rows if row["kind"] == "number" and row["unit"] == "tokens/s"}
    for context in (256, 1024):
        ours, theirs = rates.get(f"decaylab, context {context}"), rates.get(f"authors' script, context {context}")
        if ours and theirs:
            lines.append(f"| ratio | decaylab / authors' script, context {context} | {ours / theirs:.2f} x | |")
    return lines


def _number(row: Mapping[str, Any]) -> str:
    value = row["value"]
    return f"{value:,.0f} {row['unit']}" if abs(value) >= 1000 else f"{value:.3g} {row['unit']}"


def _beside(row: Mapping[str, Any]) -> str:
    known = {k: v for k, v in row.items() if k not in ("kind", "name", "value", "unit") and v is not None}
    return ", ".join(f"{k.replace('_', ' ')} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in known.items())
