"""Weight decay from a timescale: moved from a run that worked, or from the rule that it lies between 1 and all epochs.

A decoupled decay makes a weight an exponential average over its last 1 / (lr lambda) updates (Wang and Aitchison 2024).
Holding that timescale as a share of the run when data, batch, learning rate or width change says how lambda moves.
"""

from __future__ import annotations

import math

from decaylab.advice.recommendation import Recommendation
from decaylab.errors import DecaylabError
from decaylab.quantities import format_number

SOURCE = "Wang and Aitchison 2024, arXiv 2405.13698"


def constant_timescale(
    weight_decay: float, *, lr_ratio: float = 1.0, batch_ratio: float = 1.0, data_ratio: float = 1.0
) -> float:
    """Return the lambda that keeps tau = B / (lr lambda D), each ratio being new over old.

    lambda' = lambda * batch_ratio / (lr_ratio * data_ratio).

    Two special cases have names. muP (lr ~ 1 / width): lr_ratio = 1 / width_ratio, so lambda grows with the width.
    nanochat (lr ~ sqrt(batch)): lr_ratio = sqrt(batch_ratio), so lambda' = lambda sqrt(batch_ratio) / data_ratio.

    Examples:
        >>> constant_timescale(0.1, data_ratio=2.0)
        0.05
        >>> constant_timescale(0.1, lr_ratio=1 / 4)
        0.4
    """
    return weight_decay * batch_ratio / (lr_ratio * data_ratio)


def weight_decay_range(lr: float, steps_per_epoch: float, epochs: float, gain: float = 1.0) -> tuple[float, float]:
    """Return the lambdas whose timescale is the whole run (low) and one epoch (high).

    tau_epoch = 1 / (lr * gain * lambda * steps_per_epoch), wanted between 1 and the number of epochs.

    Args:
        lr: Peak learning rate.
        steps_per_epoch: Updates per pass over the data set.
        epochs: Passes.
        gain: What SGD's momentum multiplies the decay by, 1 / (1 - momentum); 1 for decoupled decay.

    Raises:
        DecaylabError: Below one epoch, where the rule has no range.
    """
    if not epochs >= 1:
        raise DecaylabError(f"a timescale between one epoch and all of them needs at least one epoch, got {epochs:g}")
    high = 1 / (lr * gain * steps_per_epoch)
    return high / epochs, high


def recommend_range(*, lr: float, steps_per_epoch: float, epochs: float, gain: float, optimizer: str) -> Recommendation:
    """Recommend a range of weight decay for a run of several epochs, and its geometric middle to start from.

    Args:
        lr: Peak learning rate.
        steps_per_epoch: Updates per pass over the data set.
        epochs: Passes.
        gain: What SGD's momentum multiplies the decay by.
        optimizer: For the warning: the rule was found with AdamW.
    """
    low, high = weight_decay_range(lr, steps_per_epoch, epochs, gain)
    factor = f" x {format_number(gain, 3)} by momentum" if gain != 1 else ""
    return Recommendation(
        quantity="weight_decay",
        value=math.sqrt(low * high),
        low=low,
        high=high,
        unit="",
        method="timescale",
        formula="1 / (lr λ steps per epoch) between 1 and the number of epochs",
        worked=(
            f"{steps_per_epoch:,.0f} steps an epoch at lr {format_number(lr)}{factor}: {format_number(high, 3)} "
            f"forgets in one epoch, {format_number(low, 3)} in {format_number(epochs)}"
        ),
        source=SOURCE,
        fitted_on="ResNet-18 and ViT on CIFAR-10 and ImageNet, NanoGPT on OpenWebText, AdamW",
        warnings=() if optimizer == "adamw" else ("The rule was found with AdamW; here it is carried over.",),
        notes=("The value is the geometric middle of the range.",),
    )
