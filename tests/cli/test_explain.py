"""`decaylab explain` as a person calls it."""

import json
import subprocess
import sys
import time

import pytest

from decaylab.cli import main

COMMAND = [
    "explain",
    "--optimizer",
    "adamw",
    "--lr",
    "4e-4",
    "--weight-decay",
    "0.1",
    "--schedule",
    "cosine",
    "--steps",
    "33165",
    "--batch-size",
    "96",
]


def test_the_example(capsys):
    assert main([*COMMAND, "--tokens", "3.26B"]) == 0
    shown = capsys.readouterr().out
    for text in ("25,000 steps", "75.4 %", "1,024 tokens", "48.2 %", "0.1176°", "0.007285", "PaLM", "-4e-5"):
        assert text in shown


@pytest.mark.parametrize("columns", ["80", "120"])
def test_no_line_is_wider_than_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert main([*COMMAND, "--tokens", "3.26B"]) == 0
    assert max(len(line.rstrip()) for line in capsys.readouterr().out.splitlines()) <= int(columns)


def test_json(capsys):
    assert main([*COMMAND, "--tokens", "3.26B", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["peak"]["timescale_steps"] == pytest.approx(25_000)
    assert shown["size"]["tokens"] == 3_260_252_160
    assert {row["convention"] for row in shown["equivalents"]} >= {"torch", "optax", "keras", "palm", "l2"}


@pytest.mark.parametrize("tokens", ["1B", "1e9", "1000000000"])
def test_round_tokens(tokens, capsys):
    sizes = ["--steps", "10000", "--batch-size", "100", "--tokens", tokens]
    assert main(["explain", "--lr", "4e-4", "--weight-decay", "0.1", *sizes]) == 0
    assert "10,000 steps x 100 x 1,000 tokens = 1B tokens" in capsys.readouterr().out


def test_tokens_of_several_epochs(capsys):
    sizes = ["--dataset-size", "50000", "--epochs", "2", "--batch-size", "128", "--tokens", "1M"]
    assert main(["explain", "--lr", "1e-3", "--weight-decay", "0.1", *sizes]) == 0
    assert "782 steps x 128 x 10 tokens = 1M tokens = 2 epochs" in capsys.readouterr().out


def test_warm_up_as_a_share(capsys):
    assert main([*COMMAND, "--warmup", "10%", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schedule"]["warmup_steps"] == 3316


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tokens", "3.26B", "--seq-len", "512"], "1,024 tokens a sequence would fit"),
        (
            ["--steps", "10000", "--batch-size", "100", "--tokens", "2B", "--seq-len", "1536"],
            "2,000 tokens a sequence would fit",
        ),
        (["--tokens", "3.26Q"], "unknown suffix"),
        (["--tokens", "3183840 sequences"], "counted in tokens"),
        (["--optimizer", "adam"], "Adam's weight_decay"),
        (["--convention", "kears"], "did you mean 'keras'"),
        (["--warmup", "200%"], "at most 100%"),
        (["--warmup", "33166"], "the warm-up (33,166 steps) is longer than the run (33,165): shorten it"),
        (["--warmup", "-5"], "--warmup must be at least 0"),
        (["--steps", "-5"], "--steps must be at least 1, got '-5'"),
        (["--lr", "1e-300", "--weight-decay", "1e-300"], "no run feels it"),
        (["--warmup", "0.03"], "for that share of the run write 3%"),
        (["--warmup", ".5"], "for that share of the run write 50%"),
        (["--final-ratio", "10"], "for 10 % write 0.1"),
        (["--schedule", "wsd", "--drop-at", "80"], "for per cent write 0.8"),
        (["--schedule", "wsd", "--drop-at", "0.5", "0.8"], "wsd takes one fraction"),
        (["--dataset-size", "1M", "--epochs", "1e12"], "epochs must be a number below a billion, got 1e12"),
        (["--dataset-size", "1M", "--epochs", "0"], "epochs must be a number above 0, got 0"),
    ],
    ids=str,
)
def test_mistakes_exit_2_with_one_line(arguments, words, capsys):
    assert main([*COMMAND, *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and error.startswith("decaylab: ")


def _shown(capsys, *arguments):
    assert main(["explain", *arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_units_that_look_wrong_are_pointed_out(capsys):
    shown = _shown(
        capsys, "--lr", "3e-4", "--weight-decay", ".1", "--batch-size", "4M", "--tokens", "2T", "--seq-len", "4096"
    )
    assert "Mind: The whole run has 122 steps" in shown and "977 sequences, and 2T tokens are 500,000 steps" in shown


def test_a_decay_that_is_too_strong_is_said(capsys):
    strong = _shown(capsys, "--lr", ".5", "--weight-decay", ".5", "--steps", "1000")
    assert "The decay is too strong: within 4 updates a weight is forgotten" in strong
    assert "0.02 would make it an average of 100 updates" in strong
    assert "too strong" not in _shown(capsys, "--lr", ".5", "--weight-decay", "0.02", "--steps", "1000")
    assert "too strong" not in _shown(capsys, "--lr", "4e-4", "--weight-decay", ".1", "--steps", "50")


def test_wsd(capsys):
    shown = _shown(capsys, "--lr", "1e-3", "--weight-decay", ".1", "--steps", "1000", "--schedule", "wsd")
    assert "0.001, wsd to 5e-6" in shown
    run = ["--lr", "1e-3", "--weight-decay", ".1", "--steps", "1000", "--schedule", "wsd", "--drop-at", "0.6", "--json"]
    assert main(["explain", *run]) == 0
    assert json.loads(capsys.readouterr().out)["timescales_in_run"] == pytest.approx(0.1 * 1e-3 * (600 + 200.5))


def test_the_bound_of_too_strong_is_that_of_watch():
    from decaylab.conventions.reading import STRONG_TIMESCALE
    from decaylab.monitor import diagnosis_result

    assert diagnosis_result.STRONG_TIMESCALE == STRONG_TIMESCALE


def test_answers_without_torch_and_quickly():
    script = "import sys; from decaylab.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    seconds = []
    for _ in range(3):  # the best of three: a busy machine is not the command's fault
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script, *COMMAND], capture_output=True, check=False)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 2.0
