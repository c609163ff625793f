"""A run that cannot start from where it is told to says so before it enters the store."""

from dataclasses import replace

import pytest

from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import (
    Averages,
    InitFrom,
    LanguageData,
    LanguageModel,
    LanguageRun,
    VisionModel,
    VisionRun,
    kind,
)
from decaylab.errors import DecaylabError
from decaylab.launch.parent_run import has_begun, origin_is_there, require_origin
from decaylab.store.store import Store

PARENT = VisionRun(snapshots_every=2, snapshots_at=(3,), epochs=4, averages=Averages(ema=(0.9,)))
ID = run_id(PARENT)
SPOKEN = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=1, width=8, context=8),
    data=LanguageData(tokenizer="ascii"),
    steps=10,
    snapshots_every=4,
)


@pytest.fixture
def url(tmp_path):
    return tmp_path / "runs.db"


def _enter(url, config, status, *, snapshots=(), total=40):
    with Store(url) as store:
        store.add(run_id(config), to_dict(config), kind=kind(config))
        lease = store.lease(run_id(config), "tester")
        store.heartbeat(lease, step=7, total_steps=total)
        if status != "running":
            store.finish(lease, status=status, step=7)
        for step in snapshots:
            (store.folder(run_id(config)) / f"snapshot-{step}").mkdir(parents=True)


def _from(run, step, parent=PARENT, **settings):
    return replace(parent, seed=1, init_from=InitFrom(run=run, step=step, **settings))


def test_the_first_characters_of_the_id_are_enough(url):
    _enter(url, PARENT, "done", snapshots=[20, 40])
    found = require_origin(_from(ID[:6], 20), url)
    assert found == _from(ID, 20)
    assert require_origin(PARENT, url.with_name("nowhere.db")) is PARENT


@pytest.mark.parametrize(
    ("child", "said"),
    [
        (_from("f" * 16, 20), "which is not in the store .*: train that one first"),
        (_from(ID, 30), f"run {ID} kept no snapshot of step 30; it kept those of 20, 40"),
        (_from(ID, 20, weights="ema0.99"), "unknown average of run .* 'ema0.99'; did you mean 'ema0.9'"),
        (_from(ID, 20, optimizer=True), "no optimizer state: .* --snapshot-optimizer"),
        (replace(_from(ID, 20), model=VisionModel(width=16)), "has model.width 8 and this run 16"),
        (replace(SPOKEN, init_from=InitFrom(run=ID, step=20)), "is a vision run: a language run cannot"),
    ],
)
def test_what_an_ended_run_has_not(url, child, said):
    _enter(url, PARENT, "done", snapshots=[40, 20])
    with pytest.raises(DecaylabError, match=said):
        require_origin(child, url)


def test_an_ended_run_without_snapshots(url):
    _enter(url, PARENT, "diverged")
    with pytest.raises(DecaylabError, match=r"kept no snapshots: .* --snapshots-every"):
        require_origin(_from(ID, 20), url)


def test_a_run_that_nobody_trains_is_asked_for_what_it_has(url):
    _enter(url, PARENT, "interrupted", snapshots=[5])
    with Store(url) as store:
        folder = store.folder(ID)
        (folder / "checkpoint-7").mkdir()
    for step in (5, 7):
        child = _from(ID, step)
        assert require_origin(child, url) == child and origin_is_there(child, url)
    assert require_origin(_from(ID, 7, optimizer=True), url)
    with pytest.raises(DecaylabError, match="no optimizer state"):
        require_origin(_from(ID, 5, optimizer=True), url)
    with pytest.raises(DecaylabError, match=r"has not got there \(interrupted at step 7\): train that one first"):
        require_origin(_from(ID, 20), url)
    with pytest.raises(DecaylabError, match="will keep no snapshot of step 8; it will keep those of 0, 20, 30, 40"):
        require_origin(_from(ID, 8), url)
    for path in folder.iterdir():
        path.rmdir()
    assert not origin_is_there(_from(ID, 7), url)


def test_what_has_begun_needs_no_origin(url):
    _enter(url, PARENT, "done", snapshots=[40])
    child = _from(ID, 7)
    with pytest.raises(DecaylabError, match="kept no snapshot of step 7"):
        require_origin(child, url)
    _enter(url, child, "interrupted")
    assert not has_begun(child, url)
    with Store(url) as store:
        (store.folder(run_id(child)) / "checkpoint-3").mkdir(parents=True)
    assert has_begun(child, url) and require_origin(child, url) == child


def test_a_run_in_training_is_asked_for_what_it_will_keep(url):
    _enter(url, PARENT, "running", total=40)
    with Store(url) as store:
        (store.folder(ID) / "checkpoint-7").mkdir(parents=True)
    for step in (0, 7, 20, 30, 40):  # ten steps an epoch: every other epoch, and the third
        require_origin(_from(ID, step), url)
    with pytest.raises(DecaylabError, match="will keep no snapshot of step 10; it will keep those of 0, 20, 30, 40"):
        require_origin(_from(ID, 10), url)


def test_a_language_run_in_training_keeps_its_end_too(url):
    _enter(url, SPOKEN, "running", total=10)
    for step in (4, 8, 10):
        require_origin(_from(run_id(SPOKEN), step, SPOKEN), url)
    with pytest.raises(DecaylabError, match="those of 0, 4, 8, 10"):
        require_origin(_from(run_id(SPOKEN), 5, SPOKEN), url)
    other = replace(_from(run_id(SPOKEN), 4, SPOKEN), data=LanguageData(tokenizer="bytes"))
    with pytest.raises(DecaylabError, match=r"has data.tokenizer ascii and this run bytes"):
        require_origin(other, url)


def test_a_run_that_has_ended_needs_no_origin(url):
    _enter(url, PARENT, "done")
    child = _from(ID, 20)
    _enter(url, child, "done")
    assert require_origin(_from(ID[:6], 20), url) == child
