"""What does not fit a command is said in one line, with what would fit."""

import pytest

from decaylab.cli import main
from decaylab.cli.parse import parse
from decaylab.errors import DecaylabError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reproduce", "fig1", "--budget", "foo"], ["--budget 'foo'", "mini, paper, smoke"]),
        (["train", "vision", "--model.architecture", "resnet17"], ["did you mean", "'resnet18'"]),
        (["train", "vision", "--optimizer.lr", "abc"], ["--optimizer.lr cannot be 'abc'", "FLOAT"]),
        (["train", "vision", "--optimizer.lr=abc"], ["--optimizer.lr cannot be 'abc'"]),
        (["train", "vision", "--averages.ema", "a", "b"], ["--averages.ema cannot be 'a b'"]),
        (["reproduce", "fig1", "--workers", "x"], ["--workers cannot be 'x'", "INT"]),
        (["train", "vision", "--optimiser.lr", "1"], ["unknown option '--optimiser.lr'", "mean --optimizer.lr?"]),
        (["train", "vision", "--lr", "1"], ["unknown option '--lr'", "did you mean --optimizer.lr?"]),
        (["train", "language", "--weight_decay", "1"], ["'--weight_decay'", "did you mean --decay.weight-decay?"]),
        (["train", "language", "--wd", "1"], ["unknown option '--wd'", "did you mean --decay.weight-decay?"]),
        (["explain", "--wd", "1"], ["did you mean --weight-decay?"]),
        (["advise", "--bs", "8"], ["did you mean --batch-size"]),
        (["train", "vision", "--learning-rate", "1"], ["did you mean --optimizer.lr?"]),
        (["train", "vision", "--lambda", "1"], ["did you mean --decay.weight-decay?"]),
        (["runs", "postgresql://u:geheim@h/db"], ["'postgresql:***@h/db' is one word too many"]),
        (["train", "vision", "--seed", "9" * 5000], ["--seed cannot be '9999", "..."]),
        (["list", "--zzz"], ["unknown option '--zzz'", "known: --store, --from, --json"]),
        (["show"], ["decaylab show needs ID", "`decaylab show --help`"]),
        (["conformance"], ["decaylab conformance needs TARGET"]),
        (["sample"], ["decaylab sample needs MODEL"]),
        (["explain"], ["needs --lr FLOAT and --weight-decay FLOAT"]),
        (["explain", "--lr", "1", "--weigth-decay", "1"], ["did you mean --weight-decay?"]),
        (["show", "fig1", "fig2"], ["'fig2' is one word too many for `decaylab show`"]),
        (["train", "vision", "--data.augment", "yes"], ["'yes' is one word too many behind --data.augment"]),
        (["train", "vision", "--optimizer.betas", "0.9"], ["--optimizer.betas needs 2 values"]),
        (["reproduce", "fig1", "--out"], ["--out needs a value"]),
        (["data", "gte"], ["unknown value for action 'gte'", "'get'"]),
    ],
)
def test_a_wrong_word_is_one_line(arguments, said, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert len(shown.err.strip().splitlines()) == 1
    assert all(part in shown.err for part in said), shown.err


def test_the_line_is_the_same_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["train", "vision", "--model.architecture", "foo"]) == 2
    assert "resnet18, resnet34, resnet_small, vgg16, vgg16_bn, vgg_small" in capsys.readouterr().err


def test_an_objection_of_an_unknown_form_is_passed_on_in_one_line(monkeypatch):
    import tyro

    def refuse(*_, **__):
        import sys

        print("+- Oh ----+\n| no\n|    such thing |\n+---------+", file=sys.stderr)
        raise SystemExit(2)

    monkeypatch.setattr(tyro, "cli", refuse)
    with pytest.raises(DecaylabError, match=r"^Oh no such thing; `decaylab x --help` lists what it takes$"):
        parse(lambda: None, [], prog="decaylab x")


def test_a_function_is_not_called_while_its_arguments_are_read():
    called = []

    def command(number: int) -> int:
        """Take a number."""
        called.append(number)
        return number + 1

    call = parse(command, ["--number", "3"], prog="decaylab x")
    assert not called
    assert call() == 4
