"""A run in a store goes on only from what is whole and vouched for, and ends with the bits that it would have had."""

import errno
import shutil
import time

import pytest
from sqlalchemy import delete
from tests.support.stopping import work

from decaylab.config.schema import (
    Evaluation,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
)
from decaylab.launch.run_session import ERROR_FILE, RunSession
from decaylab.launch.scheduler import Run
from decaylab.schedules import Schedule
from decaylab.store import schema
from decaylab.store.leases import LeaseLost
from decaylab.store.store import Store
from decaylab.train.checkpoints import files, layout, manifest

CONFIG = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=1, width=8, context=8, dropout=0.1),
    data=LanguageData(tokenizer="ascii"),
    optimizer=Optimizer(name="adamw", lr=1e-2),
    schedule=Schedule(kind="constant"),
    evaluation=Evaluation(every=10, batches=1, batch_size=2),
    probes=Probes(every=4),
    batch_size=2,
    steps=24,
)
RUN = Run.of(CONFIG)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The metrics and the last weights of the run when nothing happens to it."""
    with Store(tmp_path_factory.mktemp("whole") / "runs.db") as store, pytest.MonkeyPatch.context() as monkeypatch:
        assert work(store, RUN, monkeypatch).status == "done"
        return _result(store)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "runs.db") as store:
        yield store


def _result(store):
    points = {(step, key): value for _, step, key, value in store.table([RUN.id]).itertuples(index=False)}
    weights = (store.folder(RUN.id) / f"snapshot-{CONFIG.steps}" / "weights.safetensors").read_bytes()
    return points, weights


def _folders(store):
    return [path for _, path in layout.checkpoints(store.folder(RUN.id))]


def _flip(path, place=0.9):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 64
    path.write_bytes(content)


def _ends_alike(store, monkeypatch, undisturbed, said=""):
    row = work(store, RUN, monkeypatch)
    assert row.status == "done" and row.summary.get("damaged", "") == said
    assert _result(store) == undisturbed
    assert _folders(store) == []


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", manifest.NAME])
def test_damage_costs_steps_not_bits(store, monkeypatch, undisturbed, name):
    assert work(store, RUN, monkeypatch, stop=13, every=5).status == "interrupted"
    newest, older = _folders(store)
    _flip(newest / name, 0.5 if name == manifest.NAME else 0.9)
    assert [step for step, _ in layout.checkpoints(store.folder(RUN.id))] == [13, 10]
    row = work(store, RUN, monkeypatch, stop=11)
    reasons = ("could not be read", "is not the one that the store knows")
    assert row.summary["damaged"] in [f"{newest.name} {reason}: it went on from step 10" for reason in reasons]
    assert not newest.exists(), "it would take the place of a good one"
    assert older.exists()
    _ends_alike(store, monkeypatch, undisturbed)


def test_a_run_without_a_whole_checkpoint_starts_again_and_says_so(store, monkeypatch, undisturbed):
    work(store, RUN, monkeypatch, stop=13, every=5)
    newest, older = _folders(store)
    for folder in (newest, older):
        _flip(folder / "state.pt")
    said = f"{newest.name} and {older.name} could not be read: it went on from step 0"
    _ends_alike(store, monkeypatch, undisturbed, said)


def test_a_checkpoint_without_its_metrics_is_not_gone_on_from(store, monkeypatch, undisturbed):
    work(store, RUN, monkeypatch, stop=13, every=5)
    with store._database.write() as connection:
        connection.execute(delete(schema.metrics).where(schema.metrics.c.step > 10))
    said = "checkpoint-13 relies on metrics up to step 12, of which the store holds metrics up to step 10"
    _ends_alike(store, monkeypatch, undisturbed, f"{said}: it went on from step 10")


def test_a_copied_checkpoint_is_not_gone_on_from(store, monkeypatch, undisturbed):
    work(store, RUN, monkeypatch, stop=13, every=5)
    newest, _ = _folders(store)
    copied = newest.with_name("checkpoint-20")
    shutil.copytree(newest, copied)
    said = "checkpoint-20 is not in the store, which holds the metrics of another attempt: it went on from step 13"
    _ends_alike(store, monkeypatch, undisturbed, said)


def test_checkpoints_of_an_older_version_are_gone_on_from(store, monkeypatch, undisturbed):
    work(store, RUN, monkeypatch, stop=13, every=5)
    for folder in _folders(store):
        (folder / manifest.NAME).unlink()
    with store._database.write() as connection:
        connection.execute(delete(schema.checkpoints))
    row = work(store, RUN, monkeypatch, stop=14)
    assert row.step == 14 and "damaged" not in row.summary
    _ends_alike(store, monkeypatch, undisturbed)


def test_damage_in_a_checkpoint_of_an_older_version_is_no_divergence(store, monkeypatch, undisturbed):
    work(store, RUN, monkeypatch, stop=13, every=5)
    newest, older = _folders(store)
    for folder in (newest, older):
        (folder / manifest.NAME).unlink()
    with store._database.write() as connection:
        connection.execute(delete(schema.checkpoints))
    content = bytearray((newest / "state.pt").read_bytes())
    for place in range(len(content) // 3, len(content) // 3 + 200):
        content[place] ^= 0xA5
    (newest / "state.pt").write_bytes(content)
    assert [step for step, _ in layout.checkpoints(store.folder(RUN.id))] == [13, 10]
    said = f"{newest.name} could not be read: it went on from step 10"
    _ends_alike(store, monkeypatch, undisturbed, said)


def test_a_full_disk_costs_checkpoints_not_the_run(store, monkeypatch, undisturbed):
    real = files.save_file

    def full(tensors, path):
        if "checkpoint" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_file", full)
        row = work(store, RUN, monkeypatch, stop=13, every=5)
    assert row.status == "interrupted" and "checkpoint-13 cannot be written: its disk is full" in row.reason
    _ends_alike(store, monkeypatch, undisturbed)


def _session(store, worker, seconds=60.0):
    class Signal:
        stopping = False

    store.add("a", {}, kind="vision")
    return RunSession(store, store.lease("a", worker, seconds=seconds), seconds, Signal())


def _overtaken(store, monkeypatch):
    """A session that was suspended before its first record, and the one that finished the run meanwhile."""
    with monkeypatch.context() as patch:
        patch.setattr("decaylab.launch.heartbeat.LONGEST_PAUSE", 3600.0)
        stale = _session(store, "stale", seconds=10**6)
    store.release("a")
    return stale, _session(store, "successor")


class _End:
    status, reason, steps, summary = "done", "", 3, {}


@pytest.mark.parametrize("ended", [False, True])
def test_a_worker_that_wakes_up_too_late_changes_nothing(store, monkeypatch, ended):
    stale, successor = _overtaken(store, monkeypatch)
    for step in range(3):
        successor.record({"step": step, "x": step})
    successor.commit(2)
    (successor.folder / "checkpoint-2").mkdir(parents=True)
    if ended:
        successor.end(_End())
    before = store.table(), store.get("a").summary, sorted(stale.folder.iterdir())
    for write in (
        lambda: stale.record({"step": 0, "x": 9.0}),
        lambda: stale.record({"resume": 2}),
        lambda: stale.record({"checkpoint": 2}),
        lambda: stale.commit(2),
        lambda: stale.confirm(2, "d" * 64),
        stale.check,
    ):
        with pytest.raises(LeaseLost, match="has ended" if ended else "taken over"):
            write()
    stale.end(ValueError("of its own"))
    assert store.table().equals(before[0]) and (store.get("a").summary, sorted(stale.folder.iterdir())) == before[1:]
    assert not (stale.folder / ERROR_FILE).exists()
    if not ended:
        successor.end(_End())
    assert store.get("a").status == "done"


def test_an_end_that_was_overtaken_is_not_entered(store, monkeypatch):
    stale, successor = _overtaken(store, monkeypatch)
    stale.end(_End())
    assert store.get("a").status == "running"
    successor.end(_End())


def test_a_failed_run_keeps_its_reason_where_the_traceback_has_no_room(store, monkeypatch):
    session = _session(store, "w")
    monkeypatch.setattr(
        "decaylab.launch.run_session.atomic_write_text", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
    )
    session.end(ValueError("what went wrong"))
    assert store.get("a").reason == "ValueError: what went wrong"


@pytest.mark.parametrize("error", [OSError("too many open files"), RuntimeError("anything"), MemoryError()])
def test_heartbeats_survive_every_error(store, monkeypatch, error):
    beats = []
    real = store.heartbeat

    def sometimes(*arguments, **options):
        beats.append(len(beats))
        if len(beats) in (2, 3):
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(store, "heartbeat", sometimes)
    session = _session(store, "w", seconds=0.2)
    until = time.monotonic() + 10
    while len(beats) < 6 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(beats) >= 6 and store.get("a").alive and not session._pulse.lost
    session.end(_End())
    assert store.get("a").status == "done"
