"""One set of checks for every command: a run that one refuses, the others refuse with the same line."""

import dataclasses
import subprocess
import sys

import pytest

from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import Decay, Optimizer, Probes, VisionData, VisionModel, VisionRun
from decaylab.errors import DecaylabError
from decaylab.launch.preflight import preflight
from decaylab.schedules import Schedule
from decaylab.store.store import Store

GOOD = VisionRun(epochs=1, model=VisionModel(width=2), data=VisionData(train_size=100))
REFUSED = {
    "rule": (dataclasses.replace(GOOD, decay=Decay(rule="decoupeld")), "unknown decay rule 'decoupeld'"),
    "probe": (dataclasses.replace(GOOD, probes=Probes(names=("normz",))), "unknown probe 'normz'"),
    "setting": (dataclasses.replace(GOOD, optimizer=Optimizer(name="sgd", eps=1e-6)), "optimizer.eps is for adamw"),
    "warm-up": (dataclasses.replace(GOOD, schedule=Schedule(kind="cosine", warmup_steps=9)), "warm"),
    "data": (dataclasses.replace(GOOD, data=VisionData(dataset="cifar10")), "decaylab data get cifar10"),
    "size": (dataclasses.replace(GOOD, data=VisionData(train_size=5000)), "train_size must be 1 to 1796"),
    "memory": (dataclasses.replace(GOOD, model=VisionModel(width=10**6)), "this run needs at least"),
    "range": (dataclasses.replace(GOOD, batch_size=0), "batch_size must be positive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused(tmp_path, name):
    config, message = REFUSED[name]
    with pytest.raises(DecaylabError, match=message):
        preflight([GOOD, config], str(tmp_path / "no.db"), "cpu")
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize("name", ["rule", "setting", "data", "memory"])
def test_every_command_asks_the_same(tmp_path, name, capsys):
    from decaylab.cli import main

    config, message = REFUSED[name]
    settings = to_dict(config)
    (tmp_path / "run.json").write_text(__import__("json").dumps(settings))
    (tmp_path / "refused_study.py").write_text(
        "import json\nfrom pathlib import Path\nfrom decaylab.config.schema import VisionRun\n"
        "from decaylab.config.identity import from_dict\nfrom decaylab.experiments import Experiment, RunSpec\n"
        f"config = from_dict(json.loads(Path({str(tmp_path / 'run.json')!r}).read_text()))\n"
        "EXPERIMENT = Experiment(id='refused', title='t', seeds={'mini': (0,)},\n"
        "    plan=lambda budget, seeds: [RunSpec(config=config, labels={'seed': 0})])\n"
    )
    store = ["--store", str(tmp_path / "s.db"), "--device", "cpu"]
    said = []
    for arguments in (
        ["train", "vision", "--config", str(tmp_path / "run.json"), *store],
        ["reproduce", str(tmp_path / "refused_study.py"), "--out", str(tmp_path / "page"), *store],
    ):
        assert main(arguments) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert message in said[0]


def test_nothing_is_asked_of_runs_that_have_ended(tmp_path):
    config, _ = REFUSED["data"]
    run = run_id(config)
    with Store(tmp_path / "s.db") as store:
        store.add(run, to_dict(config), kind="vision")
        lease = store.lease(run, "me")
        assert lease
        store.finish(lease, status="done") if not isinstance(lease, bool) else store.finish(run, "me", status="done")
    assert preflight([config], str(tmp_path / "s.db"), "cpu") == {run}
    code = (
        "import sys\nfrom decaylab.launch.preflight import preflight\n"
        "from decaylab.config.schema import VisionData, VisionRun, VisionModel\n"
        f"preflight([VisionRun(epochs=1, model=VisionModel(width=2), data=VisionData(dataset='cifar10'))], "
        f"{str(tmp_path / 's.db')!r}, 'cpu')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
