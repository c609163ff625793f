"""The Optuna study of a search: every trial with its settings and its metric, open to Optuna's dashboard."""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decaylab.errors import DecaylabError
from decaylab.extras import optional
from decaylab.tuning.coordinates import Point

if TYPE_CHECKING:
    import optuna

_RUN = "run"


class Record:
    """A study that outlives its process: JournalStorage in a file, or a database by URL."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._known = {t.user_attrs[_RUN]: t for t in study.get_trials(deepcopy=False) if _RUN in t.user_attrs}

    def value(self, run: str) -> float | None:
        """Return the metric of a trial that an earlier process finished, NaN where it diverged; None without one."""
        trial = self._known.get(run)
        if trial is None:
            return None
        if trial.values is None:
            return math.nan if trial.user_attrs.get("status") == "diverged" else None
        return float(trial.values[0])

    def add(self, run: str, point: Point, status: str, value: float | None) -> None:
        """Write a trial that ended; one that is there already stays as it is."""
        import optuna
        from optuna.trial import TrialState, create_trial

        if run in self._known:
            return
        space = optuna.distributions.FloatDistribution(0.0, 1e9)
        finite = value is not None and math.isfinite(value)
        trial = create_trial(
            state=TrialState.COMPLETE if finite else TrialState.FAIL,
            values=[value] if value is not None and finite else None,
            params={"weight_decay": point.weight_decay, "lr": point.lr},
            distributions={"weight_decay": space, "lr": space},
            user_attrs={_RUN: run, "steps": point.steps, "seed": point.seed, "status": status},
        )
        self._study.add_trial(trial)
        self._known[run] = trial


@contextmanager
def open_record(place: str | Path, name: str, *, maximize: bool = False) -> Iterator[Record]:
    """Open the study of a search; one process at a time for a file.

    Args:
        place: Path of a journal, or a database's URL as Optuna takes it (``postgresql://…``).
        name: Of the study.
        maximize: Whether high values are good.

    Raises:
        DecaylabError: Optuna is not installed, another process works on the study, or the place cannot be used.
    """
    optuna = optional("optuna")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options: dict[str, Any] = {
        "study_name": name,
        "direction": "maximize" if maximize else "minimize",
        "load_if_exists": True,
    }
    if "://" in str(place):
        url = str(place).replace("postgresql://", "postgresql+psycopg://", 1)
        yield Record(optuna.create_study(storage=url, **options))
        return
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DecaylabError(
                f"another process tunes the study {name!r} in {path}: wait for it, or give another --name"
            ) from None
        storage = JournalStorage(JournalFileBackend(str(path)))
        yield Record(optuna.create_study(storage=storage, **options))
