"""A rule, a probe, a data set, an architecture and an optimizer that live outside the package train through the CLI."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from decaylab.cli import main
from decaylab.config.identity import run_id
from decaylab.config.schema import (
    Decay,
    Evaluation,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
    VisionData,
    VisionModel,
    VisionRun,
)
from decaylab.data import text, vision
from decaylab.errors import DecaylabError
from decaylab.schedules import Schedule
from decaylab.train.build import language_model, stepper, vision_model
from decaylab.train.fit import fit
from decaylab.train.preflight.inputs import with_content

OWN = Path(__file__).parents[2] / "examples" / "own"


def own(name):
    return f"{OWN / name}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One vision run with everything in it a stranger's, and one language run, through the command line."""
    folder = tmp_path_factory.mktemp("own")
    store = str(folder / "runs.db")
    images = [
        *("train", "vision", "--store", store, "--device", "cpu", "--epochs", "2", "--batch-size", "100"),
        *("--data.dataset", own("dataset.py:bars"), "--data.options", "noise", "40"),
        *("--model.architecture", own("architecture.py:Mlp"), "--model.options", "hidden", "16"),
        *("--optimizer.name", own("optimizer.py:NormalizedSGD"), "--optimizer.lr", "0.05"),
        *("--decay.rule", own("rule.py:AboveBound"), "--decay.weight-decay", "0.1", "--decay.options", "bound", "0.5"),
        *("--probes.names", own("probe.py:StableRank"), "--probes.every", "2"),
    ]  # fmt: skip
    words = [
        *("train", "language", "--store", store, "--device", "cpu", "--steps", "8", "--batch-size", "4"),
        *("--data.corpus", own("dataset.py:sums"), "--data.tokenizer", "ascii", "--schedule.warmup-steps", "2"),
        *("--model.architecture", own("architecture.py:Gru"), "--model.width", "8", "--model.context", "16"),
        *("--optimizer.name", "torch.optim:NAdam", "--optimizer.lr", "0.01", "--evaluation.batches", "2"),
        *("--evaluation.batch-size", "4", "--probes.names", "norms"),
    ]
    return store, [main(images), main(words)]


def test_they_train_through_the_command_line(trained, capsys):
    store, codes = trained
    assert codes == [0, 0]
    assert main(["runs", "--store", store, "--json"]) == 0
    images, words = json.loads(capsys.readouterr().out)["runs"]
    assert (images["status"], words["status"]) == ("done", "done")
    assert images["last"]["test/error"] < 0.5  # one of eight columns is bright
    assert 1 <= images["last"]["weights/stable_rank"] <= 16
    assert images["config"]["decay"]["options"] == [["bound", 0.5]]
    assert math.isfinite(words["last"]["val/loss"])


def test_a_finished_run_of_ones_own_is_not_trained_again(trained, capsys):
    store, _ = trained
    assert main(["runs", "--store", store, "--json"]) == 0
    before = json.loads(capsys.readouterr().out)["runs"]
    path = Path(store).with_name("again.json")
    path.write_text(json.dumps(before[0]["config"]))
    assert main(["train", "vision", "--config", str(path), "--store", store, "--device", "cpu"]) == 0
    assert f"run {before[0]['id']}: done" in capsys.readouterr().out
    assert main(["runs", "--store", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == before


def test_rules_shows_one_of_ones_own(capsys):
    assert main(["rules", own("rule.py:AboveBound")]) == 0
    shown = capsys.readouterr().out
    assert "Decay the rows of a weight whose norm is above a bound" in shown
    assert "bound" in shown
    assert "schedule" in shown


def test_a_rule_of_ones_own_does_what_it_says():
    config = VisionRun(
        optimizer=Optimizer(name="sgd", lr=0.5),
        decay=Decay(rule=own("rule.py:AboveBound"), weight_decay=0.2, options=(("bound", 2.0),), roles=("all",)),
    )
    layer = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
    made = stepper(config, layer, scaled=False)
    layer.weight.grad = torch.zeros(2, 2)
    made.optimizer.step()
    assert layer.weight[:, 0].tolist() == [pytest.approx(3.0 * (1 - 0.5 * 0.2)), 1.0]


def test_data_of_ones_own_are_normalised_and_cut_like_ours():
    bars = vision(own("dataset.py:bars"), 80, 0.25, options=(("noise", 10),))
    assert bars.train_x.shape == (80, 1, 8, 8)
    assert bars.num_classes == 8
    assert abs(bars.train_x.mean()) < 1e-5
    assert (bars.train_y != bars.clean_train_y).sum() == 20
    assert torch.bincount(bars.clean_train_y).max() == 10
    stream = text(own("dataset.py:sums"), "ascii")
    assert stream.decode(stream.train[:30]).count("=") >= 2
    assert 0.03 < len(stream.val) / len(stream.train) < 0.08
    assert text(own("dataset.py:sums"), "ascii").folder == stream.folder


def test_components_offered_by_an_installed_package(tmp_path, monkeypatch):
    from decaylab import references

    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[decaylab.plugins]\narchitecture.linear = stranger:Linear\noptimizer.slow = stranger:Slow\n"
        "dataset.noise = stranger:noise\nrule.none = stranger:Nothing\nprobe.zero = stranger:Zero\n"
    )
    (tmp_path / "stranger.py").write_text(
        "import numpy as np\nimport torch\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "from decaylab.decay import Rule\n"
        "class Linear(nn.Sequential):\n"
        "    def __init__(self, num_classes, in_channels, image_size):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))\n"
        "def Slow(params, lr):\n    return torch.optim.SGD(params, lr=lr / 100)\n"
        "def noise(seed, train_size):\n"
        "    r = np.random.default_rng(seed)\n"
        "    n = train_size or 40\n"
        "    return r.normal(size=(n, 4, 4)), np.arange(n) % 2, r.normal(size=(8, 4, 4)), np.arange(8) % 2\n"
        "@dataclass(frozen=True)\nclass Nothing(Rule):\n    '''Nothing at all.'''\n"
        "class Zero:\n    name = 'zero'\n    needs = frozenset()\n"
        "    def measure(self, context):\n        return {'zero': 0.0}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    references._entry_points.cache_clear()
    records = []
    config = VisionRun(
        model=VisionModel(architecture="linear"),
        data=VisionData(dataset="noise", train_size=20),
        optimizer=Optimizer(name="slow", lr=0.1),
        decay=Decay(rule="none"),
        probes=Probes(names=("zero",), every=1),
        batch_size=10,
        epochs=1,
    )
    try:
        outcome = fit(config, records.append, folder=tmp_path / "run", device="cpu")
    finally:
        monkeypatch.undo()
        references._entry_points.cache_clear()
    assert outcome.status == "done"
    assert any(record.get("zero") == 0.0 for record in records)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer.name", "sdg"], "unknown value for optimizer.name 'sdg'; did you mean 'sgd'"),
        (["--model.architecture", "resnet_smal"], "did you mean 'resnet_small'"),
        (["--data.dataset", "torch:nonesuch"], "unknown name in torch 'nonesuch'"),
        (["--optimizer.name", "torch.optim:Adamm"], "did you mean 'Adam'"),
        (["--optimizer.name", "math:pi"], "math:pi is no optimizer"),
        (["--optimizer.name", "torch.optim:NAdam", "--optimizer.options", "momentum_dekay", "1"], "momentum_decay"),
        (["--optimizer.name", "torch.nn:Linear"], "torch.nn:Linear cannot be called with what decaylab knows"),
        (["--optimizer.name", "builtins:str"], "gave str where a torch.optim.Optimizer is needed"),
        (["--optimizer.name", "torch.optim:NAdam", "--optimizer.dampening", "0.5"], "optimizer.dampening is for sgd"),
        (["--optimizer.options", "a", "1"], "optimizer.options are for components of your own: sgd has none"),
        (["--model.architecture", "math:pi"], "math:pi is no architecture"),
        (["--model.architecture", "builtins:dict"], "gave dict where a torch module is needed"),
        (["--data.dataset", "math:sqrt"], "cannot be called with what decaylab knows"),
        (["--data.dataset", "builtins:dict"], "must give four arrays"),
        (["--decay.rule", "torch.nn:Linear"], "torch.nn:Linear is no decay rule"),
        (["--decay.rule", "nonesuch:Rule"], "cannot import 'nonesuch'"),
        (["--probes.names", "torch.nn:Linear"], "torch.nn:Linear is no probe"),
    ],
)  # fmt: skip
def test_what_is_no_component_is_one_line_before_anything_is_trained(tmp_path, capsys, arguments, message):
    import re

    store = tmp_path / "runs.db"
    assert main(["train", "vision", "--store", str(store), "--device", "cpu", *arguments]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err
    assert main(["runs", "--store", str(store)]) in (0, 2)
    assert "waiting" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ("np.zeros((4, 8, 8)), [0, 1, 0, 1], np.zeros((2, 8, 8)), [0, 1]", "all of one colour"),
        ("np.zeros((4, 8, 9)), [0, 1, 0, 1], np.zeros((2, 8, 9)), [0, 1]", "has the shape .4, 1, 8, 9., expected"),
        ("np.ones((4, 8, 8)), [0, 1, 0], np.zeros((2, 8, 8)), [0, 1]", "train_y must have 4 whole labels"),
        ("np.ones((4, 8, 8)), [0, 1, 0, 1], np.zeros((2, 4, 4)), [0, 1]", "different shapes"),
        ("np.full((4, 8, 8), np.nan), [0, 1, 0, 1], np.zeros((2, 8, 8)), [0, 1]", "not finite"),
        ("np.ones((4, 8, 8)), ['a', 'b', 'a', 'b'], np.zeros((2, 8, 8)), [0, 1]", "whole labels"),
        ("np.full((4, 8, 8), 'a'), [0, 1, 0, 1], np.zeros((2, 8, 8)), [0, 1]", "expected numbers"),
        ("np.ones((4, 8, 8)), [0, 0, 0, 0], np.zeros((2, 8, 8)), [0, 0]", "two classes or more"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, arrays, message):
    path = tmp_path / "arrays.py"
    path.write_text(f"import numpy as np\ndef data():\n    return {arrays}\n")
    with pytest.raises(DecaylabError, match=message):
        vision(f"{path}:data")


def test_models_of_ones_own_know_the_data():
    settings = VisionModel(architecture=own("architecture.py:Mlp"), options=(("hidden", 5),))
    assert sum(p.numel() for p in vision_model(settings, 3, 1, 4).parameters()) == 16 * 5 + 5 + 5 * 3 + 3
    gru = language_model(LanguageModel(architecture=own("architecture.py:Gru"), width=4), 11)
    assert gru(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 11)


def test_other_code_is_another_run_wherever_it_lies(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for folder in ("one", "two"):
        (tmp_path / folder / "rule.py").write_text((OWN / "rule.py").read_text())
    configs = [VisionRun(decay=Decay(rule=f"{tmp_path / folder}/rule.py:AboveBound")) for folder in ("one", "two")]
    first, second = (with_content(config) for config in configs)
    assert run_id(first) == run_id(second) != run_id(configs[0])
    monkeypatch.chdir(tmp_path / "one")
    here = with_content(VisionRun(decay=Decay(rule="rule.py:AboveBound")))
    assert here == first
    (tmp_path / "two" / "rule.py").write_text("# better\n" + (OWN / "rule.py").read_text())
    assert run_id(with_content(configs[1])) != run_id(first)
    with pytest.raises(DecaylabError, match="code of your own components has changed since these settings"):
        with_content(second)
    (tmp_path / "two" / "rule.py").unlink()
    with pytest.raises(DecaylabError, match="there is no file"):
        with_content(configs[1])
    installed = VisionRun(optimizer=Optimizer(name="torch.optim:NAdam"))
    assert with_content(installed) == installed  # like torch itself, it is no part of the id


def test_options_left_out_do_not_change_an_id():
    assert run_id(VisionRun()) == run_id(VisionRun(model=VisionModel(options=()), data=VisionData(options=())))
    with_option = VisionRun(optimizer=Optimizer(name="torch.optim:NAdam", options=(("momentum_decay", 0.1),)))
    assert run_id(with_option) != run_id(VisionRun(optimizer=Optimizer(name="torch.optim:NAdam")))


def test_a_language_run_of_ones_own_learns(tmp_path):
    config = LanguageRun(
        model=LanguageModel(architecture=own("architecture.py:Gru"), width=16, context=16),
        data=LanguageData(corpus=own("dataset.py:sums"), tokenizer="ascii"),
        optimizer=Optimizer(name="adamw", lr=0.02),
        schedule=Schedule(kind="constant"),
        evaluation=Evaluation(every=60, batches=2, batch_size=8),
        probes=Probes(names=()),
        batch_size=8,
        steps=60,
    )
    outcome = fit(config, lambda record: None, folder=tmp_path, device="cpu")
    assert outcome.summary["val/loss"] < 0.8 * np.log(128)
