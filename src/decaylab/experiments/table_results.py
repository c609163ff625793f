"""Runs that another tool recorded, one row a run or one row a step, in the form in which claims are checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from decaylab.errors import DecaylabError, unknown
from decaylab.experiments.results import Curve, same_label

if TYPE_CHECKING:
    from decaylab.experiments.run_spec import Label

# How trackers say that a run has ended, in lower case; a run with any other status is not counted as ended.
_DONE = {"done", "finished", "completed", "complete", "success", "succeeded"}
_DIVERGED = {"diverged"}


class TableResults:
    """A table of runs. Every column can pick runs, and every column of numbers can be compared.

    Attributes:
        budget: What stands in place of an experiment's budget.
    """

    budget = "table"

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        seed: str | Sequence[str] = "seed",
        status: str | None = None,
        run: str | None = None,
        step: str | None = None,
    ) -> None:
        """Group the rows by run.

        Args:
            rows: Each row as a mapping from a column's name to a number or a text.
            seed: The column that pairs runs; of several columns, their values together.
            status: The column that says how a run ended: ``done`` or ``finished``, or ``diverged``; others have not
                ended. Without it all have.
            run: The column that says which run a row is of, where a run has several rows.
            step: The column of their steps; needs ``run``.

        Raises:
            DecaylabError: There is no row, or no such column.
        """
        table = [{str(name): _cell(value) for name, value in row.items()} for row in rows]
        if not table:
            raise DecaylabError("the table has no rows: there is nothing to judge")
        self._columns = list(dict.fromkeys(name for row in table for name in row))
        self._seed = (seed,) if isinstance(seed, str) else tuple(seed)
        self._status, self._step = status, step
        for name in (*self._seed, *(n for n in (status, run, step) if n is not None)):
            self._require(name)
        if (run is None) != (step is None):
            raise DecaylabError("a table with several rows a run needs both columns: the run's and the step's")
        self._runs: dict[str, list[dict[str, Any]]] = {}
        for number, row in enumerate(table):
            self._runs.setdefault(str(number) if run is None else _text(row[run]), []).append(row)
        if step is not None:
            for own in self._runs.values():
                own.sort(key=lambda row: float(row[step]))

    def runs_with(self, where: Mapping[str, Label]) -> list[str]:
        """Return the runs that carry some values.

        Raises:
            DecaylabError: There is no such column, or no run with such a value.
        """
        chosen = list(self._runs)
        for name, value in where.items():
            self._require(name)
            kept = [run for run in chosen if same_label(self._last(run, name), value)]
            if not kept:
                raise unknown(f"value of {name}", _text(value), {_text(self._last(run, name)) for run in chosen})
            chosen = kept
        return chosen

    def values_of(self, label: str, where: Mapping[str, Label]) -> list[Any]:
        """Return the values of a column among the runs that carry some values, without repetition."""
        self._require(label)
        return list(dict.fromkeys(self._last(run, label) for run in self.runs_with(where)))

    def by_seed(self, where: Mapping[str, Label]) -> dict[Label, str]:
        """Return the run of each seed under some values, seeds ascending.

        Raises:
            DecaylabError: Several runs share a seed; the message says in which columns they differ.
        """
        found: dict[Label, str] = {}
        for run in self.runs_with(where):
            pair = tuple(self._last(run, name) for name in self._seed)
            key: Label = pair[0] if len(pair) == 1 else ", ".join(map(_text, pair))
            if key in found:
                raise DecaylabError(self._ambiguous(where, key, found[key], run))
            found[key] = run
        return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))

    def curve(self, run: str, key: str) -> Curve:
        """Return what one run recorded in a column: one value, or one a step."""
        self._require(key)
        points = [(float(row[self._step]) if self._step else 0.0, row.get(key)) for row in self._runs[run]]
        for _, value in points:
            if isinstance(value, str):
                raise DecaylabError(f"the column {key} holds the text {value!r}: only numbers can be compared")
        numbers = [(step, value) for step, value in points if value is not None and not math.isnan(value)]
        return Curve([s for s, _ in numbers], [v for _, v in numbers], max((s for s, _ in points), default=0.0))

    def ended(self, run: str) -> bool:
        """Whether a run has ended."""
        return self._status is None or _text(self._last(run, self._status)).lower() in _DONE | _DIVERGED

    def diverged(self, run: str) -> bool:
        """Whether a run has ended by diverging."""
        return self._status is not None and _text(self._last(run, self._status)).lower() in _DIVERGED

    def reached(self, run: str) -> float:
        """The fraction of its steps that a run has done; of one that diverged nobody can tell."""
        return 0.0 if self.diverged(run) else 1.0

    def _last(self, run: str, name: str) -> Any:
        return self._runs[run][-1].get(name)

    def _require(self, name: str) -> None:
        if name not in self._columns:
            raise unknown("column", name, self._columns)

    def _ambiguous(self, where: Mapping[str, Label], seed: Label, first: str, second: str) -> str:
        pairs = [(name, self._last(first, name), self._last(second, name)) for name in self._columns]
        differ = [f"{name} ({_text(a)} and {_text(b)})" for name, a, b in pairs if not same_label(a, b)]
        what = ", ".join(f"{name}={_text(value)}" for name, value in where.items()) or "no condition"
        return (
            f"several runs have {what} and seed {_text(seed)}; they differ in {', '.join(differ[:4]) or 'nothing'}: "
            "name the one that is meant, or pair runs by that column too"
        )


def _cell(value: Any) -> Any:
    """Return a cell as a number where it is one, else as text; None where it is empty."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return float(text) if text else None
        except ValueError:
            return text
    if value is None or isinstance(value, bool):
        return value if value is None else str(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "nothing" if value is None else str(value)
