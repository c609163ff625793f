"""`decaylab advise` as a person calls it."""

import json

import pytest

from decaylab.cli import main

COMMAND = ["advise", "--params", "124M", "--tokens", "3.26B", "--seq-len", "1024", "--batch-size", "96"]

VISION = ["advise", "--dataset-size", "50000", "--epochs", "10", "--batch-size", "125", "--lr", "0.1"]


def test_the_example(capsys):
    assert main([*COMMAND, "--lr", "4e-4"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "0.3895",
        "Power Lines",
        "DeepSeek",
        "Step Law",
        "C = 6 N D",
        "9.47",
        "0.01 was better",
        "to try: 0.01",
    ):
        assert text in shown


@pytest.mark.parametrize("columns", ["80", "120"])
def test_no_line_is_wider_than_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert main([*COMMAND, "--lr", "4e-4", "--layers", "12", "--width", "768"]) == 0
    assert max(len(line.rstrip()) for line in capsys.readouterr().out.splitlines()) <= int(columns)


def test_round_tokens_stay_as_given(capsys):
    arguments = ["advise", "--params", "124M", "--lr", "4e-4", "--steps", "10000", "--batch-size", "100"]
    assert main([*arguments, "--tokens", "1B"]) == 0
    assert "10,000 steps x 100 x 1,000 tokens = 1B tokens" in capsys.readouterr().out.replace("\n", " ")
    assert main([*arguments, "--tokens", "1B", "--seq-len", "1024"]) == 0
    assert "10,000 steps x 100 x 1,024 tokens ≈ 1B tokens" in capsys.readouterr().out.replace("\n", " ")


def test_json(capsys):
    assert main([*COMMAND, "--lr", "4e-4", "--schedule", "linear", "--warmup", "10%", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["mean_lr_ratio"] == pytest.approx(0.5, abs=1e-3)
    assert shown["recommendations"][0]["quantity"] == "weight_decay"


def test_without_a_learning_rate(capsys):
    assert main(COMMAND) == 0
    assert "by DeepSeek, as --lr is missing" in capsys.readouterr().out


def test_vision_and_carrying_over(capsys):
    arguments = ["advise", "--dataset-size", "50K", "--epochs", "200", "--batch-size", "128", "--lr", "1e-3"]
    arguments += ["--from-weight-decay", "0.05"]
    assert main([*arguments, "--from-dataset-size", "10K"]) == 0
    shown = capsys.readouterr().out
    assert "0.0128 to 2.56" in shown and "becomes 0.01" in shown


def test_below_one_epoch(capsys):
    assert main(["advise", "--dataset-size", "50000", "--epochs", "0.5", "--batch-size", "128", "--lr", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert "0.5 of an epoch" in shown and "middle" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*VISION, "--from-weight-decay", "0.1", "--from-epochs", "-5"], "--from-epochs must be a number above 0"),
        ([*VISION, "--from-weight-decay", "0.1", "--from-epochs", "0"], "--from-epochs must be a number above 0"),
        ([*VISION, "--from-weight-decay", "0.1", "--from-epochs", "nan"], "--from-epochs must be a number above 0"),
        ([*VISION, "--from-weight-decay", "0", "--from-epochs", "5"], "--from-weight-decay must be a number above 0"),
        ([*VISION, "--from-weight-decay", "0.1", "--from-tokens", "1B"], "compared with the new run's --tokens"),
        ([*VISION, "--from-tokens", "1B"], "--from-weight-decay too"),
        ([*COMMAND, "--lr", "4e-4", "--from-lr", "1e-3"], "--from-weight-decay too"),
        ([*COMMAND, "--lr", "4e-4", "--steps", "1000"], "would fit"),
        ([*COMMAND, "--lr", "4e-4", "--batch-size", "98304 tokens"], "counted in sequences"),
        (["advise", "--lr", "4e-4"], "how long is the run"),
    ],
    ids=str,
)
def test_mistakes_exit_2_with_one_line(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
