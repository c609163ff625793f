"""What a launch shows meanwhile: a live display on a terminal, plain lines elsewhere, nothing when told so."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from decaylab.errors import printable
from decaylab.launch.throughput import Pace, View, clock

_SHOWN = 12


class Display:
    """Silent; the base of the others."""

    def show(self, view: View) -> None:
        """Show how things stand."""

    def say(self, line: str) -> None:
        """Write a line that stays."""

    def close(self) -> None:
        """Take the display away; lines that were said stay."""


class Lines(Display):
    """Plain lines: soon after the start, then more and more seldom, and whenever there is something to say."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._next = 5.0

    def show(self, view: View) -> None:
        """Write a line if the last one is old enough: about a tenth of the time passed, 10 to 60 seconds."""
        if view.seconds >= self._next:
            self._write(f"{summary(view)}{_running(view)}")
            self._next = view.seconds + min(60.0, max(10.0, view.seconds / 10))

    def say(self, line: str) -> None:
        """Write a line."""
        self._write(line)


class Screen(Display):
    """A bar for everything and a line for each running run, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, view: View) -> None:
        """Redraw."""
        self._live.update(_drawing(view), refresh=True)

    def say(self, line: str) -> None:
        """Write a line above the display."""
        self._live.console.print(Text(printable(line)))

    def close(self) -> None:
        """Take the display away."""
        self._live.stop()


def display(progress: bool) -> Display:
    """Return what suits the standard error: the results of a command may be on their way into a file."""
    if not progress:
        return Display()
    console = Console(stderr=True)
    return (
        Screen(console)
        if console.is_terminal
        else Lines(lambda line: print(printable(line), file=sys.stderr, flush=True))
    )


def summary(view: View) -> str:
    """Return one line: how many runs have ended, how many failed, how long it took and will take."""
    failed = f", {view.failed} failed" if view.failed else ""
    eta = "" if view.ended + view.failed == view.total else f", ETA {'...' if view.eta is None else clock(view.eta)}"
    return f"{view.ended}/{view.total} runs ended{failed}, {clock(view.seconds)}{eta}"


def _running(view: View) -> str:
    parts = [f"{p.name} {p.step}/{p.total_steps or '?'}{_rate(p)}" for p in view.running[:4]]
    more = f" and {len(view.running) - 4} more" if len(view.running) > 4 else ""
    return f"; {', '.join(parts)}{more}" if parts else ""


def _rate(pace: Pace) -> str:
    if not pace.rate:
        return ""
    steps = f"{pace.rate:.3g} steps/s" if pace.rate >= 0.1 else f"{1 / pace.rate:.3g} s/step"
    tokens = f", {pace.rate * pace.tokens:,.0f} tokens/s" if pace.tokens else ""
    share = f", {pace.share:.0%} of peak" if pace.share else ""
    return f" ({steps}{tokens}{share})"


def _drawing(view: View) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_row(
        Text("all", style="bold"),
        ProgressBar(total=max(view.total, 1), completed=view.ended + view.failed, width=30),
        Text(summary(view)),
    )
    for pace in view.running[:_SHOWN]:
        table.add_row(
            Text(printable(pace.name)),
            ProgressBar(total=pace.total_steps or None, completed=pace.step, width=30, pulse=not pace.total_steps),
            Text(f"{pace.step}/{pace.total_steps or '?'}{_rate(pace)}"),
        )
    if len(view.running) > _SHOWN:
        return Group(table, Text(f"and {len(view.running) - _SHOWN} more"))
    return table
