"""A run follows the norms of another run of the store: through the command line, after a stop, and refused in time."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from tests.support.stopping import work

from decaylab.cli import main
from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import Decay, Evaluation, Probes, VisionData, VisionModel, VisionRun
from decaylab.launch.scheduler import Run
from decaylab.store.store import Store
from decaylab.tensors.norm_trajectory import NormTrajectory
from decaylab.train.checkpoints.layout import norms_file

BASE = VisionRun(
    model=VisionModel(width=2, blocks=1),
    data=VisionData(train_size=32),
    decay=Decay(rule="l2", weight_decay=0.1, roles=("matrix",)),
    evaluation=Evaluation(every=2),
    probes=Probes(names=("norms",), every=1),
    batch_size=8,
    epochs=2,
    record_norms=True,
)
FOLLOWER = replace(
    BASE, decay=Decay(rule="follow_norms", roles=("matrix",), norms_from=run_id(BASE)), record_norms=False
)


def test_ids_and_needs():
    assert run_id(replace(BASE, record_norms=False)) != run_id(BASE)
    assert run_id(replace(BASE, decay=replace(BASE.decay, norms_from=None))) == run_id(BASE)
    assert Run.of(FOLLOWER).needs == (run_id(BASE),)


def test_through_the_command_line(tmp_path, capsys):
    url = str(tmp_path / "runs.db")
    for name, config in (("recorded", BASE), ("follower", FOLLOWER)):
        (tmp_path / f"{name}.json").write_text(json.dumps(to_dict(config)))
    command = ["train", "vision", "--store", url, "--device", "cpu", "--config"]
    with Store(url):  # an empty one
        pass
    assert main([*command, str(tmp_path / "follower.json")]) == 2
    assert "train that one first, with --record-norms" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "recorded.json")]) == 0
    assert main([*command, str(tmp_path / "follower.json")]) == 0
    short = ["--decay.rule", "FollowNorms", "--decay.norms-from", run_id(BASE)[:6], "--decay.weight-decay", "0"]
    assert main([*command, str(tmp_path / "recorded.json"), *short, "--no-record-norms"]) == 0  # the same run
    with Store(url) as store:
        assert len(store.rows()) == 2
        kept = NormTrajectory.load(norms_file(store.folder(run_id(BASE))))
        table = {
            run: store.table([run], ["weights/norm/matrix"]).set_index("step")["value"]
            for run in (run_id(BASE), run_id(FOLLOWER))
        }
    assert kept.steps == 8
    matrices = [column for column, shape in enumerate(kept.shapes) if len(shape) > 1]
    total = kept.norms.double()[:, [c for c in matrices if "head" not in kept.names[c]]].square().sum(1).sqrt()
    for norms in table.values():
        assert norms.to_numpy() == pytest.approx(total.numpy(), rel=1e-5)
    assert (table[run_id(BASE)].diff().abs() > 1e-6).any()


def test_a_stopped_run_goes_on_also_when_the_other_one_is_gone(tmp_path, monkeypatch):
    ends = {}
    for name, stop in (("whole", None), ("stopped", 3)):
        with Store(str(tmp_path / f"{name}.db")) as store:
            work(store, Run.of(BASE), monkeypatch, stop=stop)  # also the recording is stopped and goes on
            assert work(store, Run.of(BASE), monkeypatch).status == "done"
            ends[name, "norms"] = NormTrajectory.load(norms_file(store.folder(run_id(BASE)))).norms
            follower = replace(Run.of(replace(FOLLOWER, snapshots_at=(2,))), needs=())
            work(store, follower, monkeypatch, stop=stop)
            if stop is not None:
                shutil.rmtree(store.folder(run_id(BASE)))
                assert work(store, follower, monkeypatch).status == "done"
            ends[name, "summary"] = store.get(follower.id).summary["train/loss"]
    assert torch.equal(ends["whole", "norms"], ends["stopped", "norms"])
    assert ends["whole", "summary"] == ends["stopped", "summary"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--decay.rule", "follow_norms"], "needs decay.norms_from"),
        (["--decay.norms-from", "abc"], "is for the rule follow_norms"),
    ],
)
def test_settings_that_do_not_go_together(arguments, words, tmp_path, capsys):
    assert main(["train", "vision", "--store", str(tmp_path / "runs.db"), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_run_that_keeps_no_norms_is_refused(tmp_path, capsys):
    url = str(tmp_path / "runs.db")
    silent = replace(BASE, record_norms=False)
    with Store(url) as store:
        store.add(run_id(silent), to_dict(silent), kind="vision")
    arguments = ["--decay.rule", "follow_norms", "--decay.norms-from", run_id(silent)]
    assert main(["train", "vision", "--store", url, *arguments]) == 2
    assert "keeps no norms" in capsys.readouterr().err


def test_the_seed_of_the_data_follows_the_run():
    from decaylab.train.tasks import VisionTask

    def first(**settings):
        run = replace(BASE, data=VisionData(train_size=32, **settings.pop("data")), **settings)
        return VisionTask(run, torch.device("cpu")).fixed_batches(8)[0][0]

    assert torch.equal(first(data={}, seed=3), first(data={}, seed=4))
    assert torch.equal(first(data={"seed": None}, seed=3), first(data={"seed": 3}, seed=0))
    assert not torch.equal(first(data={"seed": None}, seed=3), first(data={"seed": None}, seed=4))
    assert run_id(replace(BASE, data=VisionData(train_size=32, seed=0))) == run_id(BASE)
