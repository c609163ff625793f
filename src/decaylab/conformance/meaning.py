"""What can a lambda mean? The share of the weight that one step removes, in every convention in use.

The names are those of `decaylab.conventions` where that room has the convention too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from decaylab.conventions import step_decay
from decaylab.conventions.step_decay import Number
from decaylab.errors import DecaylabError


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a share may depend on at one step.

    Attributes:
        lr: Learning rate of the group at this step.
        lr_first: The learning rate that the group was made with.
        lr_seen: The largest learning rate of the group up to this step.
        weight_decay: Lambda.
        weight: The weight before the step.
        gradients: Every gradient up to this step, this one last.
        beta2: Coefficient of the second moment.
        momentum: Of SGD.
        dampening: Of SGD.
    """

    lr: float
    lr_first: float
    lr_seen: float
    weight_decay: float
    weight: Tensor
    gradients: Sequence[Tensor]
    beta2: float = 0.999
    momentum: float = 0.0
    dampening: float = 0.0

    @property
    def second_moment(self) -> float:
        """Mean over all entries of the bias-corrected second moment of the gradients."""
        total = 0.0
        for age, gradient in enumerate(reversed(self.gradients)):
            total += (1 - self.beta2) * self.beta2**age * float(gradient.square().mean())
        return total / (1 - self.beta2 ** len(self.gradients))


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """One meaning of lambda.

    Attributes:
        name: For tables.
        equation: What happens to the weight p.
        share: The share of the weight that a step removes.
        tolerance: Relative error that counts as equal, where a method's ε stands in the way of more.
        note: What there is to say of it when it is found.
    """

    name: str
    equation: str
    share: Callable[[Moment], Number]
    tolerance: float = 0.0
    note: str = ""


# The order breaks ties: two entries that agree at every measured step are one convention here.
MEANINGS: dict[str, Meaning] = {
    "torch": Meaning(
        name="PyTorch, decoupled",
        equation="p (1 - lr λ)",
        share=lambda at: step_decay.decoupled(at.lr, at.weight_decay),
    ),
    "independent": Meaning(
        name="independent: the schedule's multiplier",
        equation="p (1 - λ lr / lr_max)",
        share=lambda at: step_decay.independent(at.lr, at.weight_decay, at.lr_first),
        note="lr_max is the constructor's lr",
    ),
    "independent_seen": Meaning(
        name="independent: the schedule's multiplier",
        equation="p (1 - λ lr / lr_max)",
        share=lambda at: step_decay.independent(at.lr, at.weight_decay, at.lr_seen),
        note="lr_max is the largest lr seen so far, so a warm-up decays at full strength",
    ),
    "constant": Meaning(
        name="constant per step",
        equation="p (1 - λ)",
        share=lambda at: step_decay.constant(at.weight_decay),
        note="neither the learning rate nor its schedule has a say",
    ),
    "palm": Meaning(
        name="PaLM: lr squared",
        equation="p (1 - lr² λ)",
        share=lambda at: step_decay.quadratic(at.lr, at.weight_decay),
    ),
    "adamc": Meaning(
        name="corrected (AdamC)",
        equation="p (1 - λ lr² / lr_max)",
        share=lambda at: step_decay.corrected(at.lr, at.weight_decay, at.lr_first),
        note="lr_max is the constructor's lr",
    ),
    "adamc_seen": Meaning(
        name="corrected (AdamC)",
        equation="p (1 - λ lr² / lr_max)",
        share=lambda at: step_decay.corrected(at.lr, at.weight_decay, at.lr_seen),
        note="lr_max is the largest lr seen so far, so a warm-up decays as lr λ",
    ),
    "proximal": Meaning(
        name="proximal",
        equation="p / (1 + lr λ)",
        share=lambda at: step_decay.proximal(at.lr, at.weight_decay),
    ),
    "exponential": Meaning(
        name="exponential",
        equation="p exp(-lr λ)",
        share=lambda at: step_decay.exponential(at.lr, at.weight_decay),
    ),
    "stable": Meaning(
        name="stable (SWD, AdamS)",
        equation="p (1 - lr λ / √mean(v̂))",
        share=lambda at: at.lr * at.weight_decay / math.sqrt(at.second_moment),
        tolerance=1e-5,
        note="the share falls where gradients are large",
    ),
    "sgds": Meaning(
        name="stable for SGD (SGDS)",
        equation="p (1 - lr λ (1 - dampening) / (1 - momentum))",
        share=lambda at: step_decay.stable_sgd(at.lr, at.weight_decay, at.momentum, at.dampening),
    ),
    "rms": Meaning(
        name="relative step (Adafactor)",
        equation="p (1 - lr λ RMS(p))",
        share=lambda at: at.lr * at.weight_decay * float(at.weight.square().mean().sqrt()),
        note="lr is multiplied by the weight's own root mean square before it multiplies the decay",
    ),
    "double": Meaning(
        name="twice lr λ",
        equation="p (1 - 2 lr λ)",
        share=lambda at: 2 * at.lr * at.weight_decay,
        note="twice what PyTorch means",
    ),
    "first_lr": Meaning(
        name="the first learning rate times λ",
        equation="p (1 - lr_first λ)",
        share=lambda at: step_decay.decoupled(at.lr_first, at.weight_decay),
        note="the schedule is ignored: the constructor's lr multiplies λ for ever",
    ),
    "growth": Meaning(
        name="wrong sign",
        equation="p (1 + lr λ)",
        share=lambda at: -at.lr * at.weight_decay,
        note="the weight grows",
    ),
}

# Meanings that are not a share of the weight: found by other tests, but a caller may ask for them.
OTHER_MEANINGS = {
    "l2": "g + λ p: the decay goes through the gradient and everything that is done to it",
    "trust_ratio": "λ p is added to the update, which is then rescaled as a whole (LAMB)",
    "momentum": "λ p is added behind any division by the gradient's size, and passes the momentum (NovoGrad, LARS)",
    "switched": "lr λ on some steps, a fixed fraction of it or nothing on the others (AdamP)",
    "none": "lambda has no effect",
}


_ROUNDING = 1e-15


@dataclass(frozen=True)
class Fit:
    """The meaning that fits measured shares best.

    Attributes:
        key: In `MEANINGS`.
        error: Largest error relative to the predicted share.
        step: Index of the first sample that it misses, None where it fits all.
        text: For a near miss: the numbers.
    """

    key: str
    error: float
    step: int | None
    text: str


def fit(samples: Sequence[tuple[Moment, float]], tolerance: float) -> list[Fit]:
    """Compare the measured shares with every meaning; the best one first.

    Args:
        samples: Moments with the share that was measured.
        tolerance: Relative error that counts as equal.

    Raises:
        DecaylabError: There is no sample.
    """
    if not samples:
        raise DecaylabError("no step to fit a convention to")
    fits = []
    for key, meaning in MEANINGS.items():
        errors, slack = [], max(tolerance, meaning.tolerance)
        for moment, measured in samples:
            predicted = _predict(meaning, moment)
            if not predicted or not math.isfinite(predicted):
                errors.append(math.inf)
                continue
            # a share is a difference of weights, so it is known to 1e-15 and no better
            errors.append(max(abs(measured - predicted) - _ROUNDING, 0.0) / abs(predicted))
        missed = next((index for index, error in enumerate(errors) if not error <= slack), None)
        text = ""
        if missed is not None:
            moment, measured = samples[missed]
            text = f"{meaning.equation} predicts a share of {_predict(meaning, moment):.6g}, measured {measured:.6g}"
        fits.append(Fit(key, max(errors), missed, text))
    # those that fit all, in the table's order; then by how long they fit
    return sorted(fits, key=lambda item: (item.step is not None, -(item.step or 0)))


def switched(samples: Sequence[tuple[Moment, float]], tolerance: float) -> float | None:
    """The factor c where every share is either lr λ or c lr λ, and both occur; otherwise None."""
    ratios = [share / float(MEANINGS["torch"].share(moment)) for moment, share in samples]
    others = [ratio for ratio in ratios if abs(ratio - 1) > tolerance]
    if not others or len(others) == len(ratios):
        return None
    factor = others[0]
    return factor if all(abs(ratio - factor) <= tolerance * abs(factor) for ratio in others) else None


def power_law(samples: Sequence[tuple[Moment, float]]) -> tuple[str, float]:
    """Fit the shares by c λ^i lr^j lr_first^k: the law in words, and the largest error of the fit in log.

    For a share that no meaning fits: "0.9 λ lr" says more than "unknown".
    """
    import numpy as np

    usable = [(moment, share) for moment, share in samples if share > 0 and math.isfinite(share)]
    if len(usable) < 5:
        return "", math.inf
    table = np.log([[math.e, moment.weight_decay, moment.lr, moment.lr_first] for moment, _ in usable])
    shares = np.log([share for _, share in usable])
    solution, *_ = np.linalg.lstsq(table, shares, rcond=None)
    error = float(np.abs(table @ solution - shares).max())
    words = [f"{math.exp(solution[0]):.4g}"]
    for name, value in zip(("λ", "lr", "lr_first"), solution[1:], strict=True):
        power = round(float(value), 3)
        if power:
            words.append(name if power == 1 else f"{name}^{power:g}")
    return " ".join(words), error


def _predict(meaning: Meaning, moment: Moment) -> float:
    try:
        return float(meaning.share(moment))
    except ZeroDivisionError:
        return math.nan
