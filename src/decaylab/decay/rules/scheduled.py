"""Scheduled weight decay: the share that is taken follows the size of the gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.conventions import step_decay
from decaylab.conventions.step_decay import MEASURED, DecayTerms
from decaylab.decay.rule import Part, Scalar, ShrinkRule, Step, is_sgd
from decaylab.errors import DecaylabError
from decaylab.tensors.foreach import Tensors, by_kind, exact, squared_norms, sums
from decaylab.tensors.sharding import complete_sums, local


@dataclass(frozen=True)
class Scheduled(ShrinkRule):
    r"""Scheduled weight decay (SWD): AdamS on Adam's family, SGDS on SGD.

    * Adam: ``p <- p (1 - lr_t lambda / sqrt(v_mean))``, where ``v_mean`` is one number, the mean of the bias-corrected
      second moment over all weights of the optimizer that have a gradient, this step's gradient included. Decay is
      strong where gradients are small. With amsgrad the running maximum takes the place of the moment.
    * SGD with momentum mu: ``p <- p (1 - lr_t lambda (1 - dampening) / (1 - mu))``.

    ``v_mean`` is found before the step from the stored moments and the gradients by two sums, so no weight is copied
    and the optimizer is not touched. The factor is not bounded, as in the paper: very small gradients with a large
    lambda can take more than the weight. A zero gradient still decays; while all gradients have been zero,
    ``v_mean`` is 0 and nothing is done. Xie et al. 2023 (arXiv 2011.11152).

    Attributes:
        weight_decay: lambda.
    """

    weight_decay: float = 1e-4

    norm_based: ClassVar[bool] = True

    def check(self, optimizer: Optimizer, part: Part) -> None:
        """Refuse optimizers that are neither of Adam's family nor SGD."""
        name, group = type(optimizer).__name__, part.group
        known = isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)) or "adam" in name.lower()
        others = (torch.optim.Adamax, torch.optim.SparseAdam)
        adams = "betas" in group and known and not isinstance(optimizer, others)
        if not (adams or is_sgd(group)):
            raise DecaylabError(f"Scheduled is defined for Adam's family and for SGD, not for {name}: use Decoupled")
        if not adams:
            super().check(optimizer, part)

    def decay_terms(self, part: Part) -> DecayTerms:
        """State the share for SGD; for Adam it is measured, because it follows the gradients of the step."""
        return MEASURED if "betas" in part.group else DecayTerms(share=self.shrink(part, None))

    def shrink(self, part: Part, step: Step | None) -> Scalar:
        """Return ``c_t`` of AdamS or SGDS."""
        coefficient = self.weight_decay * part.strength
        if "betas" not in part.group:
            momentum, dampening = part.group["momentum"], part.group.get("dampening", 0.0)
            return step_decay.stable_sgd(part.lr, coefficient, momentum, dampening)
        rate = step_decay.decoupled(part.lr, coefficient)
        if step is None or (not isinstance(rate, Tensor) and rate == 0):
            return rate
        return rate * self._inverse_root(step).to(part.weights[0].device)

    def native_decay(self, part: Part, step: Step) -> Scalar | None:
        """Return ``lambda / sqrt(v_mean)`` for Adam's family, where reading a number costs no sync."""
        if "betas" not in part.group or part.weights[0].device.type != "cpu":
            return None
        coefficient = self.weight_decay * part.strength
        return coefficient if coefficient == 0 else coefficient * float(self._inverse_root(step))

    def _refuse_flip(self, c: Scalar) -> None:
        if not isinstance(c, Tensor):
            super()._refuse_flip(c)

    def _inverse_root(self, step: Step) -> Tensor:
        """Return ``1 / sqrt(v_mean)``, 0 where ``v_mean`` is 0; computed once a step."""
        if "inverse_root" not in step.scratch:
            mean = _mean_second_moment(step.optimizer)
            positive = mean > 0
            step.scratch["inverse_root"] = torch.where(positive, torch.where(positive, mean, 1.0).rsqrt(), 0.0)
        found: Tensor = step.scratch["inverse_root"]
        return found


def _mean_second_moment(optimizer: Optimizer) -> Tensor:
    """Return the mean over all weights with a gradient of what Adam's ``v / (1 - beta2^t)`` will be in this step."""
    total: Tensor | None = None
    count = 0
    scale = getattr(optimizer, "grad_scale", None)
    for group in optimizer.param_groups:
        for params in by_kind([p for p in group["params"] if p.grad is not None]):
            if scale is not None:
                scale = scale.to(params[0].device)
            beta2 = float(group["betas"][1])
            states = [optimizer.state.get(p, {}) for p in params]
            moments = _second_moment_sums(params, states, beta2, scale, bool(group.get("amsgrad", False)))
            steps = _steps_done(states).to(moments) + 1
            # 1 - beta2^t by expm1: for beta2 near 1 and few steps the difference would lose digits.
            log_beta2 = math.log(beta2) if beta2 > 0 else -math.inf
            part = (moments / -torch.expm1(steps * log_beta2)).sum()
            total = part if total is None else total + part.to(total.device)
            count += sum(p.numel() for p in params)
    if total is None:
        raise DecaylabError("Scheduled found no gradient in the optimizer")
    return total / count


def _second_moment_sums(
    params: list[Tensor], states: list[dict[str, Any]], beta2: float, scale: Tensor | None, amsgrad: bool
) -> Tensor:
    """Return ``sum_i v_i`` after this step for every tensor, as a float64 vector where the device has float64."""
    squares = squared_norms(params, [local(p.grad) for p in params if p.grad is not None])
    if scale is not None:
        squares = squares / scale.to(squares.dtype).square()
    squares = exact(squares)
    moments = [state.get("exp_avg_sq") for state in states]
    if any(moment is None and "exp_avg" in state for moment, state in zip(moments, states, strict=True)):
        raise DecaylabError("Scheduled needs Adam's second moments, which this optimizer does not keep: use Decoupled")
    if all(moment is None for moment in moments):
        return squares * (1 - beta2)
    previous = [
        torch.zeros_like(local(p)) if moment is None else local(moment)
        for p, moment in zip(params, moments, strict=True)
    ]
    if amsgrad:
        grads = [local(p.grad) for p in params if p.grad is not None]
        new = torch._foreach_mul(previous, beta2)
        factor = 1 - beta2 if scale is None else (1 - beta2) / float(scale) ** 2
        torch._foreach_addcmul_(new, grads, grads, factor)
        known = [(v, local(s["max_exp_avg_sq"])) for v, s in zip(new, states, strict=True) if "max_exp_avg_sq" in s]
        if known:
            torch._foreach_maximum_([v for v, _ in known], [largest for _, largest in known])
        return _sums(params, new).to(squares)
    return _sums(params, previous).to(squares) * beta2 + squares * (1 - beta2)


def _sums(params: list[Tensor], positive: Tensors) -> Tensor:
    """Return the sum of each tensor, none of which has a negative entry."""
    return complete_sums(params, sums(positive, positive=True))


def _steps_done(states: list[dict[str, Any]]) -> Tensor:
    done = [state.get("step", 0.0) for state in states]
    if all(isinstance(step, Tensor) for step in done):
        return torch.stack([step for step in done])
    return torch.tensor([float(step) for step in done])
