"""Who may write for a run: attempts, clocks and deaths, on both databases."""

import time

import pytest
from sqlalchemy import select, text, update

from decaylab.errors import DecaylabError
from decaylab.store import schema
from decaylab.store.leases import LONGEST_NAME, LeaseLost


def _set(store, **values):
    with store._database.write() as connection:
        connection.execute(update(schema.runs).where(schema.runs.c.id == "a").values(**values))


def _now(store):
    with store._database.read() as connection:
        return connection.execute(select(store._database.now())).scalar()


def test_the_clock_is_the_databases(store, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    store.lease("a", "w", seconds=60)
    assert store.get("a").alive and store.get("a").heartbeat > 1.7e9


def test_a_heartbeat_from_the_future_is_expired(store):
    store.lease("a", "w", seconds=5)
    assert not store.lease("a", "other")
    _set(store, heartbeat=_now(store) + 3600, lease_until=_now(store) + 3605)  # the clock was set back
    assert not store.get("a").alive and not store.states(["a"])["a"].alive
    assert store.lease("a", "other")


def test_a_lease_without_times_can_be_taken(store):
    store.lease("a", "w")
    _set(store, heartbeat=None, lease_until=None)
    assert not store.get("a").alive and store.lease("a", "other")


def test_a_heartbeat_renews_what_ran_out_unless_somebody_took_it(store):
    first = store.lease("a", "w", seconds=0.01)
    time.sleep(0.03)
    assert store.heartbeat(first, step=1, total_steps=2, seconds=60) and not store.lease("a", "other")


def test_an_ended_run_takes_no_write_of_any_kind(store):
    lease = store.lease("a", "w")
    writer = store.writer(lease)
    ledger = store.ledger(lease, writer)
    ledger.begin(-1)
    writer.record({"step": 1, "x": 1.0})
    ledger.commit(1)
    ledger.confirm(1, "d" * 64)
    assert store.finish(lease, status="done", step=1)
    before = store.get("a")
    writer.record({"step": 2, "x": 2.0})
    anyone = store.writer("a")
    anyone.record({"step": 3, "x": 3.0})
    for write in (
        writer.flush,
        anyone.flush,
        lambda: ledger.begin(-1),
        lambda: ledger.commit(2),
        lambda: ledger.confirm(2, "e" * 64),
        ledger.check,
    ):
        with pytest.raises(LeaseLost, match="run a has ended: nothing more is written for it"):
            write()
    assert not store.heartbeat(lease, step=9, total_steps=9) and not store.describe(lease, {"x": 1})
    assert not store.finish(lease, status="failed") and not store.release("a") and not store.give_up("a", "no")
    store.retry(["a"])
    assert store.get("a") == before and store.table()["step"].tolist() == [1]
    assert ledger.objection(1, "d" * 64, ledger.covered) == "" and ledger.objection(2, "e" * 64, ledger.covered)


def test_deaths_are_counted_since_the_last_checkpoint(store):
    """Three deaths with progress between them are not three deaths."""
    for step in (10, 20, 30, 40):
        lease = store.lease("a", "w")
        store.ledger(lease, store.writer(lease)).commit(step)
        assert not store.died(lease, "killed by SIGKILL", attempts=2)
    for last in (False, True):
        lease = store.lease("a", "w")
        store.ledger(lease, store.writer(lease)).commit(40)  # no further than before
        assert store.died(lease, "killed by SIGKILL", attempts=3) is last
    row = store.get("a")
    assert (row.status, row.reason) == ("failed", "its worker process died 3 times, the last time killed by SIGKILL")
    store.retry(["a"])
    assert not store.died(store.lease("a", "w"), "killed", attempts=2), "asked for again, it starts afresh"
    assert not store.died(store.lease("a", "w"), "killed", attempts=2, counts=False)
    assert store.died(store.lease("a", "w"), "killed", attempts=2)


def test_a_released_run_can_be_leased_at_once(store):
    lease = store.lease("a", "w", seconds=3600)
    assert store.release("a") and not store.release("a") and not store.release("missing")
    assert store.get("a").status == "waiting" and not store.heartbeat(lease, step=1, total_steps=2)
    assert store.lease("a", "other").attempt == 2


@pytest.mark.parametrize("name", ["", "w" * (LONGEST_NAME + 1)])
def test_a_worker_has_a_name_that_fits(store, name):
    with pytest.raises(DecaylabError, match="a worker's name has 1 to 64 characters"):
        store.lease("a", name)
    assert store.lease("a", "w" * LONGEST_NAME)


def test_a_session_left_in_a_transaction_does_not_keep_its_rows(store, url):
    if store._database.path is not None:
        pytest.skip("SQLite cannot take a lock from a suspended process")
    with store._database.read() as connection:
        assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "1min"
