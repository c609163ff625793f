"""Which checkpoints count: those whose metrics the store holds, written by who had the run."""

import os
import shutil
import sqlite3

import pytest
from sqlalchemy import delete

from decaylab.store import schema
from decaylab.store.checkpoint_ledger import Coverage
from decaylab.store.leases import LeaseLost
from decaylab.store.store import Store

ONE, TWO = "1" * 64, "2" * 64


def _begin(store, step=-1, worker="w", seconds=60.0):
    lease = store.lease("a", worker, seconds=seconds)
    writer = store.writer(lease)
    ledger = store.ledger(lease, writer)
    ledger.begin(step)
    return lease, writer, ledger


def _train(writer, ledger, steps, digest):
    for step in steps:
        writer.record({"step": step, "x": step, "y": -step})
    covered = ledger.commit(step)
    ledger.confirm(step, digest)
    return covered


def test_a_checkpoint_counts_with_its_metrics(store):
    _, writer, ledger = _begin(store)
    covered = _train(writer, ledger, range(5), ONE)
    assert covered == Coverage(attempt=1, last_step=4, points=10)
    assert ledger.objection(4, ONE, covered) == ""
    assert "is not the one that the store knows" in ledger.objection(4, TWO, covered)
    assert "is not in the store" in ledger.objection(3, ONE, covered)
    assert "has lost its manifest" in ledger.objection(4, None, covered)
    later = _train(writer, ledger, range(5, 8), TWO)
    assert later == Coverage(attempt=1, last_step=7, points=16)
    assert ledger.commit(7) == later, "nothing new"
    assert ledger.objection(7, TWO, later) == "" and ledger.objection(4, ONE, covered) == ""


def test_lost_metrics_take_the_checkpoint_with_them(store):
    _, writer, ledger = _begin(store)
    early = _train(writer, ledger, range(3), ONE)
    late = _train(writer, ledger, range(3, 6), TWO)
    with store._database.write() as connection:
        connection.execute(delete(schema.metrics).where(schema.metrics.c.step == 4))
    assert ledger.objection(5, TWO, late).startswith("relies on metrics up to step 5, of which the store holds")
    assert ledger.objection(2, ONE, early) == ""
    with store._database.write() as connection:
        connection.execute(delete(schema.metrics).where(schema.metrics.c.step > 1))
    assert "up to step 2, of which the store holds metrics up to step 1" in ledger.objection(2, ONE, early)


def test_going_on_from_a_step_forgets_what_came_after(store):
    _, writer, ledger = _begin(store)
    early = _train(writer, ledger, range(3), ONE)
    late = _train(writer, ledger, range(3, 6), TWO)
    _, writer, ledger = _begin(store, 2)
    assert store.table(["a"], ["x"])["step"].tolist() == [0, 1, 2]
    assert ledger.covered == Coverage(attempt=2, last_step=2, points=6)
    assert ledger.objection(2, ONE, early) == "" and "is not in the store" in ledger.objection(5, TWO, late)
    again = _train(writer, ledger, range(3, 6), ONE)
    assert again == Coverage(attempt=2, last_step=5, points=12)
    assert "is not the one" in ledger.objection(5, TWO, late), "of an attempt that was given up"


def test_who_lost_the_run_can_neither_remove_nor_vouch(store):
    """The suspended worker of the first attempt wakes at its first record, its checkpoint, its commit."""
    _, stale_writer, stale = _begin(store, seconds=0.0)
    stale_writer.record({"step": 0, "x": 99.0})
    _, writer, ledger = _begin(store, worker="successor")
    covered = _train(writer, ledger, range(4), ONE)
    for write in (lambda: stale.begin(-1), lambda: stale.commit(0), lambda: stale.confirm(3, TWO), stale.check):
        with pytest.raises(LeaseLost, match="taken over"):
            write()
    assert store.table()["value"].tolist() == [0.0, 1.0, 2.0, 3.0, -0.0, -1.0, -2.0, -3.0]
    assert ledger.objection(3, ONE, covered) == ""


def test_a_checkpoint_of_an_older_version_counts_while_its_metrics_are_there(store):
    _, writer, ledger = _begin(store)
    for step in range(0, 21, 10):
        writer.record({"step": step, "x": step})
    writer.flush()
    assert ledger.objection(25, None, Coverage(last_step=20)) == ""
    assert "up to step 30" in ledger.objection(35, None, Coverage(last_step=30))


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.75, 0.95])
def test_what_a_power_cut_takes_it_takes_from_the_end(tmp_path, kept):
    """However much of the log is lost, a checkpoint that still counts has all its metrics."""
    path = tmp_path / "runs.db"
    with Store(path) as store:
        store.add("a", {}, kind="vision")
        _, writer, ledger = _begin(store)
        covered = [_train(writer, ledger, range(20 * n, 20 * n + 20), f"{n:064}") for n in range(8)]
        lost = tmp_path / "lost.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{lost}{suffix}")
    size = os.path.getsize(f"{lost}-wal")
    os.truncate(f"{lost}-wal", int(kept * size))
    with Store(lost) as store:
        if store.get("a") is None:
            return
        _, _, ledger = _begin(store, 1000)
        counting = [n for n in range(8) if not ledger.objection(20 * n + 19, f"{n:064}", covered[n])]
        steps = store.table(["a"], ["x"])["step"].tolist()
    assert len(counting) < 8 and counting == list(range(len(counting)))
    assert steps[: 20 * len(counting)] == list(range(20 * len(counting)))


def test_commits_before_a_checkpoint_reach_the_disk(tmp_path, monkeypatch):
    """SQLite is told to wait for the disk where something relies on it, and only there."""
    levels = []
    with Store(tmp_path / "runs.db") as store:
        store.add("a", {}, kind="vision")
        lease, writer, ledger = _begin(store)
        connection = sqlite3.connect(":memory:")
        connection.close()

        from sqlalchemy import event

        @event.listens_for(store._database.engine, "commit")
        def _level(connection):
            levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())

        def level(action):
            levels.clear()
            action()
            return levels[-1]

        writer.record({"step": 1, "x": 1.0})
        assert level(writer.flush) == 1  # NORMAL
        writer.record({"step": 2, "x": 1.0})
        assert level(lambda: ledger.commit(2)) == 2  # FULL
        assert level(lambda: ledger.confirm(2, ONE)) == 2
        assert level(lambda: store.heartbeat(lease, step=2, total_steps=3)) == 1
        assert level(lambda: store.finish(lease, status="done")) == 2
