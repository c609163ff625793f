"""Everything that can be recommended for one run, from what is known about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from decaylab.advice import carry_over, deepseek, fine_tuning, power_lines, step_law, timescale
from decaylab.advice.candidates import Candidate, DecayOfRun, choose
from decaylab.advice.carry_over import Reference
from decaylab.advice.recommendation import Recommendation
from decaylab.conventions.length import RunSize, check_warmup, run_size
from decaylab.conventions.reading import IDLE_TIMESCALES
from decaylab.conventions.unit_checks import unit_notes
from decaylab.errors import DecaylabError, unknown
from decaylab.quantities import format_count, format_number
from decaylab.schedules import Schedule, integral

_COMMON = "common"
_ONE_EPOCH = 0.995  # a run ends where a batch ends: this much counts as a whole epoch
OPTIMIZERS = ("adamw", "sgd", "lion", "muon")
Stage = Literal["auto", "pre-training", "fine-tuning"]

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
    to_try: tuple[Candidate, ...]
    """A few values that bracket the recommendations, each with what it does in this run, in rising order."""
    measured: str | None
    """What somebody measured with such advice."""
    notes: tuple[str, ...]
    """What to mind before anything else."""
    stage: Stage = "pre-training"
    """``fine-tuning`` where the run starts from pre-trained weights; training from scratch otherwise."""

    @property
    def weight_decays_to_try(self) -> tuple[float, ...]:
        """The values of ``to_try``."""
        return tuple(one.weight_decay for one in self.to_try)


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
    stage: Stage = "auto",
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
        stage: ``pre-training`` (or any training from scratch), ``fine-tuning``, or ``auto``: by the sizes.

    Returns:
        The advice, weight decay first.

    Raises:
        DecaylabError: Too little is known, or sizes are impossible or disagree.
    """
    _check(optimizer, lr, momentum, params, layers, width, stage)
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
    notes: list[str] = []
    if params is None and layers is not None and width is not None:
        params = 12 * layers * width**2
        notes.append(f"The parameters are 12 L d² = {format_count(params)}, without embeddings.")
    schedule = schedule or Schedule()
    if lr is not None:
        _mean_lr_ratio(schedule, lr, size)  # refuses an impossible schedule before anything is made of it
        plain = DecayOfRun(lr=lr, schedule=schedule, steps=size.steps, optimizer=optimizer, momentum=momentum)
        if stage == "auto" and reference is None and fine_tuning.is_likely(plain, params=params, tokens=size.tokens):
            stage = "fine-tuning"
            notes.append("Taken for fine-tuning by its sizes; --stage pre-training says that it starts from scratch.")
            notes[:0] = unit_notes(size, params)
        elif stage == "fine-tuning":
            notes[:0] = unit_notes(size)
        if stage == "fine-tuning":
            return _fine_tuning(plain, size, params, notes)
    elif stage == "fine-tuning":
        raise DecaylabError("give the peak learning rate with --lr: in fine-tuning it decides what decay does")
    return _from_scratch(
        size, notes, params=params, lr=lr, schedule=schedule, optimizer=optimizer, momentum=momentum, layers=layers,
        width=width, reference=reference, language=tokens is not None or (params is not None and dataset_size is None),
    )  # fmt: skip


def _fine_tuning(run: DecayOfRun, size: RunSize, params: int | None, notes: list[str]) -> Advice:
    named = {0.0: "nothing is taken from the pre-trained weights", fine_tuning.COMMON: "common, from pre-training"}
    return Advice(
        optimizer=run.optimizer,
        params=params,
        lr=run.lr,
        lr_from="given",
        size=size,
        mean_lr_ratio=_mean_lr_ratio(run.schedule, run.lr, size),
        recommendations=(fine_tuning.recommend(run),),
        to_try=choose(run, named, span=False),
        measured=None,
        notes=tuple(notes),
        stage="fine-tuning",
    )


def _from_scratch(
    size: RunSize,
    notes: list[str],
    *,
    params: int | None,
    lr: float | None,
    schedule: Schedule,
    optimizer: str,
    momentum: float,
    layers: int | None,
    width: int | None,
    reference: Reference | None,
    language: bool,
) -> Advice:
    notes = [*unit_notes(size, params), *notes]
    found: list[Recommendation] = []
    named: dict[float, str] = {}
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
    laws = language and optimizer == "adamw"
    carried: list[Recommendation] = []
    if reference is not None:
        carried = carry_over.recommend(reference, lr=lr, size=size, width=width, power_lines_too=laws)
    run_lr = next((one.value for one in carried if one.quantity == "learning_rate"), lr)
    if run_lr != lr and lr_from != "given":
        raise DecaylabError("by muP the learning rate of --from-width's run is carried over too: give it with --lr")
    ratio = _mean_lr_ratio(schedule, run_lr, size)
    if laws:
        assert size.batch_size is not None
        law = power_lines.recommend(
            **text,
            batch_size=size.batch_size,
            lr=run_lr,
            mean_lr_ratio=ratio,
            other_lrs={one.method: one.value for one in fits if one.quantity == "learning_rate"},
            epochs=size.epochs,
        )
        found += [*fits, *law]
        named |= _around(power_lines.same_total_decay(law[0].value, ratio))
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
            for share, where in ((0.5, "half-way"), (0.25, "a quarter"), (0.75, "three quarters")):
                value = wanted.low * (wanted.high / wanted.low) ** share
                named.setdefault(value, f"{where} up the range between one epoch and all, in logarithm")
    if carried:
        found += carried
        named = {one.value: f"carried over: {one.method}" for one in carried if one.quantity == "weight_decay"}
    if not found and not notes:
        raise DecaylabError(
            "too little to go by: give --params, --tokens, --seq-len and --batch-size, or --dataset-size, --epochs and "
            "--batch-size, or a run to start from (--from-weight-decay)"
        )
    run = DecayOfRun(lr=run_lr, schedule=schedule, steps=size.steps, optimizer=optimizer, momentum=momentum)
    order = ("weight_decay", "learning_rate", "batch_size")
    return Advice(
        optimizer=optimizer,
        params=params,
        lr=lr,
        lr_from=lr_from,
        size=size,
        mean_lr_ratio=ratio,
        recommendations=tuple(sorted(found, key=lambda one: order.index(one.quantity))),
        to_try=choose(run, _without_idle(run, named), span=not carried or len(named) == 1),
        measured=MEASURED if laws else None,
        notes=tuple(notes),
    )


def _around(law: float) -> dict[float, str]:
    """Return the values that people start from for a language model: the law's, the usual one, the one that beat it."""
    return {law: "Power Lines', at the same total decay", 0.1: _COMMON, 0.01: "beat 0.1 at 163M, see above"}


def _without_idle(run: DecayOfRun, named: dict[float, str]) -> dict[float, str]:
    """Leave out a borrowed value that does nothing here; 0.1 stays, as what people would take, and is marked."""
    least = IDLE_TIMESCALES / run.timescales_per_unit
    return {value: why for value, why in named.items() if value >= least or why == _COMMON or "carried" in why}


def _mean_lr_ratio(schedule: Schedule, lr: float, size: RunSize) -> float:
    check_warmup(schedule.warmup_steps, size.steps)
    ratio = integral(schedule, lr, size.steps) / size.steps / lr
    if not 0 < ratio <= 1 + 1e-9:
        problem = "is 0 at every step" if ratio <= 0 else "rises above its peak"
        raise DecaylabError(f"the learning rate of this schedule {problem}: check lr, warm-up and final learning rate")
    return ratio


_FEWEST_PARAMS = 1000  # below it a suffix was forgotten


def _check(
    optimizer: str,
    lr: float | None,
    momentum: float,
    params: int | None,
    layers: int | None,
    width: int | None,
    stage: str,
) -> None:
    if stage not in get_args(Stage):
        raise unknown("stage", stage, get_args(Stage))
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
