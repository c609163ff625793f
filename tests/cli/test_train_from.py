"""A run that started from another one's checkpoint goes on by its own command when that checkpoint is gone."""

import json
import shutil
from dataclasses import replace

from tests.support.stopping import work
from tests.train.checkpoints.test_initial_weights import PARENT as START

from decaylab.cli import main
from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import InitFrom, LanguageData
from decaylab.launch.scheduler import Run
from decaylab.store.store import Store
from decaylab.train.fit import fit

PARENT = replace(START, data=LanguageData(tokenizer="ascii"), snapshots_every=0, snapshot_optimizer=False)


def _begin(store, config, stop, monkeypatch):
    """Train some steps of a run, and leave it interrupted in the store."""
    work(store, replace(Run.of(config), needs=()), monkeypatch, stop=stop, every=1000)


def _end(store, config, status):
    store.add(run_id(config), to_dict(config), kind="language")
    assert store.finish(store.lease(run_id(config), "tester"), status=status, step=0)


def test_it_goes_on(tmp_path, monkeypatch, capsys):
    url, file = str(tmp_path / "runs.db"), tmp_path / "run.json"
    child = replace(PARENT, init_from=InitFrom(run=run_id(PARENT), step=3, optimizer=True))

    with Store(url) as store:
        _begin(store, PARENT, 3, monkeypatch)
        whole = fit(child, lambda m: None, resolve=store.folder).summary
        _begin(store, child, 2, monkeypatch)
        shutil.rmtree(store.folder(run_id(PARENT)))
        _end(store, PARENT, "done")
        file.write_text(json.dumps(to_dict(child)))
        command = ["train", "language", "--config", str(file), "--store", url, "--device", "cpu"]
        assert main(command) == 0, capsys.readouterr().err
        row = store.get(run_id(child))
        losses = [row.summary[f"{split}/loss"] for split in ("train", "val")]
    assert row.status == "done" and row.step == 8
    assert losses == [whole[f"{split}/loss"] for split in ("train", "val")]
    assert main([*command, "--seed", "1"]) == 2  # another run has to start from there
    assert "no optimizer state" in capsys.readouterr().err
