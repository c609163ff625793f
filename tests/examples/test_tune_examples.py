"""The scripts of examples/tune: each keeps the contract of `decaylab tune`, run for real at tiny size."""

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from decaylab.tuning import command, contract
from decaylab.tuning.coordinates import Point
from decaylab.tuning.metric import LOG, Metric
from decaylab.tuning.trials import Result

FOLDER = Path(__file__).parents[2] / "examples" / "tune"
LINES = (FOLDER / "README.md").read_text().replace("\\\n", " ").splitlines()
SCRIPTS = {"plain_pytorch": None, "trainer": "transformers", "with_lightning": "lightning", "like_nanogpt": None}


def _documented(script):
    """The command behind -- that the README gives for a script, and its options."""
    line = next(line for line in LINES if f"python {script}.py" in line and "decaylab tune" in line)
    options, words = line.split(" -- ")
    return options, words.split()


class Ran:
    """Runs a command's script in this process, and reads its metric as a trial does."""

    def __init__(self, words, metric, folder, monkeypatch):
        self.words, self.metric, self.folder, self.monkeypatch = words, metric, folder, monkeypatch

    def run(self, points):
        return [self._one(number, point) for number, point in enumerate(points)]

    def _one(self, number, point):
        words = command.filled(self.words, point, self.folder / str(number))
        self.monkeypatch.setattr(sys, "argv", words[1:])
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            runpy.run_path(str(FOLDER / words[1]), run_name="__main__")
        (self.folder / LOG).write_text(output.getvalue())
        found = self.metric.read(self.folder)
        return Result(run=str(number), point=point, status="done", value=found["value"], lr=found.get("lr"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_keeps_the_contract(script, tmp_path, monkeypatch):
    if SCRIPTS[script]:
        pytest.importorskip(SCRIPTS[script])
    options, words = _documented(script)
    assert command.check(words, lr_is_searched=False) >= {"weight_decay", "lr", "steps", "seed"}
    pattern = re.search(r'--metric-regex "([^"]+)"', options)
    metric = Metric.parse("loss", None, pattern and pattern[1])
    lr = float(re.search(r"--lr (\S+)", options)[1])
    found = contract.check(Ran(words, metric, tmp_path, monkeypatch), lr, 24, 0.5, (0, 1), has_seed=True)
    assert found.reaches and found.paired and found.repeats == 0


def test_the_trainer_script_tunes_itself(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    seen = {}

    def tuned(trainer, **settings):
        seen.update(settings, steps=trainer.args.max_steps, fresh=trainer.model_init)
        return type("Answer", (), {"lines": lambda self: ["use weight decay 0.1"]})()

    monkeypatch.setattr("decaylab.integrations.trainer_search.tune_trainer", tuned)
    monkeypatch.setattr("decaylab.integrations.tune_trainer", tuned, raising=False)  # where it was loaded before
    monkeypatch.setattr(sys, "argv", ["trainer.py", "--budget", "3", "--out", str(tmp_path)])
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        runpy.run_path(str(FOLDER / "trainer.py"), run_name="__main__")
    assert seen["budget"] == 3 and seen["steps"] == 3200 and "use weight decay" in output.getvalue()


def test_numbers_are_written_so_that_scripts_of_strict_types_take_them():
    words = command.filled(
        ["{weight_decay}", "{lr}", "{steps}"], Point(weight_decay=0.0, lr=1.0, steps=24, seed=0), "out"
    )
    assert words == ["0.0", "1.0", "24"]
    small = command.filled(["{weight_decay}"], Point(weight_decay=1.5e-7, lr=1.0, steps=24, seed=0), "out")
    assert float(small[0]) == 1.5e-7 and json.loads(small[0]) == 1.5e-7
