"""The classic decay rules: what is taken from a weight at each step, and which learning rate scales it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.conventions import step_decay
from decaylab.conventions.step_decay import MEASURED, DecayTerms
from decaylab.decay.fused_kernel import Convention
from decaylab.decay.rule import DecayRule, Part, Scalar, ShrinkRule, Step
from decaylab.errors import DecaylabError
from decaylab.tensors import multi_tensor
from decaylab.tensors.blocks import add_scaled, scratch, subtract
from decaylab.tensors.foreach import pieces, wide


@dataclass(frozen=True)
class L2(DecayRule):
    r"""Coupled decay, an L2 penalty: ``g <- g + lambda p`` before momentum and moments.

    Bit for bit ``torch.optim.SGD(weight_decay=lambda)`` and ``Adam(weight_decay=lambda)``. The gradient that the user
    sees (``p.grad``) is the same before and after the step. With LBFGS, the loss that its line search sees contains
    ``lambda / 2 ||p||^2`` too. A zero gradient still decays.

    Attributes:
        weight_decay: lambda, the coefficient of ``lambda / 2 ||p||^2``.
    """

    edits_gradients: ClassVar[bool] = True
    by_entry: ClassVar[bool] = True
    native_convention: ClassVar[Convention | None] = "coupled"

    def native_decay(self, part: Part, step: Step) -> Scalar | None:
        """Return lambda."""
        return self.weight_decay * part.strength

    def decay_terms(self, part: Part) -> DecayTerms:
        """State lambda, the coefficient in the gradient."""
        return DecayTerms(coupled=self.weight_decay * part.strength)

    def before(self, step: Step) -> None:
        """Put ``g + lambda p`` in the place of every gradient; `attach` puts the user's back after the step."""
        for part in step.parts:
            add_to_gradients(step, part, self.weight_decay * part.strength)

    def penalty(self, step: Step) -> Scalar | None:
        """Return ``lambda / 2 sum ||p||^2``."""
        return half_square_sum([(part.weights, self.weight_decay * part.strength) for part in step.parts])


def add_to_gradients(step: Step, part: Part, coefficient: Scalar, anchors: list[Tensor] | None = None) -> None:
    """Give every parameter a new gradient, ``g + coefficient (p - anchor)``; minus where that is climbed.

    Args:
        step: The step.
        part: The parameters.
        coefficient: What multiplies the distance.
        anchors: Where it is measured from; zero by default.
    """
    coefficient = part.sign * coefficient
    if isinstance(coefficient, Tensor):
        away = part.weights if anchors is None else torch._foreach_sub(part.weights, anchors)
        sums = list(torch._foreach_add(part.grads, torch._foreach_mul(away, coefficient.to(away[0].device))))
    elif coefficient == 0:
        return
    elif part.weights[0].device.type == "cpu" or multi_tensor.usable(part.weights, part.grads):
        sums = step.room(part)
        add_scaled(sums, part.grads, part.weights, anchors, coefficient)
    else:
        away = part.weights if anchors is None else torch._foreach_sub(part.weights, anchors)
        sums = list(torch._foreach_add(part.grads, away, alpha=coefficient))
    part.replace_grads(sums)


def half_square_sum(terms: list[tuple[list[Tensor], Scalar]]) -> Scalar:
    """Return ``sum c / 2 ||w||^2`` over lists of tensors ``w`` with their coefficients ``c``."""
    total: Scalar = 0.0
    for weights, coefficient in terms:
        squares = torch.stack(torch._foreach_norm(weights, 2, dtype=wide(weights[0].dtype))).square().sum()
        total = total + 0.5 * coefficient * squares
    return total


@dataclass(frozen=True)
class Decoupled(ShrinkRule):
    r"""Decoupled decay, AdamW's: ``p <- p (1 - lr_t lambda)``, then the optimizer's own update.

    Bit for bit ``torch.optim.AdamW(weight_decay=lambda)``. A zero gradient still decays. Loshchilov and Hutter 2019
    (arXiv 1711.05101), in torch's convention.

    Attributes:
        weight_decay: lambda, multiplied by the learning rate of each step.
    """

    weight_decay: float = 1e-2

    def shrink(self, part: Part, step: Step | None) -> Scalar:
        """Return ``lr lambda``."""
        return step_decay.decoupled(part.lr, self.weight_decay * part.strength)

    def native_decay(self, part: Part, step: Step) -> Scalar | None:
        """Return lambda."""
        return self.weight_decay * part.strength


@dataclass(frozen=True)
class _OverPeak(ShrinkRule):
    """Base of the rules that divide by the peak of the learning rate.

    Attributes:
        max_lr: The peak. None takes the group's ``max_lr`` or ``initial_lr`` (torch's schedulers write them), else the
            learning rate at attaching; the value is kept in the optimizer's state.
    """

    max_lr: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_lr is not None and not self.max_lr > 0:
            raise DecaylabError(f"max_lr must be above 0, got {self.max_lr}")


@dataclass(frozen=True)
class Independent(_OverPeak):
    r"""Decay times the schedule alone: ``p <- p (1 - lambda lr_t / lr_max)``.

    So lambda does not change its meaning with the peak learning rate: ``Independent(lambda lr_max)`` is
    ``Decoupled(lambda)``. A zero gradient still decays. Loshchilov and Hutter 2019 in their own convention; Wortsman et
    al. 2023 (arXiv 2309.14322).

    Attributes:
        weight_decay: lambda, the share taken by a step at the peak learning rate.
    """

    weight_decay: float = 1e-4

    def shrink(self, part: Part, step: Step | None) -> Scalar:
        """Return ``lambda lr / lr_max``."""
        return step_decay.independent(part.lr, self.weight_decay * part.strength, part.find_max_lr())

    def native_decay(self, part: Part, step: Step) -> Scalar | None:
        """Return ``lambda / lr_max``."""
        return self.weight_decay * part.strength / part.find_max_lr()


@dataclass(frozen=True)
class Constant(ShrinkRule):
    r"""The same share at every step, whatever the learning rate: ``p <- p (1 - lambda)``.

    A zero gradient still decays, and so does a learning rate of 0.

    Attributes:
        weight_decay: lambda, the share taken by every step.
    """

    def shrink(self, part: Part, step: Step | None) -> Scalar:
        """Return lambda."""
        return self.weight_decay * part.strength

    def native_decay(self, part: Part, step: Step) -> Scalar | None:
        """Return ``lambda / lr``, while there is a learning rate."""
        if isinstance(part.lr, Tensor) or part.lr <= 0:
            return None
        return self.weight_decay * part.strength / part.lr


@dataclass(frozen=True)
class QuadraticLR(ShrinkRule):
    r"""Decay times the square of the learning rate: ``p <- p (1 - lr_t^2 lambda)``.

    A zero gradient still decays. Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), with lambda = 1 there.

    Attributes:
        weight_decay: lambda, multiplied by the squared learning rate of each step.
    """

    def shrink(self, part: Part, step: Step | None) -> Scalar:
        """Return ``lr^2 lambda``."""
        return step_decay.quadratic(part.lr, self.weight_decay * part.strength)

    def native_decay(self, part: Part, step: Step) -> Scalar | None:
        """Return ``lr lambda``."""
        return part.lr * (self.weight_decay * part.strength)


@dataclass(frozen=True)
class Corrected(_OverPeak):
    r"""AdamC's decay for normalised layers: ``p <- p (1 - lambda lr_t^2 / lr_max)``.

    With plain decay the steady-state ratio of gradient to weight norm of a normalised layer is
    ``sqrt(2 lambda / lr_t)`` and blows up as the learning rate falls; here it stays ``sqrt(2 lambda / lr_max)``. Meant
    for weights whose output is normalised (not for the normalisation's gains, nor for an output head without
    normalisation: give those `Decoupled`). A zero gradient still decays. Defazio 2025 (arXiv 2506.02285).

    Attributes:
        weight_decay: lambda, as in `Decoupled` at the peak learning rate.
    """

    def shrink(self, part: Part, step: Step | None) -> Scalar:
        """Return ``lambda lr^2 / lr_max``."""
        return step_decay.corrected(part.lr, self.weight_decay * part.strength, part.find_max_lr())

    def native_decay(self, part: Part, step: Step) -> Scalar | None:
        """Return ``lambda lr / lr_max``."""
        return step_decay.independent(part.lr, self.weight_decay * part.strength, part.find_max_lr())


@dataclass(frozen=True)
class Cautious(DecayRule):
    r"""Decay only where it does not work against the update: ``p <- p - lr u - lr lambda 1[u p >= 0] p``.

    ``u`` is the optimizer's whole update (momentum, preconditioning), taken as what the weights really moved by; ``p``
    is the old weight. Where the update is zero the weight decays, so a zero gradient without momentum decays all. Chen
    et al. 2025 (arXiv 2510.12402), algorithm 1.

    Attributes:
        weight_decay: lambda, as in `Decoupled`.
    """

    keeps_old: ClassVar[bool] = True
    by_entry: ClassVar[bool] = True

    def check(self, optimizer: Optimizer, part: Part) -> None:
        """Refuse a decay that takes a whole weight or more in one step."""
        self._refuse_flip(self._largest_share(part))

    def decay_terms(self, part: Part) -> DecayTerms:
        """State that the share is measured: which entries decay, the update decides."""
        return MEASURED

    def _largest_share(self, part: Part) -> Scalar:
        return step_decay.decoupled(part.lr, self.weight_decay * part.strength)

    def after(self, step: Step) -> None:
        """Take ``lr lambda p`` from the weights whose update did not point away from zero."""
        for part in step.parts:
            coefficient = self._largest_share(part)
            self._refuse_flip(coefficient)
            if not isinstance(coefficient, Tensor) and coefficient == 0:
                continue
            if multi_tensor.usable(part.weights, part.old):
                multi_tensor.cautious_(part.weights, part.old, coefficient)
                continue
            for old, new in pieces(part.old, part.weights):
                self._decay(old, new, coefficient)

    def _decay(self, old: list[Tensor], new: list[Tensor], coefficient: Scalar) -> None:
        # Signs, not products: the product of two small numbers may round to zero and lose its sign.
        agree = subtract(old, new)
        if len(agree) == 1 and agree[0].device.type == "cpu":
            agree[0].mul_(torch.sign(old[0], out=scratch(old[0], 1)))
            torch.ge(agree[0], 0.0, out=agree[0])
        else:
            torch._foreach_sign_(agree)
            torch._foreach_mul_(agree, torch._foreach_sign(old))
            torch._foreach_add_(agree, 1.0)
            torch._foreach_clamp_max_(agree, 1.0)
        torch._foreach_mul_(agree, old)
        if isinstance(coefficient, Tensor):
            torch._foreach_mul_(agree, coefficient.to(agree[0].device))
            coefficient = 1.0
        torch._foreach_add_(new, agree, alpha=-coefficient)
