"""What weight decay did in a run of a store: the diagnosis of `watch`, from what the run recorded and its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from decaylab.config.schema import AnyRun, LanguageRun
from decaylab.config.validation import LOSS_PENALTIES
from decaylab.conventions import step_decay
from decaylab.decay.registry import TABLE, canonical
from decaylab.errors import DecaylabError
from decaylab.monitor.thresholds import STRONG_TIMESCALE
from decaylab.schedules import values

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

_SOME_STEPS = 10_000
PREFIXES = ("weights/norm", "effective_lr/", "update/")
_STRONG_SHARE = 1 / STRONG_TIMESCALE  # of each weight a step


def decay_by_step(config: AnyRun, total_steps: int) -> npt.NDArray[np.float64] | None:
    """Return the share of a weight that each step takes by the rule; None where it depends on more than the settings.

    Args:
        config: The run's settings.
        total_steps: Its length.

    Returns:
        Shape (total_steps,).
    """
    import numpy as np

    settings, peak, decay = config.optimizer, config.optimizer.lr, config.decay.weight_decay
    shares: dict[str, Callable[[Any], Any]] = {
        "decoupled": lambda lr: step_decay.decoupled(lr, decay),
        "independent": lambda lr: step_decay.independent(lr, decay, peak),
        "constant": lambda lr: step_decay.constant(decay) + 0 * lr,
        "quadratic_lr": lambda lr: step_decay.quadratic(lr, decay),
        "corrected": lambda lr: step_decay.corrected(lr, decay, peak),
    }
    if settings.name == "sgd":
        shares["l2"] = lambda lr: step_decay.coupled(lr, decay, settings.momentum, settings.dampening)
    rule = config.decay.rule.replace("-", "_")
    if rule not in shares or config.decay.options or not decay:
        return None
    rates = values(config.schedule, np.arange(total_steps), peak, total_steps)
    return np.asarray(shares[rule](rates), dtype=np.float64)


def diagnosis(config: AnyRun, table: pd.DataFrame, total_steps: int) -> str:
    """Say what decay did in a run; empty where it recorded no norms, or its rule takes what only a log can count.

    Args:
        config: The run's settings.
        table: Its records: columns step, key, value.
        total_steps: Steps that it has done.
    """
    own = table[table["key"].map(lambda key: key.startswith(PREFIXES))]
    if own.empty or total_steps < 1:
        return ""
    share = decay_by_step(config, total_steps)
    if share is None and (config.decay.weight_decay or not _rests_at_zero(config.decay.rule)):
        return ""
    from decaylab.monitor.diagnosis import diagnose
    from decaylab.monitor.text import describe

    wide = own.pivot(index="step", columns="key", values="value").sort_index()
    wide = wide[wide.index > 0] if (wide.index > 0).any() else wide
    recorded = [key.removeprefix("weights/norm/") for key in wide.columns if key.startswith("weights/norm/")]
    roles = [role for role in recorded if "all" in config.decay.roles or role in config.decay.roles]
    passed = None if share is None else share.cumsum()
    records = []
    for step, row in wide.iterrows():
        record = {"step": float(step), **{str(k): float(v) for k, v in row.items() if v == v}}  # type: ignore[arg-type]
        if share is not None and passed is not None:
            here = min(max(int(step), 1), total_steps) - 1  # type: ignore[call-overload]
            steps = 1 / share[here] if share[here] > 0 else float("inf")
            for suffix in ("", *(f"/{role}" for role in roles)):
                record |= {f"timescale/passed{suffix}": float(passed[here]), f"timescale/steps{suffix}": float(steps)}
        records.append(record)
    return describe(diagnose(records))


def _rests_at_zero(rule: str) -> bool:
    """Whether a rule does nothing at weight_decay 0: rules of norm control have none and act all the same."""
    return rule in LOSS_PENALTIES or (canonical(rule) in TABLE and TABLE[canonical(rule)].scheduled)


def too_strong(config: AnyRun) -> str:
    """Say that decay will leave little of what a run learns; empty where it will not."""
    try:
        # Of a vision run the data decides the number of steps; the peak does not depend on it.
        share = decay_by_step(config, config.steps if isinstance(config, LanguageRun) else _SOME_STEPS)
    except DecaylabError:  # a schedule that does not fit is said elsewhere
        return ""
    if share is None or not len(share) or share.max() <= _STRONG_SHARE:
        return ""
    most = float(share.max())
    return (
        f"weight decay takes {100 * most:.2g} % of each weight a step at the peak: only the last {1 / most:,.0f} steps "
        f"or so are remembered; at decay.weight_decay {config.decay.weight_decay * _STRONG_SHARE / most:.2g} it is 1 %"
    )
