"""The commands of the page on training are runs, and name every kind of run that the page promises."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from decaylab.cli import main
from decaylab.config.presets import PRESETS
from decaylab.config.schema import InitFrom, LanguageRun
from decaylab.config.validation import check
from decaylab.schedules import value

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
COMMANDS = re.findall(r"^\$ .*?decaylab (train language .+)$", PAGE, re.MULTILINE)


def _run(command, monkeypatch):
    """The settings that a command would train."""
    found = []
    module = importlib.import_module("decaylab.cli.train")
    monkeypatch.setattr(module, "_train", lambda config, where: found.append(config) or 0)
    assert main(shlex.split(command)) == 0
    return found[0]


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--config" not in c])
def test_each_command_is_a_run(command, monkeypatch):
    run = _run(command, monkeypatch)
    assert isinstance(run, LanguageRun)
    check(run)


def test_the_authors_first_command(monkeypatch):
    """Its settings, in this package's words, are those of their configuration file for it."""
    run = _run(next(c for c in COMMANDS if "shakespeare" in c), monkeypatch)
    assert (run.model.num_layers, run.model.num_heads, run.model.width, run.model.context) == (6, 6, 384, 256)
    assert (run.model.bias, run.model.tied, run.model.dropout) == (False, True, 0.0)
    assert (run.batch_size, run.accumulation, run.steps, run.evaluation.every) == (64, 1, 10_000, 250)
    assert run.evaluation.batches * run.evaluation.batch_size >= 1000
    assert (run.optimizer.name, run.optimizer.betas, run.optimizer.clip) == ("adamw", (0.9, 0.99), 1.0)
    assert run.decay.weight_decay == 0.0
    rates = [value(run.schedule, step, run.optimizer.lr, run.steps) for step in (0, 50, 100, 9_999)]
    assert rates == pytest.approx([0.0, 5e-4, 1e-3, 1e-4], rel=1e-4)


def test_the_presets_are_those_of_the_page():
    for name, preset in PRESETS.items():
        assert f"| `{name}` | {preset.text} |" in PAGE


def test_what_the_table_names_can_be_said(monkeypatch):
    common = (
        " --decay.roles norm bias --averages.ema 0.99 0.999 --averages.uniform --weights bfloat16 --stochastic-rounding"
    )
    choices = (("adamw", "cosine", "decoupled"), ("sgd", "constant", "l2"), ("signsgd", "linear", "loss-l2"))
    for name, kind, rule in choices:
        flags = f"--optimizer.name {name} --schedule.kind {kind} --decay.rule {rule}"
        run = _run(f"train language {flags}{common}", monkeypatch)
        assert (run.optimizer.name, run.schedule.kind, run.decay.rule) == (name, kind, rule)
        assert run.decay.roles == ("norm", "bias") and run.averages.ema == (0.99, 0.999)
    run = _run(next(c for c in COMMANDS if "--init-from.optimizer" in c), monkeypatch)
    assert run.init_from == InitFrom(run="RUN", step=20, optimizer=True)


def test_every_flag_on_the_page_exists(capsys):
    with pytest.raises(SystemExit):
        main(["train", "language", "--help"])
    known = capsys.readouterr().out
    flags = set(re.findall(r"--[a-z][a-z.-]+", PAGE))
    others = {"--help", "--json", "--budget", "--prompt", "--to", "--standalone", "--nproc-per-node", "--max-restarts"}
    others |= {"--signal"}  # of timeout
    others |= {"--config", "--pick", "--init-from", "--init-from.optimizer", "--init-from.weights"}
    assert not [flag for flag in flags - others if flag not in known]
