"""`decaylab advise` as a person calls it."""

import json

import pytest

from decaylab.cli import COMMANDS, main

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


def _shown(capsys, *arguments):
    assert main(["advise", *arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_values_that_explain_calls_idle_are_marked(capsys):
    """A short run of a small model: 0.1 is marked, and values that do something here are beside it."""
    run = ["--params", "1M", "--tokens", "5M", "--seq-len", "128", "--batch-size", "64", "--lr", "1e-3"]
    shown = _shown(capsys, *run)
    assert "0.1 removes 5.92 % of a weight in 0.061 timescales, close to idle" in shown
    assert "1.8 removes" in shown and "4.9 removes" in shown and "0.01 removes" not in shown
    assert main(["explain", "--lr", "1e-3", "--weight-decay", "0.1", "--steps", "610"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "close to idle: over the whole run it removes 5.92 % of a weight" in said


def test_fine_tuning(capsys):
    run = ["--params", "1.1B", "--tokens", "10M", "--seq-len", "2048", "--batch-size", "8", "--lr", "2e-5"]
    shown = _shown(capsys, *run)
    assert "Taken for fine-tuning" in shown and "l2_to_anchor" in shown and "selective_projection" in shown
    assert "0.1 removes 0.122 % of a weight" in shown and "Power Lines" not in shown
    assert "Power Lines" in _shown(capsys, *run, "--stage", "pre-training")
    assert "0, or what the recipe has" in _shown(capsys, "--stage", "fine-tuning", "--steps", "1000", "--lr", "1e-5")


def test_parameters_of_the_callers_model(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_to_count.py").write_text("import torch\n\ndef model():\n    return torch.nn.Linear(999, 100)\n")
    monkeypatch.chdir(tmp_path)
    sizes = ["--tokens", "2M", "--seq-len", "128", "--batch-size", "16", "--lr", "1e-3"]
    assert "; 100,000 parameters;" in _shown(capsys, "--load", "mine_to_count:model", *sizes)
    assert main(["advise", "--load", "mine_to_count:model", "--params", "1M", *sizes]) == 2
    assert "leave --params out" in capsys.readouterr().err
    assert main(["advise", "--load", "mine_to_count:torch", *sizes]) == 2
    assert "a torch module is needed" in capsys.readouterr().err


def test_the_command_that_would_decide(capsys):
    """It is one that `tune` takes as it stands."""
    assert "tune" in COMMANDS
    shown = _shown(capsys, *COMMAND[1:], "--lr", "4e-4")
    assert shown.endswith(
        "What would decide decaylab tune --steps 33162 --lr 4e-4 -- python train.py \\ --lr {lr} --weight-decay "
        "{weight_decay} --steps {steps} --seed {seed}"
    )
    wsd = _shown(capsys, *COMMAND[1:], "--lr", "4e-4", "--schedule", "wsd")
    assert "tune --steps 33162 --lr 4e-4 --schedule 0.90 -- python" in wsd
    cosine = _shown(capsys, *COMMAND[1:], "--lr", "4e-4", "--schedule", "cosine")
    words = cosine[cosine.index("decaylab tune") :].replace("\\ ", "").split()[1:]
    assert main([*words[: words.index("--")], "--dry-run", *words[words.index("--") :]]) == 0


def test_json_has_the_values_with_their_effect(capsys):
    assert main([*COMMAND, "--lr", "4e-4", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["weight_decay"] for one in shown["to_try"]] == shown["weight_decays_to_try"]
    assert all(0 <= one["removed"] <= 1 and one["verdict"] == "acts" for one in shown["to_try"])
