"""Power Lines (Bergsma et al. 2025, arXiv 2505.13738): weight decay from tokens per parameter, batch size from tokens.

Fitted with AdamW and muP on GPT-2-like models of 111M to 3.3B parameters, sequences of 2,048 tokens, a linear warm-up
over 10 % of the steps, then a linear decay of the learning rate to 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from decaylab.advice.recommendation import Recommendation, outside
from decaylab.quantities import format_count, format_number

SEQUENCE_TOKENS = 2048
"""Length of the sequences that the batch-size law counts."""
SOURCE = "Power Lines, Bergsma et al. 2025, arXiv 2505.13738"
FITTED_ON = "111M to 3.3B parameters, AdamW, muP, 2,048-token sequences, 10 % warm-up then linear to 0"
_PARAMS = (111e6, 3.3e9)
_TIMESCALE_EXPONENT = 0.527
MEAN_LR_RATIO = 0.5
"""Mean learning rate over its peak in the fitted runs: the warm-up's and the decay's halves."""


def optimal_timescale(tokens_per_param: float) -> float:
    """Return the best AdamW timescale as a share of the run, 1.084 TPP^-0.527.

    Examples:
        >>> round(optimal_timescale(20), 4)
        0.2236
    """
    return float(1.084 * tokens_per_param**-_TIMESCALE_EXPONENT)


def optimal_weight_decay(timescale_share_of_run: float, lr: float, batch: float, data: float) -> float:
    """Return lambda = B / (lr D tau).

    Args:
        timescale_share_of_run: tau.
        lr: Peak learning rate.
        batch: B, sequences (or tokens) per update.
        data: D, sequences (or tokens) in the run: the same unit as ``batch``.
    """
    return batch / (lr * data * timescale_share_of_run)


def carried_over(weight_decay: float, *, lr_ratio: float, batch_ratio: float, tokens_ratio: float) -> float:
    """Return the lambda for other tokens D, batch B and learning rate with the same model, each ratio new over old.

    From lambda = B / (lr D tau) with tau ~ D^-0.527: lambda' = lambda * batch_ratio / lr_ratio * tokens_ratio^-0.473.

    Examples:
        >>> round(carried_over(0.1, lr_ratio=1.0, batch_ratio=1.0, tokens_ratio=10.0), 4)
        0.0337
    """
    return float(weight_decay * batch_ratio / lr_ratio * tokens_ratio ** (_TIMESCALE_EXPONENT - 1))


def optimal_batch_size(tokens: float) -> float:
    """Return the best batch size in sequences of 2,048 tokens, 0.0306 D^0.383, with D in tokens.

    Examples:
        >>> round(optimal_batch_size(3_260_252_160), 1)
        134.7
    """
    return float(0.0306 * tokens**0.383)


def same_total_decay(weight_decay: float, mean_lr_ratio: float) -> float:
    """Return the lambda that decays as much in total under another schedule: our arithmetic, not the paper's.

    lambda * 0.5 / mean_lr_ratio, 0.5 being the mean learning rate over its peak in the fitted runs.
    """
    return weight_decay * MEAN_LR_RATIO / mean_lr_ratio


def recommend(
    *,
    params: int,
    tokens: int,
    seq_len: int,
    batch_size: int,
    lr: float,
    mean_lr_ratio: float,
    other_lrs: Mapping[str, float] | None = None,
    epochs: float | None = None,
) -> list[Recommendation]:
    """Recommend weight decay and batch size.

    Args:
        params: Parameters of the model.
        tokens: Tokens seen in the run.
        seq_len: Tokens per sequence.
        batch_size: Sequences per update.
        lr: Peak learning rate.
        mean_lr_ratio: Mean learning rate of the run's schedule over its peak.
        other_lrs: Learning rates by the method that recommends them, to give the weight decay there too.
        epochs: Passes over the data, where they are known: the fitted runs made one.
    """
    tokens_per_param = tokens / params
    tau = optimal_timescale(tokens_per_param)
    sequences = tokens / seq_len
    weight_decay = optimal_weight_decay(tau, lr, batch_size, sequences)
    warnings = outside("A model of", params, *_PARAMS, "parameters")
    if abs(mean_lr_ratio / MEAN_LR_RATIO - 1) > 0.05:
        matched = same_total_decay(weight_decay, mean_lr_ratio)
        warnings += (
            f"The fit ran the learning rate down to 0 (mean {MEAN_LR_RATIO} of the peak); yours has a mean of "
            f"{format_number(mean_lr_ratio, 2)}. {format_number(matched)} gives the same total decay (our arithmetic, "
            "not the paper's).",
        )
    if epochs is not None and epochs > 1.01:
        warnings += (
            f"The fitted runs saw each token once; yours sees it {format_number(epochs, 3)} times, which the law knows "
            "nothing of: see the range between one epoch and all of them.",
        )
    batch = optimal_batch_size(tokens)
    notes: tuple[str, ...] = ()
    if seq_len != SEQUENCE_TOKENS:
        notes += (
            f"The law's own number is {format_number(batch)} sequences of {SEQUENCE_TOKENS:,} tokens; the same tokens "
            "are given here in your sequences.",
        )
    wrong = optimal_batch_size(sequences)
    notes += (f"D is in tokens: with D in sequences it would say {format_number(wrong, 3)}, the wrong unit.",)
    return [
        Recommendation(
            quantity="weight_decay",
            value=weight_decay,
            unit="",
            method="Power Lines",
            formula="B / (lr D τ), τ = 1.084 (tokens / params)^-0.527; B and D both in sequences",
            worked=(
                f"τ = {format_number(tau)} of the run at {format_number(tokens_per_param, 3)} tokens a parameter; "
                f"{batch_size:,} / ({format_number(lr)} x {sequences:,.0f} x {format_number(tau)})"
            ),
            source=SOURCE,
            fitted_on=FITTED_ON,
            warnings=warnings,
            notes=tuple(
                f"It goes as 1 / lr: {format_number(weight_decay * lr / best)} at {method}'s {format_number(best)}."
                for method, best in (other_lrs or {}).items()
                if best != lr
            ),
        ),
        Recommendation(
            quantity="batch_size",
            value=batch * SEQUENCE_TOKENS / seq_len,
            unit=f"sequences of {seq_len:,} tokens",
            method="Power Lines",
            formula="0.0306 D^0.383 sequences of 2,048 tokens, D in tokens",
            worked=f"{format_number(batch)} x {SEQUENCE_TOKENS:,} = {format_count(batch * SEQUENCE_TOKENS)} tokens",
            source=SOURCE,
            fitted_on=FITTED_ON,
            warnings=outside("A model of", params, *_PARAMS, "parameters"),
            notes=notes,
        ),
    ]
