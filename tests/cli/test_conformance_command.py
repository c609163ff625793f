"""The conformance command: exit codes, the table, JSON, one-line errors."""

import json

import pytest

from decaylab.cli import main

OWN = """
import torch

def frozen_schedule(params, lr, weight_decay):
    class Frozen(torch.optim.SGD):
        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for weight in group["params"]:
                        if weight.grad is not None:
                            weight.mul_(1 - group["initial_lr"] * group["decay_by"])
            super().step()
    optimizer = Frozen(params, lr=lr)
    for group in optimizer.param_groups:
        group["decay_by"] = weight_decay
    return optimizer

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_tested_optimizer.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_conforming_optimizer(capsys):
    assert main(["conformance", "torch.optim.SGD", "--kwargs", "momentum=0.9", "nesterov=True"]) == 0
    out = capsys.readouterr().out
    assert "torch.optim.SGD(momentum=0.9, nesterov=True)" in out and "L2" in out and out.rstrip().endswith("conforms")


def test_broken_optimizer(own, capsys):
    assert main(["conformance", "own_tested_optimizer:frozen_schedule", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    broken = [finding["identity"] for finding in report["findings"] if finding["status"] == "broken"]
    assert report["meaning"] == "first_lr" and broken == ["schedule"] and report["conforms"] is False


def test_other_convention_than_asked_for(capsys):
    assert main(["conformance", "torch.optim.Adam", "--convention", "torch"]) == 1
    assert "broken: convention" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["torch.optim.Adamx"], "did you mean 'Adamax'"),
        (["no_such_package.Thing"], "cannot import"),
        (["torch.optim.LBFGS"], "cannot build torch.optim.LBFGS"),
        (["torch.optim.SGD", "--kwargs", "momentum"], "key=value"),
        (["torch.optim.SGD", "--kwargs", "momentun=0.9"], "momentun"),
        (["torch.optim.SGD", "--kwargs", "weight_decay=0.1"], "the check sets weight_decay itself"),
        (["torch.optim.SGD", "--convention", "tourch"], "did you mean 'torch'"),
        (["own_tested_optimizer:number"], "not an optimizer class"),
    ],
)
def test_mistakes_are_one_line(own, arguments, message, capsys):
    assert main(["conformance", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("decaylab: ")
