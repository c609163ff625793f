"""How much decay alone shrinks a weight over a run: products over the steps of a schedule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from decaylab.conventions.table import Convention, Setting
from decaylab.errors import DecaylabError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def shrinkage(
    peak_decay: float, multipliers: npt.NDArray[np.float64], convention: Convention, setting: Setting
) -> float:
    """Return what is left of a weight that gets no gradient from the loss: the product of the steps' factors.

    Decoupled: prod_t (1 - d s_t^power). L2 through momentum: the exact recursion of torch's SGD,
    b <- mu b + (1 - dampening) lambda p, p <- p - lr_t b, as a product of 2 x 2 matrices.

    Args:
        peak_decay: Share d of the weight removed per step at the peak (in the long run, for L2).
        multipliers: s_t = lr_t / peak lr of every step, shape (steps,).
        convention: How lambda acts.
        setting: Peak learning rate and momentum.

    Returns:
        Final weight over first weight; below 0 where momentum overshoots.
    """
    import numpy as np

    if not (convention.through_momentum and setting.momentum):
        return float(np.exp(np.log1p(-peak_decay * multipliers**convention.power).sum()))
    lr = setting.lr * multipliers
    pull = np.full(lr.shape, peak_decay / setting.lr / setting.momentum_gain * (1 - setting.dampening))
    pull[0] /= 1 - setting.dampening  # torch's first buffer is the gradient itself, undampened
    factors = np.empty((len(lr), 2, 2))
    factors[:, 0, 0] = 1 - lr * pull
    factors[:, 0, 1] = -lr * setting.momentum
    factors[:, 1, 0] = pull
    factors[:, 1, 1] = setting.momentum
    while len(factors) > 1:  # neighbours at once: as exact as one by one, and quick for millions of steps
        last = factors[len(factors) // 2 * 2 :]
        factors = np.concatenate([factors[1::2] @ factors[: len(factors) // 2 * 2 : 2], last])
    return float(factors[0, 0, 0])


def factor_per_step(peak_decay: float, multiplier: float, convention: Convention, setting: Setting) -> float:
    """Return what is left of a weight after one step, once momentum has settled.

    1 - d s^power when decoupled; for L2 with momentum mu the larger root z of
    z^2 - (1 + mu - lr (1 - dampening) lambda) z + mu = 0.

    Args:
        peak_decay: Share d of the weight removed per step at the peak.
        multiplier: s = lr_t / peak lr of the step.
        convention: How lambda acts.
        setting: Peak learning rate and momentum.

    Raises:
        DecaylabError: Momentum and decay are so strong that the weight swings around 0 instead of shrinking.
    """
    decay = peak_decay * multiplier**convention.power
    if not (convention.through_momentum and setting.momentum):
        return 1 - decay
    trace = 1 + setting.momentum - decay / setting.momentum_gain * (1 - setting.dampening)
    discriminant = trace**2 - 4 * setting.momentum
    if discriminant < 0:
        most = (1 - math.sqrt(setting.momentum)) ** 2 * setting.momentum_gain / (1 - setting.dampening)
        limit = most / (convention.scale(setting) * multiplier**convention.power)
        raise DecaylabError(
            f"with momentum {setting.momentum:g} this decay makes weights swing around 0: keep lambda below {limit:.3g}"
        )
    return (trace + math.sqrt(discriminant)) / 2


def same_total_decay(total_shrinkage: float, multipliers: npt.NDArray[np.float64], power: int) -> float | None:
    """Return the decay at the peak that shrinks a weight over the whole run by a given factor.

    Solves sum_t log(1 - d s_t^power) = log(total_shrinkage) for d, by Newton's method from the first-order solution.

    Args:
        total_shrinkage: Final weight over first weight, in (0, 1].
        multipliers: s_t of every step, shape (steps,).
        power: Exponent of the multiplier.

    Returns:
        Share d of the weight removed per step at the peak; None where the factor is not in (0, 1].
    """
    import numpy as np

    if not 0 < total_shrinkage <= 1:
        return None
    goal, shares = math.log(total_shrinkage), multipliers**power
    limit = 1 / float(shares.max())
    decay = min(-goal / float(shares.sum()), 0.5 * limit)
    for _ in range(100):
        step = (float(np.log1p(-decay * shares).sum()) - goal) / float((shares / (1 - decay * shares)).sum())
        # The sum is concave, so a step from below can overshoot the limit, where a weight would vanish: go half way.
        following = decay + step if decay + step < limit else (decay + limit) / 2
        if following == decay or abs(following - decay) <= 1e-15 * decay:
            break
        decay = following
    return decay
