"""Run sizes: what follows from what, and which contradictions are refused."""

import pytest

from decaylab.conventions import run_size
from decaylab.errors import DecaylabError


def test_rounded_tokens_give_the_sequence_length():
    size = run_size(steps=33_165, batch_size=96, tokens=3_260_000_000, tokens_rounding=0.0015)
    assert size.seq_len == 1024
    assert size.tokens == 3_260_252_160
    assert "1,024 tokens a sequence" in size.inferred


def test_steps_from_tokens():
    size = run_size(batch_size=96, tokens=3_260_252_160, seq_len=1024)
    assert size.steps == 33_165


def test_steps_from_epochs_count_the_last_smaller_batch():
    assert run_size(batch_size=128, dataset_size=50_000, epochs=200).steps == 200 * 391


def test_epochs_from_steps():
    assert run_size(steps=1000, batch_size=32, dataset_size=512).epochs == pytest.approx(62.5)


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
