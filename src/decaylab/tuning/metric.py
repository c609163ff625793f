"""The number that a trial is judged by, and where it is read: output, file, TensorBoard, MLflow or `report`."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decaylab.errors import DecaylabError
from decaylab.extras import optional

SOURCES = ("output", "file", "regex", "tensorboard", "mlflow")
_TAIL_BYTES = 1 << 20  # of a log: the last line that counts lies there
LOG, REPORTS = "log.txt", "report.jsonl"


@dataclass(frozen=True, kw_only=True)
class Metric:
    r"""Where the metric of a trial is read when it has ended. Lower is better unless said otherwise.

    Attributes:
        name: Key of a JSON line, column of a CSV file, tag of TensorBoard, metric of MLflow.
        source: ``output`` takes the last JSON line of the output with that key (or what ``decaylab.report`` wrote, if
            the script calls it); ``file`` a JSON, JSON-lines or CSV file; ``regex`` the last match in the output;
            ``tensorboard`` a folder of event files; ``mlflow`` a tracking URI.
        place: Path or tracking URI; ``{out}`` in it stands for the trial's own folder.
        pattern: For ``regex``: its first group is the number, as in ``r"val loss (\S+)"``.
        maximize: Whether high values are good.
    """

    name: str = "loss"
    source: str = "output"
    place: str = ""
    pattern: str = ""
    maximize: bool = False

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise DecaylabError(f"a metric's source is one of {', '.join(SOURCES)}, not {self.source!r}")
        if self.source in ("file", "tensorboard", "mlflow") and not self.place:
            raise DecaylabError(f"a metric from {self.source} needs a place, such as {{out}}/log")
        if self.source == "regex":
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise DecaylabError(f"the metric's regular expression cannot be read: {error}") from None
            if not groups:
                raise DecaylabError(r"the metric's regular expression needs a group around the number: 'loss (\S+)'")

    @classmethod
    def parse(cls, name: str, place: str | None, pattern: str | None, *, maximize: bool = False) -> Metric:
        """Make the metric of the command line: ``--metric``, ``--metric-from`` and ``--metric-regex``."""
        if pattern is not None:
            if place is not None:
                raise DecaylabError("give --metric-regex or --metric-from, not both")
            return cls(name=name, source="regex", pattern=pattern, maximize=maximize)
        if place is None:
            return cls(name=name, maximize=maximize)
        for source in ("tensorboard", "mlflow"):
            if place.startswith(f"{source}:"):
                return cls(name=name, source=source, place=place.partition(":")[2], maximize=maximize)
        return cls(name=name, source="file", place=place.removeprefix("file:"), maximize=maximize)

    def read(self, folder: Path) -> dict[str, float]:
        """Return the metric under ``value``, and the learning rate of the last step under ``lr`` where it is told.

        Args:
            folder: Of the trial, with its log and its reports.

        Raises:
            DecaylabError: It is nowhere; the message says where it was looked for.
        """
        place = self.place.replace("{out}", str(folder))
        if self.source == "regex":
            matches = re.findall(self.pattern, _tail(folder / LOG))
            found = [m if isinstance(m, str) else m[0] for m in matches]
            if not found:
                raise DecaylabError(f"no match of the metric's pattern {self.pattern!r} in {folder / LOG}")
            return {"value": self._number(found[-1], f"the last match in {folder / LOG}")}
        if self.source == "tensorboard":
            return self._last(_events(Path(place)), place)
        if self.source == "mlflow":
            return self._last(_mlflow(place, self.name), place)
        if self.source == "file":
            return self._last(_rows(Path(place)), place)
        reported = folder / REPORTS
        if reported.exists():
            return self._last(_json_lines(reported.read_text(encoding="utf-8")), str(reported))
        where = f"the output ({folder / LOG})"
        return self._last(_json_lines(_tail(folder / LOG)), where)

    def _last(self, rows: Iterator[dict[str, Any]], where: str) -> dict[str, float]:
        value: Any = None
        seen: set[str] = set()
        found: dict[str, float] = {}
        for row in rows:
            seen |= set(row)
            value = row[self.name] if row.get(self.name) not in (None, "") else value
            if row.get("lr") not in (None, "") and self.name != "lr":
                found["lr"] = self._number(row["lr"], where)
        if value is None:
            there = f"; there are {', '.join(sorted(map(str, seen))[:8])}" if seen else ""
            raise DecaylabError(
                f"no metric {self.name!r} in {where}{there}; print a JSON line such as "
                f'{{"{self.name}": 2.5}} at the end, or say where it is with --metric and --metric-from'
            )
        return {"value": self._number(value, where)} | found

    def _number(self, value: Any, where: str) -> float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise DecaylabError(f"the metric {self.name!r} in {where} is no number: {str(value)[:40]!r}") from None


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if not line.lstrip().startswith("{"):
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DecaylabError(f"the metric's file {path} cannot be read: {error.strerror}") from None
    if path.suffix == ".csv":
        yield from csv.DictReader(text.splitlines())
        return
    whole = None
    if path.suffix == ".json":
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            raise DecaylabError(f"the metric's file {path} is no JSON") from None
    if isinstance(whole, dict):
        history = whole.get("log_history")  # what transformers' Trainer writes into trainer_state.json
        yield from history if isinstance(history, list) else [whole]
    elif isinstance(whole, list):
        yield from (row for row in whole if isinstance(row, dict))
    else:
        yield from _json_lines(text)


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    """Scalars of TensorBoard's event files, oldest first: records of length, checksum, message, checksum."""
    Event = optional("tensorboardX.proto.event_pb2").Event
    files = sorted(folder.rglob("*tfevents*"), key=lambda p: p.stat().st_mtime)
    if not files:
        raise DecaylabError(f"there are no event files of TensorBoard in {folder}")
    for path in files:
        content, at = path.read_bytes(), 0
        while at + 12 <= len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            if at + 12 + length > len(content):
                break  # the writer was stopped in the middle of a record
            event = Event.FromString(content[at + 12 : at + 12 + length])
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield {value.tag: value.simple_value}
                elif value.HasField("tensor") and len(value.tensor.float_val) == 1:
                    yield {value.tag: value.tensor.float_val[0]}
            at += 12 + length + 4


def _mlflow(uri: str, name: str) -> Iterator[dict[str, Any]]:
    client = optional("mlflow.tracking").MlflowClient(tracking_uri=uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    for run in reversed(client.search_runs(experiments, max_results=50)):
        yield dict(run.data.metrics)
