"""Sentences that say what the numbers of an explanation mean for the run."""

from __future__ import annotations

from decaylab.conventions.explanation import Explanation
from decaylab.quantities import format_count, format_number

IDLE_TIMESCALES = 0.1
"""Timescales in a run below which decay changes little."""
EQUILIBRIUM_TIMESCALES = 3.0
"""Timescales in a run above which the start is forgotten."""
STRONG_TIMESCALE = 100
"""Updates: a weight that is an average of fewer is mostly the noise of its last gradients."""


def reading(run: Explanation) -> list[str]:
    """Say what a weight decay does in this run, and where its numbers stop to hold.

    Args:
        run: What :func:`decaylab.conventions.explain` returned.

    Returns:
        Sentences, the most important first.
    """
    if run.peak.timescale_steps is None or run.peak.timescale_share_of_run is None:
        return ["No decay: weights are never pulled to 0, and for weights before a normalisation the norm only grows."]
    share, count, left = run.peak.timescale_share_of_run, run.timescales_in_run, run.total_shrinkage
    updates = f"{format_count(round(run.peak.timescale_steps))} updates"
    lines = [
        f"At the peak a weight is an average of its last {updates}, {_percent(share)} of the run."
        if share <= 1
        else f"One timescale at the peak is {updates}, {_times(share)} the run: a weight keeps every update it got."
    ]
    if run.peak.timescale_steps < STRONG_TIMESCALE * (1 - 1e-9):
        lines.insert(0, _too_strong(run.peak.timescale_steps, run))
    if count < IDLE_TIMESCALES:
        lines.append(
            f"The decay is close to idle: over the whole run it removes {_percent(1 - left)} of a weight. "
            f"{_times(1 / count)} the decay would go through one timescale."
        )
    elif count < EQUILIBRIUM_TIMESCALES:
        lines.append(
            f"The run goes through {format_number(count, 3)} timescales: decay alone would leave {_percent(left)} of "
            "the initial weights, so they still matter at the end."
        )
    else:
        lines.append(
            f"The run goes through {format_number(count, 3)} timescales: the initial weights are forgotten "
            f"({_percent(abs(left))} left), and the balance of decay and gradients sets the norms."
        )
    if share > 1:
        lines.append("The equilibrium is a limit here: one timescale is longer than the run.")
    elif (run.end.timescale_share_of_run or 0) > 1:
        lines.append(
            "The last column's equilibrium is a limit: with the small learning rate at the end it would take "
            f"{format_number(run.end.timescale_share_of_run or 0, 2)} runs to get there."
        )
    epochs = run.peak.timescale_epochs
    if run.size.dataset_size is not None and run.size.epochs is not None and epochs is not None:
        lines.append(_epochs(epochs, run.size.epochs))
    return lines


def _too_strong(timescale: float, run: Explanation) -> str:
    factor = STRONG_TIMESCALE / timescale
    return (
        f"The decay is too strong: within {format_number(timescale, 3)} updates a weight is forgotten, so it holds "
        f"little but the noise of its last gradients. {format_number(run.weight_decay / factor, 2)} would make it an "
        f"average of {STRONG_TIMESCALE} updates at this learning rate."
    )


def _epochs(timescale: float, epochs: float) -> str:
    """Judge the timescale by the rule of thumb of Wang and Aitchison 2024: between one epoch and all of them."""
    seen, run = f"The timescale, {format_number(timescale, 3)} epochs,", f"{format_number(epochs, 3)} epochs"
    if timescale < 1:
        return f"{seen} is below one epoch, so part of the data is forgotten: {_times(timescale)} the decay would do."
    if timescale > epochs:
        return f"{seen} is longer than the run's {run}: the decay acts little."
    return f"{seen} lies between one epoch and the run's {run}, where a good one is found (Wang and Aitchison 2024)."


def _percent(share: float) -> str:
    return f"{format_number(100 * share, 3)} %"


def _times(factor: float) -> str:
    return f"{format_number(factor, 2)} times"
