"""How metrics are read back: whole curves into arrays, fast, and the last value of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Column, Connection, ScalarSelect, select, true

from decaylab.store import schema
from decaylab.store.database import Database, in_parts

if TYPE_CHECKING:
    import pandas

_FROM = f"FROM {schema.metrics.name}"
# An array in PostgreSQL's binary form: a head of 20 bytes, then each element's length and its big-endian bytes.
_ARRAY_HEAD = 20
_STEPS, _VALUES = np.dtype([("length", ">i4"), ("it", ">i8")]), np.dtype([("length", ">i4"), ("it", ">f8")])


@dataclass(frozen=True)
class Curves:
    """Curves one after another: ``pairs[i]`` = (run id, key) has ``counts[i]`` points, in the order of the steps."""

    pairs: list[tuple[str, str]]
    counts: np.ndarray[Any, np.dtype[np.int64]]
    steps: np.ndarray[Any, np.dtype[np.int64]]
    values: np.ndarray[Any, np.dtype[np.float64]]

    def frame(self) -> pandas.DataFrame:
        """Return the long table with the columns run, step, key, value."""
        import pandas

        columns = {}
        for name, side in (("run", 0), ("key", 1)):
            # Taking from an index of few strings is far cheaper than making a column of many.
            few = pandas.Series([pair[side] for pair in self.pairs], dtype="str")
            columns[name] = few.take(np.repeat(np.arange(len(few)), self.counts)).reset_index(drop=True)
        table = {"run": columns["run"], "step": self.steps, "key": columns["key"], "value": self.values}
        return pandas.DataFrame(table)


def read_curves(database: Database, run_ids: Sequence[str] | None, keys: Sequence[str] | None) -> Curves:
    """Read whole curves, in one consistent state of the database.

    Args:
        database: Where from.
        run_ids: Runs in the order wanted; all in the order they were added by default. Unknown ids are left out.
        keys: Metric names; all by default.

    Returns:
        The curves, ordered by run, then by the key's name; each ordered by step.
    """
    with database.read() as connection:
        runs = _numbers(connection, schema.runs.c.id, run_ids)
        names = _numbers(connection, schema.keys.c.name, sorted(set(keys)) if keys is not None else None)
        if not runs or not names:
            empty = np.zeros(0, np.int64)
            return Curves([], empty, empty, np.zeros(0))
        where = _where("run", runs, run_ids) + _where("key", names, keys, " AND " if run_ids is not None else " WHERE ")
        read = _read_sqlite if database.path is not None else _read_postgresql
        return read(connection, runs, names, where)


def read_last(database: Database, run_ids: Sequence[str] | None) -> dict[str, dict[str, tuple[int, float]]]:
    """Return the last (step, value) of every key of every run, by seeks, without reading the curves."""
    runs, keys, metrics = schema.runs, schema.keys, schema.metrics

    def newest(column: Column[Any]) -> ScalarSelect[Any]:
        curve = select(column).where(metrics.c.run == runs.c.num, metrics.c.key == keys.c.num)
        return curve.order_by(metrics.c.step.desc()).limit(1).correlate(runs, keys).scalar_subquery()

    # Every run with every key: a seek each. A join on the greatest step would be planned as a scan of all points.
    query = (
        select(runs.c.id, keys.c.name, newest(metrics.c.step), newest(metrics.c.value))
        .select_from(runs.join(keys, true()))
        .order_by(runs.c.num, keys.c.name)
    )
    result: dict[str, dict[str, tuple[int, float]]] = {}
    with database.read() as connection:
        queries = [query] if run_ids is None else [query.where(runs.c.id.in_(part)) for part in in_parts(run_ids)]
        for run, key, step, value in chain.from_iterable(map(connection.execute, queries)):
            if step is not None:
                result.setdefault(run, {})[key] = (step, float("nan") if value is None else value)
    return result


def _numbers(connection: Connection, column: Any, names: Sequence[str] | None) -> dict[int, str]:
    """Return number -> name for the rows named (in that order), or for all of them (in the order of adding)."""
    query = select(column.table.c.num, column)
    if names is None:
        return {number: name for number, name in connection.execute(query.order_by(column.table.c.num))}
    found = {}
    for part in in_parts(names):
        found.update({name: number for number, name in connection.execute(query.where(column.in_(part)))})
    return {found[name]: name for name in names if name in found}


def _where(column: str, numbers: dict[int, str], asked: Sequence[str] | None, word: str = " WHERE ") -> str:
    """Return the condition on a column; the numbers come from the database, so they are safe to write out."""
    return "" if asked is None else f"{word}{column} IN ({','.join(map(str, numbers))})"


def _read_sqlite(connection: Connection, runs: dict[int, str], keys: dict[int, str], where: str) -> Curves:
    execute = connection.connection.driver_connection.execute  # type: ignore[union-attr]
    # One range of the primary key a curve, streamed into one array without a list of a million tuples in between.
    found = execute(f"SELECT run, key, count(*) {_FROM}{where} GROUP BY run, key").fetchall()
    place = {number: i for i, number in enumerate(runs)}
    groups = sorted(
        (place[run], keys[key], run, key, count) for run, key, count in found if run in place and key in keys
    )
    total = sum(group[-1] for group in groups)
    curve = f"SELECT step, value {_FROM} WHERE run = ? AND key = ? ORDER BY step"
    rows = chain.from_iterable(execute(curve, (run, key)) for _, _, run, key, _ in groups)
    flat = np.fromiter(chain.from_iterable(rows), np.float64, count=2 * total)  # exact for steps below 2**53
    return Curves(
        [(runs[run], name) for _, name, run, _, _ in groups],
        np.array([group[-1] for group in groups], np.int64),
        flat[0::2].astype(np.int64),
        flat[1::2].copy(),
    )


def _read_postgresql(connection: Connection, runs: dict[int, str], keys: dict[int, str], where: str) -> Curves:
    # The server gathers each curve into two arrays: one row a curve, whose bytes numpy takes as they are.
    value = "coalesce(value, 'NaN')"
    query = f"SELECT run, key, array_agg(step ORDER BY step), array_agg({value} ORDER BY step) {_FROM}{where}"
    raw: Any = connection.connection.driver_connection
    with raw.cursor(binary=True) as cursor:
        cursor.execute(f"{query} GROUP BY run, key")
        result = cursor.pgresult

        def array(row: int, column: int, kind: np.dtype[Any]) -> np.ndarray[Any, Any]:
            return np.frombuffer(result.get_value(row, column), kind, offset=_ARRAY_HEAD)["it"]

        place = {number: i for i, number in enumerate(runs)}
        found = [
            (int.from_bytes(result.get_value(row, 0), "big"), int.from_bytes(result.get_value(row, 1), "big"), row)
            for row in range(result.ntuples)
        ]
        groups = sorted((place[run], keys[key], run, row) for run, key, row in found if run in place and key in keys)
        steps = [array(row, 2, _STEPS) for *_, row in groups]
        values = [array(row, 3, _VALUES) for *_, row in groups]
    return Curves(
        [(runs[run], name) for _, name, run, _ in groups],
        np.array([len(part) for part in steps], np.int64),
        np.concatenate([np.zeros(0, np.int64), *steps]).astype(np.int64),
        np.concatenate([np.zeros(0), *values]).astype(np.float64),
    )
