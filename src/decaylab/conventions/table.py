"""Which conventions for lambda are in use, and what value means the same in another one.

Every convention removes a share d_t of the weight at step t, p <- p (1 - d_t). They differ in what lambda is multiplied
by (the formulas are in `decaylab.conventions.step_decay`). With the peak learning rate lr, the schedule's multiplier
s_t = lr_t / lr and the number of steps T, all of them are

    d_t = lambda * scale * s_t^power

so lambdas convert by the ratio of the scales, exactly for any schedule between conventions of the same power, and
otherwise only where s_t = 1: at the peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from decaylab.conventions import step_decay
from decaylab.errors import DecaylabError, unknown

Match = Literal["exact", "long_run", "peak"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a conversion may depend on."""

    lr: float
    """Peak learning rate."""
    total_steps: int | None = None
    """Updates of the run; the normalised Loshchilov-Hutter decay needs it."""
    momentum: float = 0.0
    """Momentum of SGD; it amplifies a decay that is added to the gradient."""
    dampening: float = 0.0
    """Dampening of SGD's momentum."""

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise DecaylabError(f"the learning rate must be a number above 0, got {self.lr}")
        if self.total_steps is not None and self.total_steps < 1:
            raise DecaylabError(f"a run needs at least one step, got {self.total_steps}")
        if not 0 <= self.momentum < 1:
            raise DecaylabError(f"momentum must be at least 0 and below 1, got {self.momentum}")
        if not 0 <= self.dampening < 1:
            raise DecaylabError(f"dampening must be at least 0 and below 1, got {self.dampening}")

    @property
    def momentum_gain(self) -> float:
        """What momentum multiplies a constant gradient by in the long run: (1 - dampening) / (1 - momentum)."""
        return step_decay.momentum_gain(self.momentum, self.dampening)


@dataclass(frozen=True, kw_only=True)
class Convention:
    """One meaning of lambda."""

    name: str
    """For tables."""
    equation: str
    """What is done each step."""
    source: str
    """Who means it so."""
    power: int
    """Exponent of the schedule's multiplier in the decay of a step."""
    share: Callable[[float, float, Setting], float]
    """Share of the weight that a step removes, from its learning rate, lambda and the setting."""
    through_momentum: bool = False
    """The decay is added to the gradient and passes the momentum buffer: L2."""

    def scale(self, setting: Setting) -> float:
        """Return the decay of a step at the peak, divided by lambda."""
        return self.share(setting.lr, 1.0, setting)


def _independent(lr: float, weight_decay: float, setting: Setting) -> float:
    return float(step_decay.independent(lr, weight_decay, setting.lr))


def _normalised(lr: float, weight_decay: float, setting: Setting) -> float:
    if setting.total_steps is None:
        raise DecaylabError("the normalised Loshchilov-Hutter decay depends on the run's length: give the steps")
    return _independent(lr, weight_decay, setting) / math.sqrt(setting.total_steps)


def _decoupled(lr: float, weight_decay: float, setting: Setting) -> float:
    return float(step_decay.decoupled(lr, weight_decay))


def _coupled(lr: float, weight_decay: float, setting: Setting) -> float:
    return float(step_decay.coupled(lr, weight_decay, setting.momentum, setting.dampening))


CONVENTIONS: dict[str, Convention] = {
    "torch": Convention(
        name="PyTorch AdamW, Lion; any decoupled",
        equation="p <- p (1 - lr_t λ)",
        source="torch.optim.AdamW, Muon, Adafactor; timm; transformers",
        power=1,
        share=_decoupled,
    ),
    "optax": Convention(
        name="Optax adamw",
        equation="p <- p - lr_t (u + λ p)",
        source="optax.adamw; add_decayed_weights(λ) before scale_by_learning_rate",
        power=1,
        share=_decoupled,
    ),
    "optax_last": Convention(
        name="Optax add_decayed_weights last",
        equation="p <- p + λ p, so λ < 0",
        source="add_decayed_weights(λ) after scale_by_learning_rate: no learning rate, and the sign turns",
        power=0,
        share=lambda lr, wd, s: -float(step_decay.constant(wd)),
    ),
    "keras": Convention(
        name="Keras weight_decay",
        equation="p <- p (1 - lr_t λ)",
        source="keras.optimizers: every optimizer, also SGD, decays decoupled",
        power=1,
        share=_decoupled,
    ),
    "loshchilov_hutter": Convention(
        name="Loshchilov-Hutter",
        equation="p <- p (1 - s_t λ)",
        source="Decoupled Weight Decay Regularization, 2019: the schedule's multiplier alone",
        power=1,
        share=_independent,
    ),
    "loshchilov_hutter_normalised": Convention(
        name="Loshchilov-Hutter, normalised",
        equation="p <- p (1 - s_t λ / √steps)",
        source="the same paper; √(batch / (examples x epochs)) = 1 / √steps",
        power=1,
        share=_normalised,
    ),
    "independent": Convention(
        name="independent (A)",
        equation="p <- p (1 - s_t λ)",
        source="Wortsman et al. 2023; Composer DecoupledAdamW; optimi decouple_lr",
        power=1,
        share=_independent,
    ),
    "constant": Convention(
        name="constant per step (B)",
        equation="p <- p (1 - λ)",
        source="pytorch_optimizer fixed_decay; Emerging-Optimizers independent; big_vision Adafactor",
        power=0,
        share=lambda lr, wd, s: float(step_decay.constant(wd)),
    ),
    "palm": Convention(
        name="PaLM, lr² (C)",
        equation="p <- p (1 - lr_t² λ)",
        source="Chowdhery et al. 2022; Emerging-Optimizers palm",
        power=2,
        share=lambda lr, wd, s: float(step_decay.quadratic(lr, wd)),
    ),
    "adamc": Convention(
        name="AdamC (corrected)",
        equation="p <- p (1 - λ lr_t² / lr)",
        source="Defazio 2025, for weights before a normalisation",
        power=2,
        share=lambda lr, wd, s: float(step_decay.corrected(lr, wd, s.lr)),
    ),
    "l2": Convention(
        name="L2 for SGD",
        equation="g <- g + λ p",
        source="torch.optim.SGD(weight_decay=λ); optax.chain(add_decayed_weights(λ), sgd(...))",
        power=1,
        share=_coupled,
        through_momentum=True,
    ),
    "l2_loss": Convention(
        name="L2 in SGD's loss, with 1/2",
        equation="loss + λ/2 ‖p‖²",
        source="the textbook form; the same as L2 for SGD",
        power=1,
        share=_coupled,
        through_momentum=True,
    ),
    "l2_loss_full": Convention(
        name="L2 in SGD's loss, no 1/2",
        equation="loss + λ ‖p‖²",
        source="a common way to write it, tf.keras.regularizers.L2: its gradient is 2 λ p",
        power=1,
        share=lambda lr, wd, s: 2 * _coupled(lr, wd, s),
        through_momentum=True,
    ),
}

# The conventions of decay rules whose share of a weight, or the largest that it can be (cautious), is known before a
# step: for settings that are judged without building the rule. A test holds them to the rules' own terms.
RULE_CONVENTIONS = {
    "decoupled": "torch",
    "cautious": "torch",
    "independent": "independent",
    "constant": "constant",
    "quadratic_lr": "palm",
    "corrected": "adamc",
    "l2": "l2",
    "l2_to_anchor": "l2",
    "loss_l2": "l2_loss_full",
    "loss_l2_half": "l2_loss",
}


def get(key: str) -> Convention:
    """Return a convention by its key; an unknown key is an error that lists the known ones."""
    if key not in CONVENTIONS:
        raise unknown("convention", key, CONVENTIONS)
    return CONVENTIONS[key]


def peak_decay(weight_decay: float, convention: str, setting: Setting) -> float:
    """Return the share of the weight that a step at the peak learning rate removes, d = lambda * scale.

    For L2 with momentum it is the long-run rate, lr λ (1 - dampening) / (1 - momentum).
    """
    return get(convention).share(setting.lr, weight_decay, setting)


def convert(
    value: float,
    from_: str,
    to: str,
    *,
    lr: float,
    total_steps: int | None = None,
    momentum: float = 0.0,
    dampening: float = 0.0,
) -> float:
    """Return the lambda of one convention that does at the peak what a lambda of another one does.

    value_to = value_from * scale_from / scale_to. Use :func:`match` to know how far the two agree away from the peak.

    Args:
        value: Lambda in the convention ``from_``.
        from_: A key of ``CONVENTIONS``.
        to: A key of ``CONVENTIONS``.
        lr: Peak learning rate.
        total_steps: Updates of the run, where one of the two is normalised by it.
        momentum: SGD's momentum, where one of the two is L2.
        dampening: SGD's dampening.

    Returns:
        Lambda in the convention ``to``; negative for ``optax_last``.

    Raises:
        DecaylabError: An unknown convention, an impossible setting, or missing steps.

    Examples:
        >>> round(convert(0.1, "torch", "independent", lr=4e-4), 12)
        4e-05
    """
    setting = Setting(lr=lr, total_steps=total_steps, momentum=momentum, dampening=dampening)
    if not math.isfinite(value):
        raise DecaylabError(f"weight decay must be a finite number, got {value}")
    scale = get(to).scale(setting)
    if scale == 0:
        raise DecaylabError(f"the learning rate {lr:g} is too small for {to}: its square is 0 to a computer")
    return value * get(from_).scale(setting) / scale


def match(from_: str, to: str, *, momentum: float = 0.0, schedule_is_flat: bool = False) -> Match:
    """Say how far a converted value does the same.

    Args:
        from_: A key of ``CONVENTIONS``.
        to: A key of ``CONVENTIONS``.
        momentum: SGD's momentum.
        schedule_is_flat: The learning rate is the same at every step.

    Returns:
        ``exact``: at every step of any schedule. ``long_run``: the same rate once the momentum buffer has settled.
        ``peak``: only while the learning rate is at its peak.
    """
    one, other = get(from_), get(to)
    if one.power != other.power and not schedule_is_flat:
        return "peak"
    if momentum and one.through_momentum != other.through_momentum:
        return "long_run"
    return "exact"
