"""How long a run is: steps, batch, tokens and epochs made consistent, with one clear line where they are not."""

from __future__ import annotations

from dataclasses import dataclass

from decaylab.errors import DecaylabError
from decaylab.quantities import format_count

_MOST_STEPS = 20_000_000  # the products over a schedule go through every step: seconds and a gigabyte at this number
_TOLERANCE = 0.005  # a run rarely ends on a round number of tokens: 33,165 steps for "3.26 billion"


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

    steps x batch_size x seq_len = tokens; steps x batch_size = epochs x dataset_size.

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
        raise DecaylabError(f"epochs must be above 0, got {epochs}")
    inferred, steps_given = [], steps is not None
    if steps is None:
        steps = _steps(batch_size, tokens, seq_len, dataset_size, epochs)
        inferred.append(f"{steps:,} steps")
    if steps > _MOST_STEPS:
        raise DecaylabError(
            f"{format_count(steps)} steps are more than any run has: check steps, tokens and batch size"
        )
    if tokens is not None and batch_size is not None:
        tolerance = _TOLERANCE + tokens_rounding
        if seq_len is None:
            seq_len = _seq_len(steps, batch_size, tokens, tolerance)
            inferred.append(f"{seq_len:,} tokens a sequence")
        else:
            # One step more or less is no contradiction: a run ends where a batch ends.
            _check_tokens(steps, batch_size, seq_len, tokens, tolerance + 1 / steps)
    if batch_size is not None and seq_len is not None and (steps_given or tokens is None):
        tokens = steps * batch_size * seq_len  # what the run really sees, where 3.26B was a rounded number
    if dataset_size is not None and batch_size is not None:
        seen = steps * batch_size
        if epochs is not None and abs(seen - epochs * dataset_size) > _TOLERANCE * seen + (epochs + 1) * batch_size:
            raise DecaylabError(
                f"{steps:,} steps x {batch_size:,} = {seen:,} examples, but {epochs:g} epochs of {dataset_size:,} are "
                f"{epochs * dataset_size:,.0f}: leave out --steps or --epochs"
            )
        epochs = seen / dataset_size if epochs is None else epochs
    return RunSize(
        steps=steps,
        batch_size=batch_size,
        seq_len=seq_len,
        tokens=tokens,
        dataset_size=dataset_size,
        epochs=epochs,
        inferred=tuple(inferred),
    )


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


def _seq_len(steps: int, batch_size: int, tokens: int, tolerance: float) -> int:
    exact = tokens / (steps * batch_size)
    if exact < 1 - tolerance:
        raise DecaylabError(
            f"{steps:,} steps x {batch_size:,} sequences are more than {format_count(tokens)} tokens: less than one "
            "token a sequence; check --steps, --batch-size and --tokens"
        )
    nearest = max(1, round(exact))
    # 1,023.9 comes from a rounded 3.26B: take the power of two beside it where the rounding allows it.
    for power in range(3, 24):
        if abs((1 << power) / exact - 1) <= tolerance:
            return 1 << power
    return nearest


def _check_tokens(steps: int, batch_size: int, seq_len: int, tokens: int, tolerance: float) -> None:
    product = steps * batch_size * seq_len
    if abs(product - tokens) > tolerance * max(product, tokens):
        fitting = tokens / (batch_size * seq_len)
        raise DecaylabError(
            f"{steps:,} steps x {batch_size:,} sequences x {seq_len:,} tokens = {format_count(product)} tokens, not "
            f"{format_count(tokens)}: {fitting:,.0f} steps or {tokens / (steps * batch_size):,.0f} tokens a sequence "
            "would fit"
        )
