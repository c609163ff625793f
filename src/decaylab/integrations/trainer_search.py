"""Weight decay of a transformers ``Trainer``, tuned from complete short trainings of it.

transformers' own backends cut trainings short at equal step, which for weight decay keeps the wrong one; here the whole
schedule is shortened. With ``register_search_backend()`` it is one of the Trainer's own::

    from decaylab.integrations import register_search_backend

    register_search_backend()
    best = trainer.hyperparameter_search(backend="decaylab", budget=6)   # a BestRun; best.run_summary is the answer

and without it ``tune_trainer(trainer)`` returns the answer itself.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from decaylab.errors import DecaylabError
from decaylab.tuning.answer import Answer
from decaylab.tuning.metric import Metric
from decaylab.tuning.search import tune

try:
    import transformers
    from transformers import hyperparameter_search as _registry
    from transformers.trainer_utils import BestRun, HPSearchBackend, default_compute_objective
except ImportError:
    raise DecaylabError("transformers is not installed: pip install 'decaylab[transformers]'") from None

NAME = "decaylab"
# Mean over the peak, where transformers' schedule of that name differs from decaylab's, or is a rough match.
_SCHEDULES = {"linear": "linear", "cosine": "0.5", "polynomial": "linear", "constant": "constant"}
_SCHEDULES |= {"constant_with_warmup": "constant"}
# What neither a result nor its identity depends on.
_ELSEWHERE = (
    "output_dir",
    "logging_dir",
    "run_name",
    "report_to",
    "max_steps",
    "weight_decay",
    "learning_rate",
    "seed",
)


class TrainerObjective:
    """A complete training of a ``Trainer`` with other settings, judged by its evaluation at the end.

    The Trainer's arguments are as they were when a call returns.
    """

    def __init__(self, trainer: Any, steps: int, compute_objective: Callable[[dict[str, float]], float] | None) -> None:
        """Check that the Trainer can be trained again and judged.

        Args:
            trainer: Made with ``model_init``.
            steps: Length of its full training.
            compute_objective: From the metrics of ``evaluate()`` to the number; transformers' default where None.

        Raises:
            DecaylabError: It has no ``model_init`` or nothing to evaluate on.
        """
        if trainer.model_init is None:
            raise DecaylabError("the Trainer needs model_init=, so that every trial starts from a fresh model")
        if trainer.eval_dataset is None:
            raise DecaylabError("the Trainer needs eval_dataset=: trials are compared by their evaluation at the end")
        self._trainer, self._steps = trainer, steps
        self._objective = compute_objective or default_compute_objective

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result of a trial beside its settings."""
        trainer = self._trainer
        kept = {k: v for k, v in trainer.args.to_dict().items() if k not in _ELSEWHERE}
        try:
            source = inspect.getsource(trainer.model_init)
        except (OSError, TypeError):
            source = repr(getattr(trainer.model_init, "__qualname__", ""))
        data = [getattr(d, "_fingerprint", None) or _length(d) for d in (trainer.train_dataset, trainer.eval_dataset)]
        config = getattr(trainer.model, "config", None)
        shown = config.to_dict() if config is not None and hasattr(config, "to_dict") else {}
        return {"args": _plain(kept), "model_init": source, "data": data, "model": _plain(shown), "steps": self._steps}

    def __call__(self, *, weight_decay: float, lr: float, steps: int, seed: int) -> float:
        """Train over a whole schedule of so many steps and return the objective."""
        trainer = self._trainer
        changes = {
            "weight_decay": weight_decay,
            "learning_rate": lr,
            "max_steps": steps,
            "seed": seed,
            "data_seed": seed,
            "save_strategy": type(trainer.args.save_strategy)("no"),
            "eval_strategy": type(trainer.args.eval_strategy)("no"),
            "load_best_model_at_end": False,
            "warmup_steps": _scaled(trainer.args.warmup_steps, steps / self._steps),
        }
        with _changed(trainer.args, changes):
            trainer.train()
            metrics = trainer.evaluate()
        value = self._objective(metrics)
        if value is None:
            raise DecaylabError(f"evaluate() gave no loss (it gave {', '.join(metrics)}): pass compute_objective=")
        return float(value)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _scaled(warmup: float, share: float) -> float:
    """Return the warm-up of a shorter schedule: transformers takes less than 1 as a share of the run."""
    return warmup if warmup < 1 else max(1, round(warmup * share))


@contextmanager
def _changed(arguments: Any, changes: Mapping[str, Any]) -> Iterator[None]:
    before = {name: getattr(arguments, name) for name in changes}
    try:
        for name, value in changes.items():
            setattr(arguments, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(arguments, name, value)


def full_steps(trainer: Any) -> int:
    """Return the updates of a Trainer's full training: ``max_steps``, or its epochs over the data.

    Raises:
        DecaylabError: The data has no length and ``max_steps`` is not set.
    """
    arguments = trainer.args
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    try:
        batches = len(trainer.get_train_dataloader())
    except TypeError:
        raise DecaylabError("the training data has no length: set max_steps, or pass steps=") from None
    updates = max(1, -(-batches // int(arguments.gradient_accumulation_steps)))
    return math.ceil(float(arguments.num_train_epochs) * updates)


def tune_trainer(
    trainer: Any,
    *,
    compute_objective: Callable[[dict[str, float]], float] | None = None,
    direction: str = "minimize",
    steps: int | None = None,
    lr: float | tuple[float, float] | None = None,
    storage: str | Path | None = None,
    name: str = "trainer",
    **settings: Any,
) -> Answer:
    """Find the weight decay of a ``Trainer`` from complete short trainings of it, in this process.

    A trial sets ``max_steps`` (so the whole schedule ends there; the warm-up is scaled alike), ``weight_decay``,
    ``learning_rate`` and ``seed``, trains a fresh model and evaluates it. Nothing is saved, and the Trainer's arguments
    are as before when it returns. Where it was stopped, the same call goes on.

    Args:
        trainer: Made with ``model_init=`` and ``eval_dataset=``; any optimizer whose decay is ``args.weight_decay``.
        compute_objective: From the metrics of ``evaluate()`` to a number; ``eval_loss`` by default.
        direction: ``minimize`` or ``maximize``.
        steps: Of the full training; by default ``max_steps``, or the epochs over the data.
        lr: Peak learning rate, or a range to search; the Trainer's by default.
        storage: Optuna's journal; by default ``decaylab-tune.journal`` in the Trainer's ``output_dir``.
        name: Of the study.
        settings: As in `decaylab.tuning.Plan`: budget, seeds, schedule, epsilon, confirm, ...; and ``say``.

    Returns:
        The answer.

    Raises:
        DecaylabError: See `TrainerObjective` and `decaylab.tune`.
    """
    if direction not in ("minimize", "maximize"):
        raise DecaylabError(f"direction is minimize or maximize, not {direction!r}")
    arguments = trainer.args
    length = steps if steps is not None else full_steps(trainer)
    kind = getattr(arguments.lr_scheduler_type, "value", str(arguments.lr_scheduler_type))
    settings.setdefault("schedule", _SCHEDULES.get(kind, "constant"))
    settings.setdefault("weight_decay", float(arguments.weight_decay))
    place = storage if storage is not None else Path(arguments.output_dir) / "decaylab-tune.journal"
    return tune(
        TrainerObjective(trainer, length, compute_objective),
        steps=length,
        lr=lr if lr is not None else float(arguments.learning_rate),
        metric=Metric(name="objective", maximize=direction == "maximize"),
        storage=place,
        name=name,
        **settings,
    )


class SearchBackend(_registry.HyperParamSearchBackendBase):  # type: ignore[misc,unused-ignore]
    """The backend ``"decaylab"`` of ``Trainer.hyperparameter_search``; its keywords are `tune_trainer`'s."""

    name = NAME
    pip_package = "'decaylab[transformers]'"

    @staticmethod
    def is_available() -> bool:
        """Whether it can be used: it is here."""
        return True

    def run(self, trainer: Any, n_trials: int, direction: str, **kwargs: Any) -> BestRun:
        """Search; the number of trials follows from ``budget`` and ``seeds``, not from ``n_trials``.

        Returns:
            transformers' ``BestRun``: the values to use, the mean metric of the best setting on the longest rung, and
            the whole answer as ``run_summary``.
        """
        trainer.hp_search_backend = None  # trials are set by their arguments, not by transformers' search space
        found = tune_trainer(trainer, compute_objective=trainer.compute_objective, direction=direction, **kwargs)
        values = {"weight_decay": found.weight_decay.value, "learning_rate": found.lr.value}
        run, objective = _best(found, maximize=direction == "maximize")
        kept = {name: value for name, value in values.items() if value is not None}
        return BestRun(run, objective, kept, found)

    def default_hp_space(self, trial: Any) -> dict[str, float]:
        """Return no space: the search chooses its own values."""
        return {}


def _best(found: Answer, *, maximize: bool) -> tuple[str, float]:
    """Return the first run of the best setting on the longest rung, and the setting's mean metric."""
    longest = [t for t in found.trials if t.steps == found.longest and t.value is not None]
    values: dict[tuple[float, float], list[float]] = {}
    for trial in longest:
        values.setdefault((trial.weight_decay, trial.lr), []).append(trial.value or 0.0)
    if not values:
        return "", math.nan
    means = {setting: math.fsum(v) / len(v) for setting, v in values.items()}
    best = (max if maximize else min)(means, key=lambda setting: means[setting])
    run = next(t.run for t in longest if (t.weight_decay, t.lr) == best)
    return run, means[best]


def register_search_backend() -> None:
    """Make ``trainer.hyperparameter_search(backend="decaylab")`` known to transformers; a second call does nothing.

    Raises:
        DecaylabError: This version of transformers keeps its backends in another way; `tune_trainer` does without.
    """
    try:
        if NAME in HPSearchBackend._value2member_map_:
            return
        # transformers looks a backend up by an enumeration that has no place for others: a member is added to it.
        is_text = issubclass(HPSearchBackend, str)
        member = str.__new__(HPSearchBackend, NAME) if is_text else object.__new__(HPSearchBackend)
        member._name_, member._value_ = NAME.upper(), NAME
        HPSearchBackend._value2member_map_[NAME] = member
        HPSearchBackend._member_map_[NAME.upper()] = member
        _registry.ALL_HYPERPARAMETER_SEARCH_BACKENDS[member] = SearchBackend
    except (AttributeError, TypeError) as error:
        raise DecaylabError(
            f"transformers {transformers.__version__} takes no other search backends ({error}): call tune_trainer"
        ) from None
