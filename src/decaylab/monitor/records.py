"""Records of a log, kept as columns of numbers: eight bytes each, thinned where they would become too many."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

Record = dict[str, float]


class Records(Sequence[Record]):
    """A sequence of records, each a mapping of keys to numbers.

    Records with the same keys share one table of numbers. Beyond ``limit`` records, every second one of the older half
    is dropped, so that the past grows coarser and the present stays as it was recorded.

    Args:
        limit: Most records that are kept; None keeps all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._keys: list[tuple[str, ...]] = []
        self._tables: list[array[float]] = []
        self._order: list[tuple[int, int]] = []  # of each record: its table, and its row there

    def append(self, record: Mapping[str, float]) -> None:
        """Add a record."""
        keys = tuple(record)
        try:
            table = self._keys.index(keys)
        except ValueError:
            table = len(self._keys)
            self._keys.append(keys)
            self._tables.append(array("d"))
        row = len(self._tables[table]) // max(len(keys), 1)
        self._tables[table].extend(float(value) for value in record.values())
        self._order.append((table, row))
        if self._limit is not None and len(self._order) > self._limit:
            self._thin()

    def _thin(self) -> None:
        half = len(self._order) // 2
        kept = [*range(0, half, 2), *range(half, len(self._order))]  # the first record stays
        self._rebuild([self[i] for i in kept])

    def _rebuild(self, records: Sequence[Mapping[str, float]]) -> None:
        limit, self._limit = self._limit, None
        self._keys, self._tables, self._order = [], [], []
        for record in records:
            self.append(record)
        self._limit = limit

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """Return a record, or a list of records."""
        if isinstance(index, slice):
            return [self._at(table, row) for table, row in self._order[index]]
        return self._at(*self._order[index])

    def _at(self, table: int, row: int) -> Record:
        keys = self._keys[table]
        values = self._tables[table][row * len(keys) : (row + 1) * len(keys)]
        return {key: int(value) if key == "step" else value for key, value in zip(keys, values, strict=True)}

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Record]:
        return (self._at(table, row) for table, row in self._order)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} records>"

    def state_dict(self) -> dict[str, Any]:
        """Everything as plain values; keys stand once for all records that share them."""
        return {
            "keys": [list(keys) for keys in self._keys],
            "values": [table.tolist() for table in self._tables],
            "order": [table for table, _ in self._order],
        }

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, float]]) -> None:
        """Go on from `state_dict`, or from a list of records."""
        if not isinstance(state, Mapping):
            self._rebuild(state)
            return
        self._keys = [tuple(keys) for keys in state["keys"]]
        self._tables = [array("d", values) for values in state["values"]]
        rows = [0] * len(self._keys)
        self._order = []
        for table in state["order"]:
            self._order.append((int(table), rows[table]))
            rows[table] += 1
