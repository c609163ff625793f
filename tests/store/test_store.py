"""Runs, leases and their rules, on both databases."""

import os
import sqlite3
import subprocess
import sys
import time

import pytest

from decaylab.errors import DecaylabError
from decaylab.store.metric_writer import LeaseLost
from decaylab.store.store import Store


def test_adding_is_idempotent_and_keeps_the_order(store):
    store.add("b", {"seed": 1, "nested": {"x": [1, 2]}}, kind="language")
    store.lease("a", "w")
    store.add("a", {"seed": 99}, kind="language")
    assert [row.id for row in store.rows()] == ["a", "b"]
    assert [row.id for row in store.rows(["b", "missing", "a"])] == ["b", "a"]
    row = store.get("b")
    assert (row.kind, row.config, row.status) == ("language", {"seed": 1, "nested": {"x": [1, 2]}}, "waiting")
    assert store.get("a").config == {"seed": 0} and store.get("a").status == "running"
    assert store.get("missing") is None
    assert store.counts() == {"running": 1, "waiting": 1}


def test_only_one_worker_holds_a_run_until_its_lease_ends(store):
    early = store.lease("a", "first", seconds=60, environment={"torch": "2"})
    first = store.lease("a", "first")
    assert (early.attempt, first.attempt) == (1, 2) and not store.lease("a", "second")
    assert store.holds(first) and not store.holds(early)
    assert not store.heartbeat(early, step=1, total_steps=10)
    assert store.heartbeat(first, step=3, total_steps=10, seconds=0.02)
    row = store.get("a")
    assert (row.worker, row.step, row.total_steps, row.environment) == ("first", 3, 10, {"torch": "2"})
    time.sleep(0.05)
    assert not store.get("a").alive
    second = store.lease("a", "second")
    assert not store.heartbeat(first, step=4, total_steps=10)
    assert not store.finish(first, status="done") and not store.describe(first, {"x": 1})
    assert store.held_by("second") == [second] and store.held_by("first") == []
    assert store.get("a").started == row.started


@pytest.mark.parametrize("status", ["done", "diverged"])
def test_ended_runs_are_never_trained_again(store, status):
    lease = store.lease("a", "w")
    assert store.finish(lease, status=status, reason="why", summary={"test/error": 0.1}, step=7)
    row = store.get("a")
    assert row.is_ended and (row.status, row.reason, row.worker, row.step) == (status, "why", "", 7)
    assert row.summary == {"test/error": 0.1} and row.ended >= row.started
    assert not store.lease("a", "w")
    assert not store.give_up("a", "no")


def test_failed_runs_wait_again_when_asked_for(store):
    store.finish(store.lease("a", "w"), status="failed", reason="ValueError: x")
    assert not store.get("a").is_ended and store.get("a").ended is not None
    store.retry(["a"])
    row = store.get("a")
    assert (row.status, row.reason, row.ended) == ("waiting", "", None)
    assert store.give_up("a", "needs b, which failed") and store.get("a").status == "failed"


def test_mistakes_are_named(store):
    with pytest.raises(DecaylabError, match="does not know the run zz"):
        store.lease("zz", "w")
    with pytest.raises(DecaylabError, match="does not know the run zz"):
        store.writer("zz")
    with pytest.raises(DecaylabError, match="unknown status 'dome'; did you mean 'done'"):
        store.finish(store.lease("a", "w"), status="dome")


def test_a_worker_that_lost_its_lease_cannot_write(store):
    writer = store.writer(store.lease("a", "first", seconds=0))
    writer.record({"step": 1, "x": 1.0})
    writer.flush()
    time.sleep(0.01)
    assert store.lease("a", "second")
    writer.record({"step": 2, "x": 2.0})
    with pytest.raises(LeaseLost, match="taken over"):
        writer.flush()
    assert store.table()["step"].tolist() == [1]


_RACE = """
import sys
from decaylab.store.store import Store
worker, url = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with Store(url) as store:
    for n in range(12):
        store.add(f"run{n}", {}, kind="vision")
    won = []
    for n in range(12):
        lease = store.lease(f"run{n}", worker)
        if lease:
            won.append(n)
            with store.writer(lease) as writer:
                writer.record({"step": n, "loss": n, worker: n})
    print(*won)
"""


def test_processes_that_open_a_fresh_store_together_share_the_runs(url):
    command = [sys.executable, "-c", _RACE]
    workers = [
        subprocess.Popen([*command, f"w{i}", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:  # all of them open the database at the same moment
        worker.stdin.write("go\n")
        worker.stdin.flush()
    won = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sorted(int(n) for part in won for n in part) == list(range(12))
    with Store(url) as store:
        assert len(store.rows()) == 12
        assert len(store.table(keys=["loss"])) == 12


def test_the_default_store_lies_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path / "home"))
    with Store() as store:
        assert store.label == str(tmp_path / "home" / "runs.db")
        assert store.folder("a") == tmp_path / "home" / "runs" / "a"
    with Store("sqlite:///" + str(tmp_path / "x.sqlite")) as store:
        assert store.folder() == tmp_path / "x"


@pytest.mark.parametrize("name", ["runs.txt", "mysql://host/db", "runs", "http://x/runs.db"])
def test_a_name_that_is_no_store_is_refused(name):
    with pytest.raises(DecaylabError, match=r"cannot open the store .* expected"):
        Store(name)


def test_a_missing_file_is_not_made_when_only_looked_at(tmp_path):
    with pytest.raises(DecaylabError, match="there is no store at"):
        Store(tmp_path / "runs.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named_and_left_alone(tmp_path):
    path = tmp_path / "runs.db"
    content = b"step,loss\n" + bytes(range(256)) * 40
    path.write_bytes(content)
    with pytest.raises(DecaylabError, match=r"runs\.db is damaged or not a store: expected an SQLite database"):
        Store(path)
    assert path.read_bytes() == content


def test_a_cut_file_is_named(tmp_path):
    path = tmp_path / "runs.db"
    with Store(path) as store:
        store.add("a", {}, kind="vision")
        with store.writer("a") as writer:
            for step in range(5000):
                writer.record({"step": step, "x": step})
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DecaylabError, match=r"runs\.db is damaged"), Store(path) as store:
        store.table()


@pytest.mark.parametrize("column", ["config", "summary", "environment"])
def test_a_damaged_cell_is_named(tmp_path, column):
    path = tmp_path / "runs.db"
    with Store(path) as store:
        store.add("a", {}, kind="vision")
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE decaylab_runs SET {column} = '{{not json'")
        connection.close()
        with pytest.raises(
            DecaylabError, match=rf"the {column} of run a is damaged in the store: expected JSON, found"
        ):
            store.rows()


def test_a_lost_table_is_named(tmp_path):
    path = tmp_path / "runs.db"
    with Store(path) as store:
        store.add("a", {}, kind="vision")
        with store.writer("a") as writer:
            writer.record({"step": 1, "x": 2.0})
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE decaylab_metrics")
        connection.close()
        with pytest.raises(DecaylabError, match=r"runs\.db is damaged or not a store: .*no such table"):
            store.table()


def test_the_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.commit()
    with pytest.raises(DecaylabError, match="not a decaylab store: expected the table decaylab_about"):
        Store(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]
    connection.close()


def test_a_newer_store_is_refused(tmp_path):
    path = tmp_path / "runs.db"
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE decaylab_about SET value = '99' WHERE name = 'schema'")
    connection.commit()
    connection.close()
    with pytest.raises(DecaylabError, match="version 99, this decaylab reads version 2; install the newer"):
        Store(path)


def test_a_server_that_does_not_answer_is_named_without_its_password():
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'decaylab[postgres]'")
    with pytest.raises(DecaylabError, match="does not answer") as caught:
        Store("postgresql://someone:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
