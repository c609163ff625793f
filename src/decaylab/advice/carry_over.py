"""A weight decay that worked in one run, carried over to another by the two laws that people use."""

from __future__ import annotations

import math
from dataclasses import dataclass

from decaylab.advice import power_lines, timescale
from decaylab.advice.recommendation import Recommendation
from decaylab.conventions import RunSize
from decaylab.errors import DecaylabError
from decaylab.quantities import format_number

_AGREE = 0.05  # tokens are often written with two digits


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


def recommend(
    old: Reference, *, lr: float, size: RunSize, width: int | None, power_lines_too: bool = False
) -> list[Recommendation]:
    """Carry a weight decay over: the timescale stays the same share of the run, or follows Power Lines' exponent.

    The two differ where the tokens do: for ten times the tokens 0.10 lambda and 0.34 lambda. A change of
    width without the old learning rate is taken as muP takes it: ``lr`` is the old run's, falls as 1 / width, and
    lambda grows with the width.

    Args:
        old: The run that worked.
        lr: Peak learning rate of the new run.
        size: Length of the new run.
        width: Width of the new model.
        power_lines_too: Whether the run is of the kind that Power Lines was fitted on, a language model with AdamW.

    Raises:
        DecaylabError: Nothing differs between the two, the old run is impossible, or what it has is not known of the
            new one.
    """
    _check(old, size, width)
    changes = _changes(("batch", old.batch_size, size.batch_size))
    data_changes, data_ratio = _data(old, size)
    changes += data_changes
    changes += _changes(("width", old.width, width), ("learning rate", old.lr, lr))
    if not changes:
        raise DecaylabError("the reference run is no different: give what changed, such as --from-tokens or --from-lr")
    mup = old.lr is None and old.width is not None and old.width != width
    batch_ratio = _ratio(old.batch_size, size.batch_size)
    # Under muP the given learning rate is the old one's, and falls with the width.
    lr_ratio = 1 / _ratio(old.width, width) if mup else _ratio(old.lr, lr)
    new_lr = lr * lr_ratio if mup else lr

    def carried(lr_ratio: float) -> float:
        value = 0.0
        if lr_ratio * data_ratio:  # 0 where absurd numbers underflow
            value = timescale.constant_timescale(
                old.weight_decay, lr_ratio=lr_ratio, batch_ratio=batch_ratio, data_ratio=data_ratio
            )
        if not 0 < value < math.inf:
            raise DecaylabError(f"no weight decay follows from the reference run ({', '.join(changes)}): check it")
        return value

    value = carried(lr_ratio)
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
                worked=f"width x {format_number(_ratio(old.width, width), 3)}",
                source="Yang et al. 2022, arXiv 2203.03466",
                fitted_on="a limit of infinite width; also needs muP's initialisation and multipliers",
            )
        )
    if power_lines_too and old.tokens is not None and data_ratio != 1 and old.width in (None, width):
        law = power_lines.carried_over(
            old.weight_decay, lr_ratio=lr_ratio, batch_ratio=batch_ratio, tokens_ratio=data_ratio
        )
        found.append(
            Recommendation(
                quantity="weight_decay",
                value=law,
                unit="",
                method="Power Lines, same model",
                formula="λ' = λ (B' / B) (lr / lr') (D / D')^0.473, from τ ~ (tokens / params)^-0.527",
                worked=f"{', '.join(changes)}: {format_number(old.weight_decay)} becomes {format_number(law)}",
                source=power_lines.SOURCE,
                fitted_on=power_lines.FITTED_ON,
                notes=("The two laws differ where the tokens do: a sweep that covers both decides.",),
            )
        )
    if batch_ratio != 1 and old.lr is None and not mup:
        found.append(
            Recommendation(
                quantity="weight_decay",
                value=carried(math.sqrt(batch_ratio)),
                unit="",
                method="constant timescale, lr ~ √batch",
                formula="λ' = λ √(B' / B) (D / D'), with lr' = lr √(B' / B)",
                worked=f"{', '.join(changes)}, lr becomes {format_number(lr * math.sqrt(batch_ratio))}",
                source="nanochat, Karpathy 2025",
                fitted_on="used there for GPT pre-training",
            )
        )
    return found


def _check(old: Reference, size: RunSize, width: int | None) -> None:
    """Refuse an impossible old run, and a change that cannot be told because the new run's number is not known."""
    now = {
        "weight_decay": 0.0,  # always known: it is what is asked for
        "lr": 0.0,
        "batch_size": size.batch_size,
        "tokens": size.tokens,
        "dataset_size": size.dataset_size,
        "epochs": size.epochs,
        "width": width,
    }
    for name, new in now.items():
        before, flag = getattr(old, name), name.replace("_", "-")
        if before is None:
            continue
        if not 0 < before < math.inf:
            raise DecaylabError(f"--from-{flag} must be a number above 0, got {before}")
        if new is None:
            known = " and --dataset-size" if name == "epochs" else ""
            raise DecaylabError(
                f"--from-{flag} is compared with the new run's --{flag}{known}, not known here: give it, or leave "
                f"--from-{flag} out"
            )


def _ratio(before: float | None, now: float | None) -> float:
    return 1.0 if before is None or now is None else now / before


def _changes(*settings: tuple[str, float | None, float | None]) -> list[str]:
    return [
        f"{name} x {format_number(_ratio(before, now), 3)}"
        for name, before, now in settings
        if before is not None and before != now
    ]


def _data(old: Reference, size: RunSize) -> tuple[list[str], float]:
    """Return how the data changed, in words and as one ratio: tokens, and examples x epochs, measure the same thing."""
    by_tokens, tokens = _changes(("tokens", old.tokens, size.tokens)), _ratio(old.tokens, size.tokens)
    by_examples = _changes(("examples", old.dataset_size, size.dataset_size), ("epochs", old.epochs, size.epochs))
    examples = _ratio(old.dataset_size, size.dataset_size) * _ratio(old.epochs, size.epochs)
    if old.tokens is None:
        return by_examples, examples
    if (old.dataset_size is not None or old.epochs is not None) and not math.isclose(tokens, examples, rel_tol=_AGREE):
        raise DecaylabError(
            f"by --from-tokens the data is x {format_number(tokens, 3)}, by --from-dataset-size and --from-epochs x "
            f"{format_number(examples, 3)} (what is not given is as in the new run): leave one of the two out"
        )
    return by_tokens or by_examples, tokens
