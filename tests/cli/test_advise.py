"""`decaylab advise` as a person calls it."""

import json

import pytest

from decaylab.cli import main

COMMAND = ["advise", "--params", "124M", "--tokens", "3.26B", "--seq-len", "1024", "--batch-size", "96"]


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
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
