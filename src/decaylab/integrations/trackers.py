"""How do records reach an experiment tracker? Through one interface: ``write(record)`` and ``close()``.

A sink is given to ``decaylab.watch(..., sinks=[...])``. A record is a mapping of ``step`` and keys to numbers; the keys
are paths such as ``weights/norm/matrix``, which all three trackers group into panels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from decaylab.errors import DecaylabError, unknown
from decaylab.extras import optional
from decaylab.monitor.log import Sink


class TensorBoardSink:
    """Writes records as scalars for TensorBoard (``pip install decaylab[tensorboard]``)."""

    def __init__(self, folder: str | Path, prefix: str = "") -> None:
        """Open an event file in ``folder``.

        Args:
            folder: TensorBoard's log folder; made if it is missing.
            prefix: Put before every key, such as ``"decaylab/"``.

        Raises:
            DecaylabError: tensorboardX is not installed.
        """
        self._writer = optional("tensorboardX").SummaryWriter(str(folder))
        self._prefix = prefix

    def write(self, record: Mapping[str, float]) -> None:
        """Write one record at its step, without infinities and NaN, which the writer complains of one by one."""
        step, values = _split(record)
        for key, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(self._prefix + key, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbSink:
    """Writes records to a Weights & Biases run (``pip install decaylab[wandb]``)."""

    def __init__(self, run: Any = None, prefix: str = "", **options: Any) -> None:
        """Use a run, or start one.

        Args:
            run: A run that exists; it stays open on `close`. None starts one.
            prefix: Put before every key.
            **options: For ``wandb.init``, such as ``project=`` and ``mode="offline"``.

        Raises:
            DecaylabError: wandb is not installed.
        """
        self._own = run is None
        self._run = optional("wandb").init(**options) if run is None else run
        self._prefix = prefix
        # Records come at steps of their own: W&B's own counter, which only goes up, belongs to the user's loop.
        self._step_key = f"{prefix}step"
        self._run.define_metric(self._step_key)
        self._defined: set[str] = set()

    def write(self, record: Mapping[str, float]) -> None:
        """Log one record against its step."""
        step, values = _split(record)
        for key in values.keys() - self._defined:
            self._run.define_metric(self._prefix + key, step_metric=self._step_key)
            self._defined.add(key)
        self._run.log({self._step_key: step, **{self._prefix + key: value for key, value in values.items()}})

    def close(self) -> None:
        """Finish the run if it was started here."""
        if self._own:
            self._run.finish()


class MlflowSink:
    """Writes records to an MLflow run in batches (``pip install decaylab[mlflow]``)."""

    def __init__(
        self,
        run_id: str | None = None,
        *,
        experiment: str = "decaylab",
        tracking_uri: str | None = None,
        prefix: str = "",
        batch: int = 1000,
    ) -> None:
        """Use a run, or start one.

        Args:
            run_id: A run that exists; it stays open on `close`. None starts one.
            experiment: Name of the experiment for a new run; made if it is missing.
            tracking_uri: Where MLflow keeps its runs; MLflow's own setting by default.
            prefix: Put before every key.
            batch: Numbers sent together, at most 1000 (MLflow's own limit). One request a number would take
                milliseconds each.

        Raises:
            DecaylabError: mlflow is not installed, or ``batch`` is out of range.
        """
        if not 1 <= batch <= 1000:
            raise DecaylabError(f"batch must be between 1 and 1000, got {batch}")
        self._mlflow = optional("mlflow")
        self._client = self._mlflow.MlflowClient(tracking_uri=tracking_uri)
        self._own = run_id is None
        if run_id is None:
            known = self._client.get_experiment_by_name(experiment)
            identity = known.experiment_id if known else self._client.create_experiment(experiment)
            run_id = self._client.create_run(identity).info.run_id
        self.run_id, self._prefix, self._batch = run_id, prefix, batch
        self._waiting: list[Any] = []

    def write(self, record: Mapping[str, float]) -> None:
        """Keep one record and send what is kept once there is a batch of it."""
        step, values = _split(record)
        now = int(time.time() * 1000)
        # Not all stores of MLflow take infinities (a timescale without decay): they are left out.
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        metric = self._mlflow.entities.Metric
        self._waiting += [metric(self._prefix + key, float(value), now, step) for key, value in finite.items()]
        while len(self._waiting) >= self._batch:
            self._send()

    def close(self) -> None:
        """Send the rest, and end the run if it was started here."""
        while self._waiting:
            self._send()
        if self._own:
            self._client.set_terminated(self.run_id)

    def _send(self) -> None:
        self._client.log_batch(self.run_id, metrics=self._waiting[: self._batch])
        self._waiting = self._waiting[self._batch :]


_KINDS: dict[str, Callable[[str], Sink]] = {
    "tensorboard": lambda target: TensorBoardSink(target or "runs"),
    "wandb": lambda target: WandbSink(project=target or "decaylab"),
    "mlflow": lambda target: MlflowSink(experiment=target or "decaylab"),
}


def open_sink(text: str) -> Sink:
    """Open a sink from one word, as a command line gives it.

    Args:
        text: ``tensorboard:FOLDER``, ``wandb:PROJECT`` or ``mlflow:EXPERIMENT``; what comes after the colon may be left
            out.

    Returns:
        The sink.

    Raises:
        DecaylabError: Another tracker, or its package is not installed.
    """
    kind, _, target = text.partition(":")
    if kind not in _KINDS:
        raise unknown("tracker", kind, _KINDS)
    return _KINDS[kind](target)


def _split(record: Mapping[str, float]) -> tuple[int, dict[str, float]]:
    return int(record["step"]), {key: value for key, value in record.items() if key != "step"}
