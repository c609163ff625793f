"""Everything that can be recommended for one run, from what is known about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from decaylab.advice import carry_over, deepseek, power_lines, step_law, timescale
from decaylab.advice.carry_over import Reference
from decaylab.advice.recommendation import Recommendation
from decaylab.conventions.length import RunSize, check_warmup, run_size
from decaylab.conventions.unit_checks import unit_notes
from decaylab.errors import DecaylabError, unknown
from decaylab.quantities import format_count, format_number
from decaylab.schedules import Schedule, integral

_ONE_EPOCH = 0.995  # a run ends where a batch ends: this much counts as a whole epoch
OPTIMIZERS = ("adamw", "sgd", "lion", "muon")

MEASURED = (
    "The author of the blog series 'Writing an LLM from scratch' (part 32f) measured this advice on GPT-2 small, 163M "
    "parameters, 3.26B tokens, batch 96 x 1,024, AdamW at a constant lr 4e-4, by the loss on a test set: 0.1 gave "
    "3.692, 0.01 was better, Power Lines' 0.3372 much worse. With warm-up and cosine 0.3372 was still worse than 0.1, "
    "at a peak of 4e-4 and, not recomputed (0.0963 would be its value there), at 1.4e-3."
)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Recommendations for one run. Units are in the names and in each recommendation."""

    optimizer: str
    params: int | None
    lr: float
    lr_from: str
    """Where the learning rate is from: ``given``, or the method that recommended it."""
    size: RunSize
    mean_lr_ratio: float
    """Mean learning rate of the schedule over its peak."""
    recommendations: tuple[Recommendation, ...]
    weight_decays_to_try: tuple[float, ...]
    """A few values that bracket the recommendations, in rising order."""
    to_try_because: str
    """Why these."""
    measured: str | None
    """What somebody measured with such advice."""
    notes: tuple[str, ...]
    """What to mind before anything else."""


def advise(
    *,
    params: int | None = None,
    tokens: int | None = None,
    seq_len: int | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    dataset_size: int | None = None,
    epochs: float | None = None,
    lr: float | None = None,
    schedule: Schedule | None = None,
    optimizer: str = "adamw",
    momentum: float = 0.0,
    layers: int | None = None,
    width: int | None = None,
    reference: Reference | None = None,
    tokens_rounding: float = 0.0,
) -> Advice:
    """Recommend weight decay, learning rate and batch size for a run.

    A language model: ``params``, ``tokens``, ``seq_len`` and ``batch_size`` give Power Lines, DeepSeek and Step Law.
    Several epochs of a data set: ``dataset_size``, ``epochs``, ``batch_size`` and ``lr`` give the range between one
    epoch and all of them. With ``reference``, the weight decay of another run is carried over at a constant timescale.

    Args:
        params: Parameters of the model.
        tokens: Tokens seen in the run.
        seq_len: Tokens per sequence.
        batch_size: Sequences or examples per update.
        steps: Updates; checked where it follows from the rest.
        dataset_size: Examples in the data set.
        epochs: Passes over the data set.
        lr: Peak learning rate; for a language model DeepSeek's is taken where it is missing.
        schedule: Learning rate by step; constant by default.
        optimizer: ``adamw``, ``sgd``, ``lion`` or ``muon``.
        momentum: SGD's, which multiplies the effect of its L2.
        layers: Transformer blocks; with ``width``, the compute is counted as DeepSeek and Step Law did.
        width: Width of the residual stream.
        reference: Another run to carry the weight decay over from.
        tokens_rounding: Relative error that ``tokens`` may have because it was written as 3.26B.

    Returns:
        The advice, weight decay first.

    Raises:
        DecaylabError: Too little is known, or sizes are impossible or disagree.
    """
    _check(optimizer, lr, momentum, params, layers, width)
    size = run_size(
        steps=steps,
        batch_size=batch_size,
        tokens=tokens,
        seq_len=seq_len,
        dataset_size=dataset_size,
        epochs=epochs,
        tokens_rounding=tokens_rounding,
    )
    if tokens is not None:
        size = replace(size, tokens=tokens)  # a law takes the number as given, not steps x batch x a rounded length
    language = tokens is not None or (params is not None and dataset_size is None)
    found: list[Recommendation] = []
    notes = list(unit_notes(size, params))
    to_try: set[float] = set()
    because = ""
    lr_from = "given"
    if language:
        if params is None or size.tokens is None or size.seq_len is None or size.batch_size is None:
            raise DecaylabError("for a language model give --params, --tokens, --seq-len and --batch-size")
        text = {"params": params, "tokens": size.tokens, "seq_len": size.seq_len}
        fits = deepseek.recommend(**text, layers=layers, width=width)
        fits += step_law.recommend(**text, layers=layers, width=width)
        if lr is None:
            lr, lr_from = fits[0].value, fits[0].method
    if lr is None:
        raise DecaylabError("give the peak learning rate with --lr: a weight decay means nothing without it")
    carried = [] if reference is None else carry_over.recommend(reference, lr=lr, size=size, width=width)
    run_lr = next((one.value for one in carried if one.quantity == "learning_rate"), lr)
    if run_lr != lr and lr_from != "given":
        raise DecaylabError("by muP the learning rate of --from-width's run is carried over too: give it with --lr")
    ratio = _mean_lr_ratio(schedule, run_lr, size)
    if language and optimizer == "adamw":
        assert size.batch_size is not None
        found += fits
        found += power_lines.recommend(
            **text,
            batch_size=size.batch_size,
            lr=run_lr,
            mean_lr_ratio=ratio,
            other_lrs={one.method: one.value for one in fits if one.quantity == "learning_rate"},
        )
        to_try, because = _around(power_lines.same_total_decay(found[-2].value, ratio))
    elif language:
        notes.append(
            f"Power Lines, DeepSeek and Step Law were fitted with AdamW and say nothing of {optimizer}: carry a "
            "weight decay over from a run that worked (--from-weight-decay)."
        )
    if size.dataset_size is not None and size.epochs is not None and size.batch_size is not None:
        if size.epochs < _ONE_EPOCH:
            notes.append(
                f"The run sees {format_number(size.epochs, 3)} of an epoch: the rule that the timescale lies between "
                "one epoch and all of them gives a range from one epoch on only."
            )
        else:
            wanted = timescale.recommend_range(
                lr=run_lr,
                steps_per_epoch=size.steps / size.epochs,
                epochs=max(1.0, size.epochs),
                gain=1 / (1 - momentum),
                optimizer=optimizer,
            )
            found.append(wanted)
            assert wanted.low is not None and wanted.high is not None
            to_try |= {_round(wanted.low * (wanted.high / wanted.low) ** share) for share in (0.25, 0.5, 0.75)}
            because = "a quarter, a half and three quarters up the range, in logarithm"
    if carried:
        found += carried
        to_try = {_round(one.value) for one in carried if one.quantity == "weight_decay"}
        because = "the weight decay that worked, at the same timescale"
    if not found and not notes:
        raise DecaylabError(
            "too little to go by: give --params, --tokens, --seq-len and --batch-size, or --dataset-size, --epochs and "
            "--batch-size, or a run to start from (--from-weight-decay)"
        )
    order = ("weight_decay", "learning_rate", "batch_size")
    return Advice(
        optimizer=optimizer,
        params=params,
        lr=lr,
        lr_from=lr_from,
        size=size,
        mean_lr_ratio=ratio,
        recommendations=tuple(sorted(found, key=lambda one: order.index(one.quantity))),
        weight_decays_to_try=tuple(sorted(to_try)),
        to_try_because=because,
        measured=MEASURED if language and optimizer == "adamw" else None,
        notes=tuple(notes),
    )


def _around(law: float) -> tuple[set[float], str]:
    """Return the values to try for a language model, and why: the usual two, and the law's where it differs."""
    usual, because = {0.01, 0.1}, "0.1 is common, 0.01 beat it at 163M"
    if all(max(law / one, one / law) > 1.5 for one in usual):
        return usual | {_round(law)}, f"{because}, {format_number(_round(law))} is Power Lines' for this schedule"
    return usual, f"{because}, Power Lines' {format_number(_round(law))} for this schedule is close to one of them"


def _round(number: float) -> float:
    return float(f"{number:.2g}")


def _mean_lr_ratio(schedule: Schedule | None, lr: float, size: RunSize) -> float:
    schedule = schedule or Schedule()
    check_warmup(schedule.warmup_steps, size.steps)
    ratio = integral(schedule, lr, size.steps) / size.steps / lr
    if not 0 < ratio <= 1 + 1e-9:
        problem = "is 0 at every step" if ratio <= 0 else "rises above its peak"
        raise DecaylabError(f"the learning rate of this schedule {problem}: check lr, warm-up and final learning rate")
    return ratio


_FEWEST_PARAMS = 1000  # below it a suffix was forgotten


def _check(
    optimizer: str, lr: float | None, momentum: float, params: int | None, layers: int | None, width: int | None
) -> None:
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    if lr is not None and not 0 < lr < math.inf:
        raise DecaylabError(f"the learning rate must be a number above 0, got {lr}")
    if not 0 <= momentum < 1:
        raise DecaylabError(f"momentum must be at least 0 and below 1, got {momentum}")
    if momentum and optimizer != "sgd":
        raise DecaylabError(f"momentum is SGD's, not {optimizer}'s: leave it out")
    for name, number in (("params", params), ("layers", layers), ("width", width)):
        if number is not None and number < 1:
            raise DecaylabError(f"{name} must be at least 1, got {number}")
    if params is not None and params < _FEWEST_PARAMS:
        raise DecaylabError(f"params {params} would be a model of {params} weights: for millions write {params}M")
    if layers is not None and width is not None and params is not None and 12 * layers * width**2 > 2 * params:
        raise DecaylabError(
            f"{layers:,} layers of width {width:,} have about {format_count(12 * layers * width**2)} parameters, not "
            f"{format_count(params)}: check --params, --layers and --width"
        )
