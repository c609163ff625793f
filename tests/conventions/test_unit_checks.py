"""Sizes in the wrong unit are pointed out, with what they would be; sizes of real runs are not."""

import pytest

from decaylab.conventions import explain, run_size
from decaylab.conventions.unit_checks import unit_notes


def _notes(params=None, **sizes):
    return unit_notes(run_size(**sizes), params)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        # a batch in tokens
        (
            {"batch_size": 4_000_000, "tokens": 2 * 10**12, "seq_len": 4096},
            ("122 steps", "977 sequences", "500,000 steps"),
        ),
        ({"batch_size": 524_288, "tokens": 10**13, "seq_len": 1024}, ("512 sequences", "19,073,486 steps")),
        # the same without a length: sequences of one token
        ({"steps": 1000, "batch_size": 500_000, "tokens": 500_000_000}, ("a sequence has 1 token.", "--seq-len")),
        ({"steps": 1000, "batch_size": 500_000, "tokens": 2 * 10**9}, ("has 4 tokens",)),
        # a data set in tokens
        (
            {"batch_size": 512, "tokens": 18 * 10**9, "seq_len": 2048, "dataset_size": 9 * 10**9},
            ("18.4T tokens", "4.39M sequences", "2 epochs"),
        ),
        ({"batch_size": 256, "dataset_size": 9 * 10**9, "epochs": 0.5}, ("larger than any",)),
        (
            {"batch_size": 8, "tokens": 10**7, "seq_len": 512, "dataset_size": 10**7},
            ("5.12B tokens", "19,531 sequences", "1 epochs"),
        ),
        # epochs for steps
        ({"steps": 90, "batch_size": 256, "dataset_size": 1_281_167}, ("0.018 of an epoch", "--epochs")),
        # K for 1,024
        ({"batch_size": 64, "tokens": 10**9, "seq_len": 4000}, ("4,096", "write 4096")),
    ],
    ids=str,
)
def test_suspicious(sizes, words):
    notes = " ".join(_notes(**sizes))
    for word in words:
        assert word in notes
    settings = {name: number for name, number in sizes.items() if name != "epochs"} | {"epochs": sizes.get("epochs")}
    assert explain(lr=1e-4, weight_decay=0.1, **settings).notes == _notes(**sizes)


@pytest.mark.parametrize(
    "sizes",
    [
        {"batch_size": 96, "tokens": 3_260_252_160, "seq_len": 1024},
        {"batch_size": 480, "steps": 600_000, "seq_len": 1024},  # GPT-2
        {"batch_size": 15_360, "tokens": 14_800_000_000_000, "seq_len": 4096},  # DeepSeek-V3's largest batch
        {"batch_size": 2048, "steps": 954_000, "seq_len": 8192},
        {"batch_size": 4096, "dataset_size": 1_281_167, "epochs": 300},
        {"batch_size": 128, "dataset_size": 50_000, "epochs": 200},
        {"batch_size": 32, "steps": 300},
        {"batch_size": 8, "tokens": 10_000_000, "seq_len": 2048},
        {"batch_size": 4, "steps": 50, "seq_len": 2048},
        {"batch_size": 32_768, "steps": 10_000, "dataset_size": 400_000_000},
    ],
    ids=str,
)
def test_real_runs_pass(sizes):
    assert _notes(**sizes) == ()


def test_a_model_in_millions_without_the_letter():
    run = {"batch_size": 96, "tokens": 3_260_252_160, "seq_len": 1024}
    assert "write 124M" in _notes(params=124, **run)[0] and _notes(params=124_000_000, **run) == ()
