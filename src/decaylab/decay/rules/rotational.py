"""Rotational variants: every step turns a weight by the angle that decay would lead to in equilibrium."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.conventions import step_decay
from decaylab.conventions.equilibrium import Optimizer as Family
from decaylab.conventions.equilibrium import RotationInputs, update_ratio
from decaylab.conventions.step_decay import HELD_NORM, DecayTerms
from decaylab.decay.rule import DecayRule, Part, Scalar, Step, is_sgd
from decaylab.errors import DecaylabError, unknown
from decaylab.tensors import multi_tensor
from decaylab.tensors.blocks import scratch, subtract
from decaylab.tensors.foreach import pieces, safe_ratio, wide, widened
from decaylab.tensors.sharding import is_sharded, local, refuse_split_rows

Kind = Literal["auto", "adamw", "sgdm", "lion"]


@dataclass(frozen=True)
class Rotational(DecayRule):
    r"""Rotational optimizer variants (RV-AdamW, RV-SGDM, RV-Lion): constant norm, constant expected rotation.

    For each row w of a tensor of at least two dimensions (n0 its norm at attaching), with the optimizer's update u::

        u <- u - mean(u)                          (zero_mean)
        u <- u - w <u, w> / n0^2                  (tangent)
        s <- f s + (1 - f) ||u||^2,   U = sqrt(s / (1 - f^t))
        w <- w - eta n0 u / (U + eps),   w <- n0 w / ||w||

    ``eta`` is the rotation a step that decay lambda would have in equilibrium: AdamW
    ``sqrt(2 lr lambda (1 - b1) / (1 + b1))``, SGD with momentum mu ``sqrt(2 lr lambda / (1 + mu))``, Lion
    ``sqrt(pi lr lambda ((1 - b1)^2 + b1^2 (1 - b2) / (1 + b2)))``. lambda is used for nothing else and must not be 0.
    The update is taken as what the weights really moved by over lr, so steps with lr = 0 are left out. Tensors of one
    dimension and rows of norm 0 are left to the plain optimizer. A zero gradient turns by what momentum is left.

    When the rule is attached, ``zero_mean`` moves every row to mean zero at the same norm: attach before loading a
    checkpoint. Kosson et al. 2023 (arXiv 2305.17212).

    Attributes:
        weight_decay: lambda.
        kind: Which optimizer's ``eta``; ``auto`` reads it off the optimizer.
        per_neuron: Rows (index of dimension 0), or whole tensors as one row.
        zero_mean: See above.
        average: f.
        eps: eps.
    """

    kind: Kind = "auto"
    per_neuron: bool = True
    zero_mean: bool = True
    average: float = 0.9
    eps: float = 1e-8

    norm_based: ClassVar[bool] = True
    keeps_old: ClassVar[bool] = True
    uses_lr: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay == 0:
            raise DecaylabError("Rotational takes its rotation from weight_decay, which must be above 0")
        if self.kind not in get_args(Kind):
            raise unknown("kind of Rotational", str(self.kind), get_args(Kind))
        if not 0 <= self.average < 1:
            raise DecaylabError(f"average must be at least 0 and below 1, got {self.average}")

    def takes(self, param: Tensor) -> bool:
        """Matrices and tensors of more dimensions."""
        return param.dim() > 1

    def check(self, optimizer: Optimizer, part: Part) -> None:
        """Refuse optimizers whose rotation in equilibrium is not known."""
        kind = self._kind(optimizer, part.group)
        if kind != "sgdm" and "betas" not in part.group:
            raise DecaylabError(
                f"{type(optimizer).__name__} has no betas in its groups, from which Rotational takes the rotation of "
                f"{kind}: give kind='sgdm', or another rule"
            )

    def decay_terms(self, part: Part) -> DecayTerms:
        """State that norms are held: lambda sets the rotation alone."""
        return HELD_NORM

    def _kind(self, optimizer: Optimizer, group: dict[str, Any]) -> str:
        if self.kind != "auto":
            return self.kind
        name = type(optimizer).__name__.lower()
        if "lion" in name:
            return "lion"
        if "adam" in name and "betas" in group and not isinstance(optimizer, torch.optim.Adamax):
            return "adamw"
        if is_sgd(group):
            return "sgdm"
        raise DecaylabError(
            f"Rotational knows AdamW, SGD with momentum and Lion, not {type(optimizer).__name__}: give kind"
        )

    def rotation(self, optimizer: Optimizer, part: Part) -> Scalar:
        """Return ``eta``, the rotation a step in radians."""
        coefficient, group = self.weight_decay * part.strength, part.group
        kind = self._kind(optimizer, group)
        if kind == "sgdm":  # L2's share, which the buffer multiplies by 1 / (1 - momentum)
            momentum = float(group.get("momentum", 0.0))
            share, inputs = (
                step_decay.coupled(part.lr, coefficient, momentum),
                RotationInputs(optimizer="sgd", momentum=momentum),
            )
        else:
            family: Family = "lion" if kind == "lion" else "adamw"
            b1, b2 = (float(beta) for beta in group["betas"])
            share, inputs = step_decay.decoupled(part.lr, coefficient), RotationInputs(optimizer=family, betas=(b1, b2))
        rate: Scalar = share * (2 * (update_ratio(inputs) or 0.0))
        return rate.sqrt() if isinstance(rate, Tensor) else math.sqrt(rate)

    def prepare(self, params: list[Tensor], state: dict[Tensor, dict[str, Tensor]], shared: dict[str, float]) -> None:
        """Remember the row norms, and move rows to mean zero."""
        refuse_split_rows(params)
        if not self.per_neuron and any(is_sharded(p) for p in params):
            raise DecaylabError("Rotational over whole tensors does not work on sharded parameters: use per_neuron")
        for p in params:
            weight = local(p)
            rows = self._rows(weight.to(wide(p.dtype)))
            norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            if self.zero_mean:
                centred = rows - rows.mean(dim=1, keepdim=True)
                left = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
                weight.copy_(torch.where(left > 0, centred * safe_ratio(norm, left), rows).view(weight.shape))
            state[p]["norm"] = norm
            state[p]["square"] = torch.zeros_like(norm)
            state[p]["count"] = torch.zeros((), dtype=norm.dtype, device=norm.device)

    def _rows(self, weight: Tensor) -> Tensor:
        return weight.flatten(1) if self.per_neuron else weight.reshape(1, -1)

    def after(self, step: Step) -> None:
        """Replace the optimizer's step by the rotation."""
        for part in step.parts:
            if isinstance(part.lr, Tensor) or part.lr != 0:
                self._rotate(part, step)

    def _rotate(self, part: Part, step: Step) -> None:
        norm, square, count = ([step.state[p][name] for p in part.params] for name in ("norm", "square", "count"))
        torch._foreach_add_(count, 1.0)
        if self.per_neuron and multi_tensor.usable(part.weights, part.old) and multi_tensor.rows_fit(part.weights):
            multi_tensor.rotate_(
                part.weights,
                part.old,
                norm,
                square,
                1 - self.average ** torch.stack(count),
                lr=part.lr,
                eta=self.rotation(step.optimizer, part),
                average=self.average,
                eps=self.eps,
                centre=self.zero_mean,
            )
            return
        started = [(1 - self.average**t).expand_as(n) for t, n in zip(count, norm, strict=True)]
        old = [self._rows(weight) for weight in widened(part.old)]
        new = [self._rows(weight) for weight in widened(part.weights)]
        eta = self.rotation(step.optimizer, part)
        for piece in pieces(new, old, norm, square, started):
            self._turn(*piece, lr=part.lr, eta=eta)
        for rows, weight in zip(new, part.weights, strict=True):
            if rows.dtype != weight.dtype or not weight.is_contiguous():
                weight.copy_(rows.view(weight.shape))  # the rows were a copy

    def _turn(
        self,
        new: list[Tensor],
        old: list[Tensor],
        norm: list[Tensor],
        square: list[Tensor],
        started: list[Tensor],
        *,
        lr: Scalar,
        eta: Scalar,
    ) -> None:
        """Replace ``new`` rows by the rotation; ``norm``, ``square`` and ``started`` have one number a row."""
        # Elementwise work is foreach; sums over rows have no foreach form.
        update = list(subtract(old, new))
        block = len(update) == 1 and update[0].device.type == "cpu"  # in the cache: every pass counts
        torch._foreach_div_(update, lr)
        if self.zero_mean:
            torch._foreach_sub_(update, [u.mean(dim=1, keepdim=True) for u in update])
        radial = [torch.linalg.vecdot(u, w).unsqueeze(1) for u, w in zip(update, old, strict=True)]
        squares = torch._foreach_mul(norm, norm)
        torch._foreach_div_(radial, [torch.where(n > 0, n, 1.0) for n in squares])
        along = [torch.mul(old[0], radial[0], out=scratch(old[0], 1))] if block else torch._foreach_mul(old, radial)
        torch._foreach_sub_(update, along)
        torch._foreach_mul_(square, self.average)
        lengths = [torch.linalg.vector_norm(u, dim=1, keepdim=True).square_() for u in update]
        torch._foreach_add_(square, lengths, alpha=1 - self.average)
        factors = [-eta * n / (s / b).sqrt_().add_(self.eps) for n, s, b in zip(norm, square, started, strict=True)]
        torch._foreach_mul_(update, factors)
        torch._foreach_add_(update, old)
        lengths = [torch.linalg.vector_norm(w, dim=1, keepdim=True) for w in update]
        ratios = [safe_ratio(n, length) for n, length in zip(norm, lengths, strict=True)]
        if block and bool((norm[0] > 0).all()):
            torch.mul(update[0], ratios[0], out=new[0])
            return
        torch._foreach_mul_(update, ratios)
        torch._foreach_copy_(new, [torch.where(n > 0, u, w) for n, u, w in zip(norm, update, new, strict=True)])
