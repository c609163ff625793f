"""How long a run is: steps, batch, tokens and epochs made consistent, with one clear line where they are not."""

from __future__ import annotations

import math
from dataclasses import dataclass

from decaylab.errors import DecaylabError
from decaylab.quantities import format_count, format_number

_MOST_STEPS = 20_000_000  # the products over a schedule go through every step: seconds and a gigabyte at this number
_TOLERANCE = 0.005  # a run rarely ends on a round number of tokens: 33,165 steps for "3.26 billion"
_NEAR = 0.02  # how far a guessed sequence length may move the tokens: less than from 1,000 to 1,024


@dataclass(frozen=True, kw_only=True)
class RunSize:
    """The length of a run in every unit that is known; None where it is not."""

    steps: int
    """Updates."""
    batch_size: int | None
    """Sequences or examples per update."""
    seq_len: int | None
    """Tokens per sequence; None for runs that do not count tokens."""
    tokens: int | None
    """Tokens seen in the run."""
    dataset_size: int | None
    """Examples (or sequences) in the data set."""
    epochs: float | None
    """Passes over the data set."""
    inferred: tuple[str, ...] = ()
    """What was worked out from the rest, in words."""


def run_size(
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    tokens: int | None = None,
    seq_len: int | None = None,
    dataset_size: int | None = None,
    epochs: float | None = None,
    tokens_rounding: float = 0.0,
) -> RunSize:
    """Work out what follows from the given sizes, and refuse a contradiction.

    steps x batch_size = epochs x dataset_size = tokens / seq_len, as far as they are known.

    A missing seq_len is the quotient where that is whole, else the power of two within 0.5 % or the rounding of
    ``tokens`` (2 % at most), else the nearest whole number within 2 %.

    Args:
        steps: Updates.
        batch_size: Sequences or examples per update.
        tokens: Tokens seen in the run.
        seq_len: Tokens per sequence.
        dataset_size: Examples or sequences in the data set.
        epochs: Passes over the data set.
        tokens_rounding: Relative error that ``tokens`` may have because it was written as 3.26B.

    Returns:
        Every size that is known.

    Raises:
        DecaylabError: Sizes disagree, are impossible, or do not determine the number of steps.
    """
    given = {
        "steps": steps,
        "batch_size": batch_size,
        "tokens": tokens,
        "seq_len": seq_len,
        "dataset_size": dataset_size,
    }
    for name, number in given.items():
        if number is not None and number < 1:
            raise DecaylabError(f"{name} must be at least 1, got {number}")
    if epochs is not None and not 0 < epochs < 1e9:
        limit = "below a billion" if epochs >= 1e9 else "above 0"
        raise DecaylabError(f"epochs must be a number {limit}, got {format_number(epochs)}")
    inferred, steps_given = [], steps is not None
    if steps is None:
        steps = _steps(batch_size, tokens, seq_len, dataset_size, epochs)
        inferred.append(f"{steps:,} steps")
    if steps > _MOST_STEPS:
        raise DecaylabError(
            f"{format_count(steps)} steps are more than any run has: check steps, tokens and batch size"
        )
    by_steps = None if batch_size is None else _Sequences(steps * batch_size, f"{steps:,} steps x {batch_size:,}")
    by_epochs = None
    if epochs is not None and dataset_size is not None:
        by_epochs = _Sequences(epochs * dataset_size, f"{epochs:g} epochs of {dataset_size:,}")
    if by_steps is not None and by_epochs is not None and epochs is not None and batch_size is not None:
        _check_epochs(by_steps, by_epochs, slack=(epochs + 1) * batch_size)
    # The last batch of an epoch may be smaller, so epochs x examples is the better count where it is known.
    best = by_epochs or by_steps
    if tokens is not None and seq_len is None and best is not None:
        seq_len = _seq_len(best, tokens, tokens_rounding)
        inferred.append(f"{seq_len:,} tokens a sequence")
    elif tokens is not None and seq_len is not None and best is not None:
        # One step more or less is no contradiction: a run ends where a batch ends. Without a batch size it is not known
        # whether each epoch's last, incomplete batch was left out.
        share = 1 / steps if by_steps is not None or epochs is None else 1 / (steps / epochs + 1)
        _check_tokens(by_steps, by_epochs, steps, seq_len, tokens, _TOLERANCE + tokens_rounding + share)
    if batch_size is None:
        _check_enough(steps, by_epochs, tokens, seq_len)
    if epochs is None and dataset_size is not None:
        if by_steps is not None:
            epochs = by_steps.count / dataset_size
        elif tokens is not None and seq_len is not None:
            epochs = tokens / seq_len / dataset_size
    if seq_len is not None and best is not None and (steps_given or tokens is None):
        tokens = round(best.count * seq_len)  # what the run really sees, where 3.26B was a rounded number
    return RunSize(
        steps=steps,
        batch_size=batch_size,
        seq_len=seq_len,
        tokens=tokens,
        dataset_size=dataset_size,
        epochs=epochs,
        inferred=tuple(inferred),
    )


def check_warmup(warmup_steps: int, steps: int) -> None:
    """Refuse a warm-up that the run never gets out of.

    Args:
        warmup_steps: Steps of warm-up.
        steps: Updates of the run.

    Raises:
        DecaylabError: The warm-up is longer than the run.
    """
    if warmup_steps > steps:
        raise DecaylabError(f"the warm-up ({warmup_steps:,} steps) is longer than the run ({steps:,}): shorten it")


@dataclass(frozen=True)
class _Sequences:
    """How many sequences a run sees, by one way of counting, and that way in words."""

    count: float
    words: str


def _steps(
    batch_size: int | None, tokens: int | None, seq_len: int | None, dataset_size: int | None, epochs: float | None
) -> int:
    if batch_size is None:
        raise DecaylabError("how long is the run? give --steps, or --batch-size with --tokens and --seq-len")
    if tokens is not None and seq_len is not None:
        steps = round(tokens / (batch_size * seq_len))
    elif dataset_size is not None and epochs is not None:
        steps = round(epochs * -(-dataset_size // batch_size))  # the last, smaller batch of an epoch is a step too
    else:
        raise DecaylabError(
            "how long is the run? give --steps, or --tokens with --seq-len, or --epochs with --dataset-size"
        )
    if steps < 1:
        raise DecaylabError(
            "the whole run is less than one step: --batch-size counts sequences (or examples), --tokens counts tokens"
        )
    return steps


def _check_epochs(by_steps: _Sequences, by_epochs: _Sequences, slack: float) -> None:
    if abs(by_steps.count - by_epochs.count) > _TOLERANCE * by_steps.count + slack:
        raise DecaylabError(
            f"{by_steps.words} = {by_steps.count:,} examples, but {by_epochs.words} are {by_epochs.count:,.0f}: "
            "leave out --steps or --epochs"
        )


def _check_enough(steps: int, by_epochs: _Sequences | None, tokens: int | None, seq_len: int | None) -> None:
    """Refuse fewer sequences than steps, which can be told without a batch size."""
    counts = [] if by_epochs is None else [(by_epochs.count, f"{by_epochs.words} sequences")]
    if tokens is not None:
        words = f"{format_count(tokens)} tokens"
        counts.append((tokens / (seq_len or 1), words + (f" in sequences of {seq_len:,}" if seq_len else "")))
    for count, words in counts:
        if count < steps * (1 - _TOLERANCE):
            raise DecaylabError(f"{words} are less than one for each of {steps:,} steps: check --steps")


def _seq_len(sequences: _Sequences, tokens: int, rounding: float) -> int:
    tolerance = max(_TOLERANCE, min(rounding, _NEAR))
    exact = tokens / sequences.count
    if exact < 1 - tolerance:
        raise DecaylabError(
            f"{sequences.words} sequences are more than {format_count(tokens)} tokens: less than one token a sequence; "
            "check --steps, --batch-size and --tokens"
        )
    nearest = max(1, round(exact))
    if nearest * sequences.count == tokens:  # also with 1B, where the rounding would allow a power of two
        return nearest
    # 1,023.9 comes from a rounded 3.26B: take the power of two beside it where the rounding allows it.
    power = 1 << round(math.log2(max(exact, 1)))
    if power >= 8 and abs(power / exact - 1) <= tolerance:
        return power
    if abs(nearest / exact - 1) > _NEAR:
        raise DecaylabError(
            f"{format_count(tokens)} tokens in {sequences.words} sequences are {format_number(exact)} tokens a "
            "sequence, not a whole number: check --steps, --batch-size and --tokens"
        )
    return nearest


def _check_tokens(
    by_steps: _Sequences | None, by_epochs: _Sequences | None, steps: int, seq_len: int, tokens: int, tolerance: float
) -> None:
    """Refuse tokens that lie outside of what every count of the sequences gives, and say what would fit."""
    counts = [one for one in (by_steps, by_epochs) if one is not None]
    low, high = min(one.count for one in counts), max(one.count for one in counts)
    given = tokens / seq_len
    if given >= low * (1 - tolerance) and given * (1 - tolerance) <= high:
        return
    one = counts[0]
    fitting = f"{tokens / one.count:,.0f} tokens a sequence would fit"
    if by_steps is not None:
        fitting = f"{given / (by_steps.count / steps):,.0f} steps or {fitting}"
    raise DecaylabError(
        f"{one.words} sequences x {seq_len:,} tokens = {format_count(one.count * seq_len)} tokens, not "
        f"{format_count(tokens)}: {fitting}"
    )
