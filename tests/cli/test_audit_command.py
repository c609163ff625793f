"""The audit command prints the table of a network by name or of the user's own function."""

import json

import pytest

from decaylab.cli import main

OWN = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))

def pair():
    network = model()
    return network, torch.optim.AdamW(network.parameters(), weight_decay=0.5)

def two():
    network = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    muon = torch.optim.Muon([network[0].weight], lr=0.1, weight_decay=0.2)
    adamw = torch.optim.AdamW([network[0].bias, *network[1].parameters()], weight_decay=0.0)
    return network, [muon, adamw]

def ruled():
    from decaylab import attach, decay
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    attach(optimizer, decay.Decoupled(0.3))
    return network, optimizer

def wrong():
    return 3

def fails():
    raise RuntimeError("of its own")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_audited_network.py").write_text(OWN)
    (tmp_path / "no_syntax.py").write_text("def (")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_audited_network"


def test_network_by_name(capsys):
    assert main(["audit", "gpt2", "--exclude", "wpe"]) == 0
    out = capsys.readouterr().out
    assert "tied with lm_head.weight" in out and "124,337,664 elements" in out and "excluded by 'wpe'" in out


def test_json_of_own_function(own, capsys):
    assert main(["audit", "--load", f"{own}:model", "--roles", "0.*=scalar", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["parameters"]
    assert [(row["name"], row["role"]) for row in rows] == [
        ("0.weight", "scalar"), ("0.bias", "scalar"), ("1.weight", "norm"), ("1.bias", "norm")
    ]  # fmt: skip


def test_own_model_with_optimizer_warns(own, capsys):
    assert main(["audit", "--load", f"{own}.pair"]) == 0
    assert "WARNING: the optimizer decays it by 0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a network"),
        (["gpt3"], "did you mean 'gpt2'"),
        (["--load", "nowhere_at_all:f"], "cannot import 'nowhere_at_all'"),
        (["--load", "nowhere"], "package.module:name"),
        (["--load", "own_audited_network:modle"], "did you mean 'model'"),
        (["--load", "own_audited_network:wrong"], "a model or (model, optimizer) is needed"),
        (["--load", "torch.nn:Linear"], "without arguments"),
        (["--load", "own_audited_network:fails"], "failed: RuntimeError: of its own; --debug shows where"),
        (["--load", "no_syntax:model"], "no_syntax cannot be imported: SyntaxError"),
        (["vgg_small", "--roles", "x"], "name=role"),
        (["vgg_small", "--decay", "matrixes"], "did you mean 'matrix'"),
    ],
)
def test_mistakes_are_one_line(own, arguments, message, capsys):
    assert main(["audit", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("decaylab: ")


def test_a_model_may_stand_in_a_file(tmp_path, capsys):
    (tmp_path / "my-model.py").write_text("import torch, beside\ndef build(): return torch.nn.Linear(2, beside.SIZE)\n")
    (tmp_path / "beside.py").write_text("SIZE = 3\n")
    assert main(["audit", "--load", f"{tmp_path / 'my-model.py'}:build"]) == 0
    assert "weight" in capsys.readouterr().out
    assert main(["audit", "--load", f"{tmp_path / 'my-model.py'}:bild"]) == 2
    assert "did you mean 'build'" in capsys.readouterr().err
    assert main(["audit", "--load", f"{tmp_path / 'none.py'}:build"]) == 2
    assert "there is no file" in capsys.readouterr().err
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert main(["audit", "--load", f"{tmp_path / 'broken.py'}:build"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_several_optimizers_and_attached_rules(own, capsys):
    assert main(["audit", "--load", f"{own}:two", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["parameters"]}
    assert [row["optimizer"] for row in rows.values()] == ["Muon", "AdamW", "AdamW", "AdamW"]
    assert (rows["0.weight"]["weight_decay"], rows["0.weight"]["by"], rows["0.weight"]["warns"]) == (0.2, "Muon", False)
    assert main(["audit", "--load", f"{own}:ruled"]) == 0
    out = capsys.readouterr().out
    assert "0.3 Decoupled" in out and "WARNING: the rule Decoupled decays it by 0.3" in out
