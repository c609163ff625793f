"""Rules for fine-tuning: decay towards the pre-trained weights instead of towards zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from decaylab.conventions.step_decay import MEASURED, DecayTerms
from decaylab.decay.rule import DecayRule, Part, Scalar, Step
from decaylab.decay.rules.classic import add_to_gradients, half_square_sum
from decaylab.errors import unknown
from decaylab.tensors.blocks import offset_products, pull_towards_
from decaylab.tensors.foreach import dots, norms, scale_, squared_norms
from decaylab.tensors.sharding import local

State = dict[Tensor, dict[str, Tensor]]
Anchor = Literal["initial", "zero"]


@dataclass(frozen=True)
class _Anchored(DecayRule):
    """Base of the rules with an anchor, the weights at attaching (attach after loading the pre-trained weights).

    Attributes:
        anchor: ``initial``, or ``zero`` for weights that were added for fine-tuning, such as low-rank adapters.
    """

    anchor: Anchor = "initial"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anchor not in get_args(Anchor):
            raise unknown("anchor", str(self.anchor), get_args(Anchor))

    def prepare(self, params: list[Tensor], state: State, shared: dict[str, float]) -> None:
        """Copy the weights."""
        if self.anchor == "initial":
            for p in params:
                state[p]["anchor"] = p.detach().clone()

    def decay_terms(self, part: Part) -> DecayTerms:
        """State that the pull is towards the anchor, by a share that is measured."""
        return DecayTerms(share=math.nan, target="anchor") if self.anchor == "initial" else MEASURED

    def anchors(self, part: Part, step: Step) -> list[Tensor] | None:
        """Return ``p_0`` for every tensor on this rank; None where it is zero."""
        return None if self.anchor == "zero" else [local(step.state[p]["anchor"]) for p in part.params]

    def offsets(self, part: Part, step: Step) -> list[Tensor]:
        """Return ``p - p_0`` for every tensor on this rank; for the anchor zero the weights themselves, not copies."""
        anchors = self.anchors(part, step)
        return part.weights if anchors is None else list(torch._foreach_sub(part.weights, anchors))


@dataclass(frozen=True)
class L2ToAnchor(_Anchored):
    r"""An L2 penalty on the distance from the pre-trained weights (L2-SP): ``g <- g + lambda (p - p_0)``.

    Coupled, like `L2`: before momentum and moments. ``p.grad`` is the same before and after the step. A zero gradient
    still decays. Li, Grandvalet and Davoine 2018 (arXiv 1802.01483); its other half, L2 on new layers, is `L2` with
    params of its own.

    Attributes:
        weight_decay: lambda, the coefficient of ``lambda / 2 ||p - p_0||^2``.
    """

    edits_gradients: ClassVar[bool] = True

    def decay_terms(self, part: Part) -> DecayTerms:
        """State lambda in the gradient where the anchor is zero; a pull towards the anchor otherwise."""
        if self.anchor == "zero":
            return DecayTerms(coupled=self.weight_decay * part.strength)
        return super().decay_terms(part)

    def before(self, step: Step) -> None:
        """Put ``g + lambda (p - p_0)`` in the place of every gradient; `attach` puts the user's back after the step."""
        for part in step.parts:
            coefficient = self.weight_decay * part.strength
            if isinstance(coefficient, Tensor) or coefficient != 0:
                add_to_gradients(step, part, coefficient, self.anchors(part, step))

    def penalty(self, step: Step) -> Scalar | None:
        """Return ``lambda / 2 sum ||p - p_0||^2``."""
        return half_square_sum([(self.offsets(p, step), self.weight_decay * p.strength) for p in step.parts])


@dataclass(frozen=True)
class SelectiveProjection(_Anchored):
    r"""Selective projection decay (SPD): pull a tensor back to the anchor only when gradient and displacement disagree.

    For each tensor, with its gradient g and weight p before the step and q after the optimizer's own step::

        if -<g, p - p_0> < 0:   r = clip((||q - p_0|| - ||p - p_0||) / ||q - p_0||, 0, 1)
                                q <- q - lambda r (q - p_0)

    Not times the learning rate. lambda = 1 returns exactly to the previous distance. The first step after attaching
    never decays (p = p_0), and neither does a zero gradient. Tian et al. 2024 (arXiv 2411.01713).

    Attributes:
        weight_decay: lambda, the strength of the projection.
    """

    norm_based: ClassVar[bool] = True

    def before(self, step: Step) -> None:
        """Measure, for every tensor, the distance from the anchor and whether the gradient points away from it."""
        for part in step.parts:
            anchors = self.anchors(part, step)
            if anchors is None:
                inner, squares = dots(part.params, part.grads, part.weights), squared_norms(part.params, part.weights)
            else:
                inner, squares = offset_products(part.params, part.weights, anchors, part.grads)
            step.scratch[f"{id(part)}"] = (part.sign * inner > 0, squares.sqrt())

    def after(self, step: Step) -> None:
        """Pull the tensors back that went the wrong way."""
        for part in step.parts:
            disagree, before = step.scratch[f"{id(part)}"]
            anchors = self.anchors(part, step)
            if anchors is None:
                after = norms(part.params, part.weights)
            else:
                after = offset_products(part.params, part.weights, anchors)[1].sqrt()
            share = ((after - before) / torch.where(after > 0, after, 1.0)).clamp_(0, 1)
            pull = torch.where(disagree, self.weight_decay * part.strength * share, 0.0)
            if anchors is None:
                scale_(part.weights, 1 - pull)
            else:
                pull_towards_(part.weights, anchors, pull)
