"""Sizes of a run that look as if they were written in another unit."""

from __future__ import annotations

from decaylab.conventions.length import RunSize
from decaylab.quantities import format_count, format_number

_FEW_STEPS = 500  # a run with fewer updates is rare where batches are counted in sequences
_LARGEST_BATCH_TOKENS = 2**27  # 134M tokens an update: twice the largest batches that are written about
_SHORTEST_TEXT = 16  # tokens a sequence: below, a number of tokens was given where sequences are counted
_MOST_SEQUENCES = 10**9  # sequences in a data set: at 2,048 tokens, two trillion tokens
_LEAST_PARAMS = 10_000
_THOUSANDS = {1000 * 2**k: 1024 * 2**k for k in range(8)}


def unit_notes(size: RunSize, params: int | None = None) -> tuple[str, ...]:
    """Say where a number looks as if it were in another unit, and what it would be in that one.

    Args:
        size: The length of the run.
        params: Parameters of the model, where they are known.

    Returns:
        Sentences; none where nothing looks wrong.
    """
    notes = (_params(size, params), _batch(size), _short_sequences(size), _data_set(size), _epochs(size), _round(size))
    return tuple(note for note in notes if note)


def _params(size: RunSize, params: int | None) -> str:
    if params is not None and params < _LEAST_PARAMS:
        return (
            f"A model of {params:,} parameters is smaller than any that the laws are for. If the number counts "
            f"millions, write {params:,}M."
        )
    if params is not None and size.tokens is not None and size.seq_len is not None and size.tokens < params:
        return (
            f"{format_count(size.tokens)} tokens are fewer than {format_count(params)} parameters. If the number "
            f"counts sequences, it is {format_count(size.tokens * size.seq_len)} tokens."
        )
    return ""


def _batch(size: RunSize) -> str:
    if size.batch_size is None or size.seq_len is None or size.batch_size < size.seq_len:
        return ""
    batch_tokens = size.batch_size * size.seq_len
    if size.steps >= _FEW_STEPS and batch_tokens <= _LARGEST_BATCH_TOKENS:
        return ""
    tokens = size.tokens or size.steps * batch_tokens
    sequences = size.batch_size / size.seq_len
    return (
        f"The whole run has {size.steps:,} steps, of {format_count(batch_tokens)} tokens each. If the batch of "
        f"{size.batch_size:,} counts tokens, it is {sequences:,.0f} sequences, and {format_count(tokens)} tokens are "
        f"{tokens / size.batch_size:,.0f} steps."
    )


def _short_sequences(size: RunSize) -> str:
    guessed = any("tokens a sequence" in one for one in size.inferred)
    if size.seq_len is None or size.batch_size is None or size.seq_len >= _SHORTEST_TEXT or not guessed:
        return ""
    many = "1 token" if size.seq_len == 1 else f"{size.seq_len} tokens"
    return (
        f"By these sizes a sequence has {many}. If the batch of {size.batch_size:,} counts tokens, divide it by the "
        "length of a sequence, and give that with --seq-len."
    )


def _data_set(size: RunSize) -> str:
    examples, length = size.dataset_size, size.seq_len
    if examples is None:
        return ""
    if length is None:
        if examples < _MOST_SEQUENCES:
            return ""
        return (
            f"A data set of {format_count(examples)} examples is larger than any that is written about. If the number "
            "counts tokens, give --tokens and --seq-len, or divide it by the length of a sequence."
        )
    same = size.tokens is not None and abs(size.tokens / examples - 1) < 0.1
    if length < _SHORTEST_TEXT or (examples < _MOST_SEQUENCES and not same):
        return ""
    seen = f", of which the run sees {format_number(size.epochs * length, 3)} epochs" if size.epochs else ""
    return (
        f"{format_count(examples)} examples of {length:,} tokens are {format_count(examples * length)} tokens. If the "
        f"data set's size counts tokens, it is {format_count(round(examples / length))} sequences{seen}."
    )


def _epochs(size: RunSize) -> str:
    worked_out = any(one.endswith(" steps") for one in size.inferred)
    if worked_out or size.seq_len is not None or size.epochs is None or size.epochs >= 1 or size.steps >= _FEW_STEPS:
        return ""
    return (
        f"{size.steps:,} steps are {format_number(size.epochs, 2)} of an epoch. If the number counts epochs, give it "
        "with --epochs."
    )


def _round(size: RunSize) -> str:
    """A sequence of 4K tokens has 4,096, but K means a thousand here."""
    if size.seq_len not in _THOUSANDS or any("tokens a sequence" in one for one in size.inferred):
        return ""
    exact = _THOUSANDS[size.seq_len]
    return f"K is a thousand, so sequences have {size.seq_len:,} tokens. If they have {exact:,}, write {exact}."
