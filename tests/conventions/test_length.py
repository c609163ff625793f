"""Run sizes: what follows from what, and which contradictions are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaylab.conventions import run_size
from decaylab.errors import DecaylabError
from decaylab.quantities import parse_count, rounding


def test_rounded_tokens_give_the_sequence_length():
    size = run_size(steps=33_165, batch_size=96, tokens=3_260_000_000, tokens_rounding=0.0015)
    assert size.seq_len == 1024
    assert size.tokens == 3_260_252_160
    assert "1,024 tokens a sequence" in size.inferred


@pytest.mark.parametrize(
    ("steps", "batch_size", "text", "seq_len"),
    [
        (10_000, 100, "1B", 1000),  # whole as it is written, though 1,024 is near
        (10_000, 100, "1000000000", 1000),
        (10_000, 100, "1e9", 1000),
        (9_766, 100, "1B", 1024),
        (10_001, 100, "1B", 1000),  # 999.9: 1,024 is 2.4 % off
        (20_000, 100, "1B", 500),
        (33_165, 96, "3.26B", 1024),
        (33_165, 96, "3.3B", 1024),
        (22_110, 96, "3.26B", 1536),
        (10_000, 100, "1.05B", 1050),
        (50_000, 1, "9.85M", 197),
    ],
)
def test_round_tokens_give_the_nearest_sequence_length(steps, batch_size, text, seq_len):
    tokens = parse_count(text, "tokens")
    size = run_size(steps=steps, batch_size=batch_size, tokens=tokens, tokens_rounding=rounding(text))
    assert size.seq_len == seq_len
    assert size.tokens == pytest.approx(tokens, rel=0.02)


@given(steps=st.integers(1, 10**6), batch_size=st.integers(1, 10**4), tokens=st.integers(1, 10**13))
def test_a_guess_never_moves_the_tokens_far(steps, batch_size, tokens):
    try:
        size = run_size(steps=steps, batch_size=batch_size, tokens=tokens, tokens_rounding=0.5)
    except DecaylabError:
        return  # less than a token a sequence, or a quotient such as 1.4
    assert size.tokens == pytest.approx(tokens, rel=0.021)


def test_tokens_an_example_are_counted_on_the_data_not_on_full_batches():
    size = run_size(batch_size=128, dataset_size=50_000, epochs=2, tokens=10**6, tokens_rounding=0.05)
    assert (size.steps, size.seq_len, size.tokens) == (782, 10, 10**6)
    for seq_len in (None, 10):  # every epoch ends with a batch of 36
        size = run_size(batch_size=64, dataset_size=100, epochs=50, tokens=50_000, seq_len=seq_len, steps=100)
        assert size.seq_len == 10


def test_steps_from_tokens():
    size = run_size(batch_size=96, tokens=3_260_252_160, seq_len=1024)
    assert size.steps == 33_165


def test_steps_from_epochs_count_the_last_smaller_batch():
    assert run_size(batch_size=128, dataset_size=50_000, epochs=200).steps == 200 * 391


def test_epochs_from_steps():
    assert run_size(steps=1000, batch_size=32, dataset_size=512).epochs == pytest.approx(62.5)


def test_what_follows_without_a_batch_size():
    size = run_size(steps=1000, tokens=10**6, seq_len=100, dataset_size=5000)
    assert (size.epochs, size.batch_size) == (2.0, None)
    assert run_size(steps=1000, tokens=10**6, dataset_size=5000, epochs=2).seq_len == 100
    assert run_size(steps=1000, seq_len=100, dataset_size=5000, epochs=2).tokens == 10**6
    assert run_size(steps=1000, tokens=10**6, seq_len=100, dataset_size=5000, epochs=2).batch_size is None
    # ten steps an epoch of 109 examples in batches of 10: the last 9 are left out, or not
    for tokens in (10_000, 10_900):
        assert run_size(steps=100, tokens=tokens, seq_len=10, dataset_size=109, epochs=10).steps == 100


def test_an_odd_sequence_length_is_kept():
    assert run_size(steps=1000, batch_size=10, tokens=1_000_000).seq_len == 100


def test_steps_alone_are_enough():
    size = run_size(steps=10)
    assert (size.steps, size.tokens, size.epochs) == (10, None, None)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"steps": 33_165, "batch_size": 96, "tokens": 3_260_000_000, "seq_len": 512}, "1,024 tokens a sequence"),
        ({"steps": 100, "batch_size": 96, "tokens": 50}, "less than one token"),
        ({"steps": 1000, "batch_size": 128, "dataset_size": 50_000, "epochs": 200.0}, "leave out"),
        ({"batch_size": 96, "tokens": 1000, "seq_len": 1024}, "less than one step"),
        (
            {"steps": 10_000, "batch_size": 100, "tokens": 2 * 10**9, "seq_len": 1536, "tokens_rounding": 0.05},
            "2,000 to",
        ),
        ({"steps": 100, "batch_size": 100, "tokens": 14_000}, "1.4 tokens a sequence, not a whole number"),
        (
            {"batch_size": 128, "dataset_size": 50_000, "epochs": 2, "tokens": 10**6, "seq_len": 8, "steps": 782},
            "10 tokens a sequence would fit",
        ),
        # without a batch size
        ({"steps": 1000, "tokens": 10**6, "seq_len": 100, "dataset_size": 5000, "epochs": 9}, "22 tokens a"),
        ({"steps": 9, "tokens": 10**6, "seq_len": 100, "dataset_size": 5000, "epochs": 9}, "would fit"),
        ({"steps": 1000, "tokens": 10**6, "dataset_size": 5000, "epochs": 900}, "less than one token"),
        ({"steps": 1000, "tokens": 10**4, "seq_len": 100}, "less than one for each of 1,000 steps"),
        ({"steps": 1000, "tokens": 500}, "less than one for each"),
        ({"steps": 1000, "dataset_size": 100, "epochs": 9}, "less than one for each"),
        ({"batch_size": 96}, "how long is the run"),
        ({"tokens": 10**9}, "how long is the run"),
        ({}, "how long is the run"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 10**9}, "more than any run"),
        ({"steps": 10, "epochs": -1.0}, "epochs"),
    ],
    ids=str,
)
def test_contradictions(sizes, words):
    with pytest.raises(DecaylabError, match=words) as error:
        run_size(**sizes)
    assert "\n" not in str(error.value)


def test_stated_tokens_are_not_overwritten_by_batches_that_were_not_full():
    size = run_size(steps=3, batch_size=128, epochs=3, dataset_size=100, tokens=19_200)
    assert (size.seq_len, size.tokens) == (64, 19_200)
    assert run_size(steps=3, batch_size=128, epochs=3, dataset_size=100, seq_len=64).tokens == 19_200
