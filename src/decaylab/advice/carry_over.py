"""A weight decay that worked in one run, carried over to another at a constant timescale."""

from __future__ import annotations

import math
from dataclasses import dataclass

from decaylab.advice import timescale
from decaylab.advice.recommendation import Recommendation
from decaylab.conventions import RunSize
from decaylab.errors import DecaylabError
from decaylab.quantities import format_number


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A run whose weight decay worked; what is None is as in the new run."""

    weight_decay: float
    lr: float | None = None
    batch_size: int | None = None
    tokens: int | None = None
    dataset_size: int | None = None
    epochs: float | None = None
    width: int | None = None


def recommend(old: Reference, *, lr: float, size: RunSize, width: int | None) -> list[Recommendation]:
    """Carry a weight decay over so that the timescale stays the same share of the run.

    A change of width without the old learning rate is taken as muP takes it: ``lr`` is the old run's, falls as
    1 / width, and lambda grows with the width.

    Args:
        old: The run that worked.
        lr: Peak learning rate of the new run.
        size: Length of the new run.
        width: Width of the new model.

    Raises:
        DecaylabError: Nothing differs between the two, or the old run is impossible.
    """
    if not 0 <= old.weight_decay < math.inf or (old.lr is not None and not 0 < old.lr < math.inf):
        raise DecaylabError("the reference's weight decay and learning rate must be numbers above 0")
    changes, ratios = [], {"lr_ratio": 1.0, "batch_ratio": 1.0, "data_ratio": 1.0}

    def change(name: str, ratio: str, before: float | None, now: float | None) -> None:
        if before is None or now is None or before == now:
            return
        ratios[ratio] *= now / before
        changes.append(f"{name} x {format_number(now / before, 3)}")

    change("batch", "batch_ratio", old.batch_size, size.batch_size)
    change("tokens", "data_ratio", old.tokens, size.tokens)
    change("examples", "data_ratio", old.dataset_size, size.dataset_size)
    change("epochs", "data_ratio", old.epochs, size.epochs)
    new_lr, width_ratio = lr, 1.0
    if old.width is not None and width is not None and old.width != width:
        width_ratio = width / old.width
        changes.append(f"width x {format_number(width_ratio, 3)}")
        if old.lr is None:  # muP: the given learning rate is the old one's, and falls with the width
            new_lr = lr / width_ratio
            ratios["lr_ratio"] /= width_ratio
    if old.lr is not None:
        change("learning rate", "lr_ratio", old.lr, lr)
    if not changes:
        raise DecaylabError("the reference run is no different: give what changed, such as --from-tokens or --from-lr")
    mup = width_ratio != 1 and old.lr is None
    value = timescale.constant_timescale(old.weight_decay, **ratios)
    found = [
        Recommendation(
            quantity="weight_decay",
            value=value,
            unit="",
            method="constant timescale" + (", muP" if mup else ""),
            formula="λ' = λ (B' / B) (lr / lr') (D / D')" + ("; muP: lr ~ 1 / width, so λ ~ width" if mup else ""),
            worked=f"{', '.join(changes)}: {format_number(old.weight_decay)} becomes {format_number(value)}",
            source=timescale.SOURCE,
            fitted_on="ResNet-18 and ViT on CIFAR-10 and ImageNet, NanoGPT on OpenWebText, AdamW",
            notes=(f"At a peak learning rate of {format_number(new_lr)}.",),
        )
    ]
    if mup:
        found.append(
            Recommendation(
                quantity="learning_rate",
                value=new_lr,
                unit="",
                method="muP",
                formula="lr' = lr / (width' / width), for hidden matrices under Adam",
                worked=f"width x {format_number(width_ratio, 3)}",
                source="Yang et al. 2022, arXiv 2203.03466",
                fitted_on="a limit of infinite width; also needs muP's initialisation and multipliers",
            )
        )
    batch_ratio = ratios["batch_ratio"]
    if batch_ratio != 1 and old.lr is None and not mup:
        found.append(
            Recommendation(
                quantity="weight_decay",
                value=timescale.constant_timescale(old.weight_decay, **ratios | {"lr_ratio": math.sqrt(batch_ratio)}),
                unit="",
                method="constant timescale, lr ~ √batch",
                formula="λ' = λ √(B' / B) (D / D'), with lr' = lr √(B' / B)",
                worked=f"{', '.join(changes)}, lr becomes {format_number(lr * math.sqrt(batch_ratio))}",
                source="nanochat, Karpathy 2025",
                fitted_on="used there for GPT pre-training",
            )
        )
    return found
