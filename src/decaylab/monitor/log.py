"""Log of a training loop that is somebody else's: what weight decay does, recorded through the optimizer's hooks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from torch import nn
from torch.optim import Optimizer

from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError
from decaylab.extras import optional
from decaylab.files import atomic_path
from decaylab.monitor.account import Account
from decaylab.monitor.diagnosis import diagnose
from decaylab.monitor.diagnosis_result import Diagnosis
from decaylab.monitor.records import Records
from decaylab.monitor.text import describe
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.probes.context import Probe
from decaylab.probes.decay_account import DecaySource
from decaylab.probes.registry import DEFAULT_PROBES
from decaylab.probes.runner import ProbeRunner

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

_MOST_RECORDS = 10_000


class Sink(Protocol):
    """Where records go while training: an experiment tracker, a file, a store."""

    def write(self, record: Mapping[str, float]) -> None:
        """Take one record: ``step`` and the probes' keys."""
        ...

    def close(self) -> None:
        """Take no more records."""
        ...


def watch(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    every: int = 50,
    probes: Iterable[str | Probe] = DEFAULT_PROBES,
    loss_fn: LossFunction | None = None,
    batches: Sequence[Any] | None = None,
    roles: Mapping[str, Any] | None = None,
    sinks: Sequence[Sink] = (),
    total_steps: int | None = None,
    most_records: int | None = _MOST_RECORDS,
) -> Log:
    """Watch what weight decay does, in any training loop.

    Nothing else in the loop changes: the optimizer's own step hooks do the work, and the weights come out bit-equal.
    Works with gradient accumulation, ``GradScaler``, ``torch.compile``, data parallelism (each process has a log of its
    own), several param groups, schedulers, closures, and rules of ``decaylab.attach`` in any order.

    Args:
        model: The model that is trained.
        optimizer: The optimizer that steps it; wrappers that hold one in ``.optimizer`` are taken off.
        every: Steps between two records. The first step is recorded.
        probes: What to measure: names from ``decaylab.probes.PROBES``, or probes.
        loss_fn: ``loss_fn(model, batch)``, for probes that run the model.
        batches: Their batches.
        roles: Overrides of parameter roles, see ``decaylab.roles``.
        sinks: Where each record goes besides the log. One that fails warns once, and the training goes on.
        total_steps: Length of the run in optimizer steps; the summary then says what decay will come to by its end.
        most_records: Beyond so many, every second record of the older half is dropped from the log (sinks get all);
            None keeps all.

    Returns:
        The log.

    Raises:
        DecaylabError: Unknown probe, an override of a role that matches nothing, an optimizer of another model, or an
            impossible number.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
        >>> log = watch(model, optimizer, every=10)
        >>> for _ in range(100):
        ...     optimizer.zero_grad()
        ...     model(torch.randn(8, 4)).square().mean().backward()
        ...     optimizer.step()
        >>> len(log.records)
        10
    """
    for name, value in (("total_steps", total_steps), ("most_records", most_records)):
        if value is not None and (not hasattr(value, "__index__") or value < 2):
            raise DecaylabError(f"{name} must be a whole number of at least 2, got {value!r}")
    runner = ProbeRunner(
        probes, model, optimizer, every=every, loss_fn=loss_fn, batches=batches, roles=roles, guest=True
    )  # fmt: skip
    return Log(runner, inner_optimizer(optimizer), sinks, total_steps=total_steps, most_records=most_records)


class Log:
    """What `watch` has recorded so far, in words, as a table, as a chart, as a file.

    Attributes:
        records: One mapping a record: ``step`` (index of the optimizer step, from 0) and the probes' keys.
        step: Optimizer steps seen so far.
    """

    def __init__(
        self,
        runner: ProbeRunner,
        optimizer: Optimizer,
        sinks: Sequence[Sink] = (),
        *,
        total_steps: int | None = None,
        most_records: int | None = None,
    ) -> None:
        """Hook ``runner`` into ``optimizer``."""
        self.records = Records(most_records)
        self.step = 0
        self.total_steps = total_steps
        self._runner, self._optimizer, self._sinks = runner, optimizer, list(sinks)
        self._failed_sinks: dict[str, str] = {}
        self._sources: list[DecaySource] = []  # of a state that was loaded, until the next step
        self._versions = {name: p._version for name, p in runner.parameters.items()}
        runner.hook(self._after_step)

    def _after_step(self, step: int, measured: dict[str, float] | None) -> None:
        if measured is not None:
            record = {"step": step, **measured}
            self.records.append(record)
            for sink in self._sinks:
                self._send(sink, record)
        self.step = step + 1

    def _send(self, sink: Sink, record: Mapping[str, float]) -> None:
        try:
            sink.write(record)
        except Exception as error:  # a tracker may raise anything; the training is not to stop for it
            self._sink_failed(sink, error)

    def _sink_failed(self, sink: Sink, error: Exception) -> None:
        name = type(sink).__name__
        if name not in self._failed_sinks:
            self._failed_sinks[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            warnings.warn(
                f"decaylab: {name} failed ({self._failed_sinks[name]}); the log goes on without it", stacklevel=6
            )

    def table(self) -> pd.DataFrame:
        """Return the records, a row each: ``step`` and a column for every key; empty cells are NaN."""
        pandas = optional("pandas")
        empty = {"step": pandas.Series(dtype=int)}
        found: pd.DataFrame = pandas.DataFrame(list(self.records) or empty)
        return found

    def save(self, path: str | Path) -> Path:
        """Write the table to a file.

        Args:
            path: Ends in ``.csv``, ``.json`` (a list of records) or ``.parquet``.

        Returns:
            The path.

        Raises:
            DecaylabError: Another ending.
        """
        path = Path(path)
        table = self.table()
        writers = {".csv": self._csv, ".json": self._json, ".parquet": self._parquet}
        if path.suffix not in writers:
            raise DecaylabError(f"a log is saved as .csv, .json or .parquet, not as {path.name!r}")
        with atomic_path(path) as temporary:
            writers[path.suffix](table, temporary)
        return path

    @staticmethod
    def _csv(table: pd.DataFrame, path: Path) -> None:
        table.to_csv(path, index=False)

    @staticmethod
    def _json(table: pd.DataFrame, path: Path) -> None:
        table.to_json(path, orient="records", indent=1)

    @staticmethod
    def _parquet(table: pd.DataFrame, path: Path) -> None:
        table.to_parquet(path, index=False)

    def diagnosis(self) -> Diagnosis:
        """Return what decay is doing, for programs; see `decaylab.monitor.diagnosis`."""
        return diagnose(self.records, self.account())

    def summary(self) -> str:
        """Say in words what weight decay is doing, with the numbers behind it."""
        return describe(self.diagnosis())

    def account(self) -> Account:
        """Return what decays, and what happened beside the records: sources, parameters that came or went, failures."""
        sources = self._runner.sources() if self._runner.has_stepped else self._sources
        unseen = self.step == 0 and any(
            p._version != self._versions.get(name, p._version) for name, p in self._runner.parameters.items()
        )
        return Account(
            sources=tuple(sources),
            changes=tuple(self._runner.changes),
            failures={**self._runner.failures, **self._failed_sinks},
            optimizer=type(self._optimizer).__name__,
            unseen=unseen,
            total_steps=self.total_steps,
            step=self.step,
        )

    def plot(self, keys: Sequence[str] | None = None) -> alt.VConcatChart:
        """Draw the records against the step.

        Args:
            keys: Which keys, one panel each; by default norm, effective learning rate, rotation with its prediction,
                and the share of the update that is decay, by role.

        Returns:
            An Altair chart; ``.save("log.html")`` or ``.save("log.svg")`` writes it.

        Raises:
            DecaylabError: A key that was not recorded.
        """
        optional("altair")
        from decaylab.monitor.plot import chart

        return chart(self.table(), keys)

    def state_dict(self) -> dict[str, Any]:
        """What must survive an interruption of the training: records, steps and timescales passed."""
        return {
            "step": self.step,
            "records": self.records.state_dict(),
            "sources": [source.to_dict() for source in self.account().sources],
            **self._runner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            DecaylabError: That is no state of a log.
        """
        lacking = [key for key in ("step", "records", "passed") if key not in state]
        if lacking:
            raise DecaylabError(f"this is no state of a log (no {lacking[0]!r}): give what log.state_dict() returned")
        self.step = self._runner.step = int(state["step"])
        self.records.load_state_dict(state["records"])
        self._sources = [DecaySource.from_dict(source) for source in state.get("sources", ())]
        self._runner.load_state_dict(state)

    def remove(self) -> None:
        """Take the hooks off and close the sinks; the records stay."""
        self._runner.close()
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:  # as when it is written to
                self._sink_failed(sink, error)
        self._sinks = []

    def __enter__(self) -> Self:
        """Watch inside a ``with`` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self.remove()
