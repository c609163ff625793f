"""Weight decay in fine-tuning: what a decay towards 0 does with a small learning rate, and what holds on instead."""

from __future__ import annotations

from decaylab.advice.candidates import DecayOfRun
from decaylab.advice.recommendation import Recommendation
from decaylab.conventions.reading import IDLE_TIMESCALES
from decaylab.quantities import format_number

COMMON = 0.1
"""The weight decay that many recipes carry over from pre-training."""
_ANCHORS = (
    "To hold on to what was learned, decay towards the pre-trained weights instead of towards 0: the rules "
    "l2_to_anchor (L2-SP, Li, Grandvalet and Davoine 2018, arXiv 1802.01483: a penalty on the distance) and "
    "selective_projection (SPD, Tian et al. 2024, arXiv 2411.01713: only where gradient and displacement disagree)."
)


def is_likely(run: DecayOfRun, *, params: int | None, tokens: int | None) -> bool:
    """Tell whether a run looks like fine-tuning: fewer tokens than parameters, and a decay of 0.1 is close to idle."""
    if params is None or tokens is None or tokens >= params:
        return False
    return COMMON * run.timescales_per_unit < IDLE_TIMESCALES


def recommend(run: DecayOfRun) -> Recommendation:
    """Say what decay towards 0 does in this run; the value is 0.

    Args:
        run: The run.
    """
    common = run.candidate(COMMON, "")
    unit = run.timescales_per_unit
    worked = f"{COMMON:g} removes {format_number(100 * common.removed, 3)} % of a weight in the whole run"
    if common.verdict == "close to idle":
        worked += f"; it would take {format_number(IDLE_TIMESCALES / unit, 2)} to remove a tenth"
        first = "Decay towards 0 does next to nothing here: leave it at 0, or at what the recipe has."
    else:
        first = "Decay towards 0 takes that much of the pre-trained weights too: keep it small, or 0."
    return Recommendation(
        quantity="weight_decay",
        value=0.0,
        unit="",
        method="fine-tuning",
        formula="share removed = 1 - Π (1 - lr_t λ), exact for a decoupled decay"
        if run.optimizer != "sgd"
        else "share removed by the recursion of SGD's L2 with momentum",
        worked=worked,
        source="our arithmetic, as in `decaylab explain`",
        fitted_on="nothing is fitted; whether decay helps a fine-tuned model is for a sweep to say",
        notes=(first, _ANCHORS),
    )
