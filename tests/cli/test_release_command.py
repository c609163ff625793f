"""``decaylab release``: a run of a dead worker is free at once, one of a living worker only by force."""

import threading
import time

import pytest
from sqlalchemy import update

from decaylab.cli import main, release
from decaylab.store import schema
from decaylab.store.store import Store


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "runs.db"
    with Store(path) as store:
        for run in ("aa11", "ab22"):
            store.add(run, {}, kind="vision")
    return str(path)


def test_a_run_of_a_dead_worker_is_free_at_once(path, capsys, monkeypatch):
    monkeypatch.setattr(release, "_LISTENING_SECONDS", 0.2)
    with Store(path) as store:
        lease = store.lease("aa11", "ghost", seconds=3600)
        store.heartbeat(lease, step=7, total_steps=9, seconds=3600)
        assert store.lease("aa11", "other") is None
        assert main(["release", "aa", "ab", "--store", path]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said == [
            "run aa11: released at step 7, held by worker ghost before",
            "run ab22: waiting, nobody holds it",
        ]
        assert not store.heartbeat(lease, step=8, total_steps=9)
        assert store.lease("aa11", "other")


def test_a_heartbeat_from_the_future_needs_no_listening(path, capsys):
    with Store(path) as store:
        store.lease("aa11", "ghost", seconds=5)
        with store._database.write() as connection:
            later = schema.runs.c.heartbeat + 3600
            connection.execute(update(schema.runs).values(heartbeat=later, lease_until=later + 5))
        began = time.monotonic()
        assert main(["release", "aa11", "--store", path]) == 0
        assert time.monotonic() - began < 2 and "released" in capsys.readouterr().out


def test_a_living_worker_keeps_its_run_unless_it_is_forced(path, capsys):
    with Store(path) as store:
        lease = store.lease("aa11", "busy", seconds=60)
        end = threading.Event()

        def beat():
            while not end.wait(0.05):
                store.heartbeat(lease, step=1, total_steps=9)

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            assert main(["release", "aa11", "--store", path]) == 2
            error = capsys.readouterr().err
            assert (
                len(error.splitlines()) == 1
                and "worker busy was heard of just now: stop its launch with Ctrl-C" in error
            )
            assert store.holds(lease)
            assert main(["release", "aa11", "--force", "--store", path]) == 0
        finally:
            end.set()
            thread.join()
        assert not store.holds(lease) and store.get("aa11").status == "waiting"


@pytest.mark.parametrize("words, said", [([], "name at least one run"), (["zz"], "unknown run 'zz'")])
def test_mistakes_are_one_line(path, capsys, words, said):
    assert main(["release", *words, "--store", path]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
