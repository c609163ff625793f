"""Charts and verdicts of experiments as one HTML page, with every chart as SVG and CSV beside it."""

from __future__ import annotations

from typing import Any

__all__ = ["build"]


def __getattr__(name: str) -> Any:
    if name == "build":  # loaded late: the chart libraries take half a second
        from decaylab.reporting.page import build

        return build
    raise AttributeError(f"module 'decaylab.reporting' has no attribute {name!r}")
