"""Older stores are brought up to date, and what a server says is one line without SQL."""

import hashlib
import sqlite3
import threading
import uuid
from pathlib import Path

import pytest
import sqlalchemy

from decaylab.errors import DecaylabError
from decaylab.store import schema
from decaylab.store.database import Database, StoreUnreachable
from decaylab.store.store import Store

# The tables as version 1 made them.
VERSION_1 = """
CREATE TABLE decaylab_about (name VARCHAR(40) NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name));
CREATE TABLE decaylab_runs (num {serial} NOT NULL, id VARCHAR(64) NOT NULL, kind VARCHAR(40) NOT NULL,
    config TEXT NOT NULL, status VARCHAR(20) NOT NULL, reason TEXT NOT NULL, step BIGINT NOT NULL,
    total_steps BIGINT NOT NULL, worker VARCHAR(64), lease_until {double}, heartbeat {double},
    created {double} NOT NULL, started {double}, ended {double}, environment TEXT NOT NULL,
    summary TEXT NOT NULL, PRIMARY KEY (num), UNIQUE (id));
CREATE TABLE decaylab_keys (num {serial} NOT NULL, name VARCHAR(300) NOT NULL, PRIMARY KEY (num), UNIQUE (name));
CREATE TABLE decaylab_metrics (run INTEGER NOT NULL, key INTEGER NOT NULL, step BIGINT NOT NULL, value FLOAT,
    PRIMARY KEY (run, key, step)){options};
INSERT INTO decaylab_about VALUES ('schema', '1');
INSERT INTO decaylab_runs (id, kind, config, status, reason, step, total_steps, worker, lease_until, heartbeat, created,
    started, ended, environment, summary) VALUES ('a', 'vision',
    '{{"seed": 3}}', 'interrupted', 'stopped', 20, 40, NULL, NULL, 1.0, 1.0, 1.0, NULL, '{{}}', '{{}}');
INSERT INTO decaylab_keys (name) VALUES ('x');
INSERT INTO decaylab_metrics VALUES (1, 1, 10, 0.5), (1, 1, 20, 0.25);
"""


@pytest.fixture
def old(url):
    """The URL of a store of version 1 with an interrupted run."""
    if url.startswith("postgresql"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(VERSION_1.format(serial="SERIAL", double="DOUBLE PRECISION", options=""))
    else:
        connection = sqlite3.connect(url)
        connection.executescript(VERSION_1.format(serial="INTEGER", double="DOUBLE", options=" WITHOUT ROWID"))
        connection.close()
    return url


def test_an_older_store_is_brought_up_to_date(old):
    with Store(old, create=False) as store:
        row = store.get("a")
        assert (row.status, row.step, row.config) == ("interrupted", 20, {"seed": 3})
        lease = store.lease("a", "w")
        assert lease.attempt == 1
        writer = store.writer(lease)
        ledger = store.ledger(lease, writer)
        ledger.begin(20)
        writer.record({"step": 30, "x": 0.125})
        ledger.commit(30)
        ledger.confirm(30, "d" * 64)
        store.add("b", {}, kind="vision")
        assert store.table()["value"].tolist() == [0.5, 0.25, 0.125]
    with Store(old) as store:  # and stays so
        assert store.lease("b", "w").attempt == 1 and store.get("a").status == "running"


def test_an_older_store_is_read_as_it_is(old):
    with Store(old, read_only=True) as store:
        assert store.get("a").step == 20 and store.states(["a"])["a"].status == "interrupted"
        assert store.table()["value"].tolist() == [0.5, 0.25] and store.folder("a").name == "a"
        with store._database.read() as connection:
            about = dict(connection.execute(sqlalchemy.select(schema.about)).tuples().all())
    assert about == {"schema": "1"}


def test_several_processes_bring_it_up_to_date_together(old):
    errors = []

    def opened():
        try:
            Store(old).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_an_older_store_keeps_the_folder_of_its_checkpoints(old):
    database = Database(old)
    if database.path is None:
        place = sqlalchemy.make_url(database.url).set(username=None, password=None).render_as_string()
        assert database.files.name == f"runs-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    else:
        assert database.files == database.path.with_suffix("")
    database.close()


def test_the_folder_does_not_depend_on_how_the_store_is_spelled(store, url, tmp_path):
    if store._database.path is None:
        other = f"{url}&application_name=other"
        with Store(other) as again:
            assert again.url != store.url and again.folder("a") == store.folder("a")
    else:
        link = tmp_path / "link.db"
        link.symlink_to(store._database.path)
        with Store(link) as again:
            assert again.folder("a") == store.folder("a")


def test_two_databases_of_one_server_have_two_folders(postgresql_server, postgresql_database):
    import psycopg

    name = f"decaylab_second_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgresql_server.format(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        with (
            Store(postgresql_database) as one,
            Store(postgresql_server.format(database=name)) as other,
        ):
            assert one.folder() != other.folder()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_server_that_became_a_stand_by_is_worth_waiting_for(postgresql_database):
    with Store(postgresql_database) as store:
        store.add("secret-settings", {"password": "hidden"}, kind="vision")
        database = store._database
        with pytest.raises(StoreUnreachable, match="takes no writes just now, as in a fail-over: cannot") as said:
            _write_read_only(database)
        assert "UPDATE decaylab_runs" not in str(said.value) and "\n" not in str(said.value)
        store.add("b", {}, kind="vision")  # with a new connection


def _write_read_only(database):
    with database.write() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        connection.execute(schema.runs.update().values(reason="x"))


class _Diagnosis:
    message_primary = "what the server said"


@pytest.mark.parametrize(
    "state, passes",
    [
        ("25006", True),
        ("57P01", True),
        ("57P02", True),
        ("57P03", True),
        ("08006", True),
        ("53300", True),
        ("40001", True),
        ("40P01", True),
        ("28P01", False),
        ("42501", False),
        ("22001", False),
        ("3D000", False),
    ],
)
def test_what_passes_is_told_by_its_sqlstate(state, passes, tmp_path):
    database = Database(tmp_path / "runs.db")
    database.path = None  # judged as a server's

    class Driver(Exception):
        sqlstate, diag = state, _Diagnosis()

    for kind in (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InternalError, sqlalchemy.exc.DataError):
        explained = database._explain(kind("SELECT secret FROM runs", {}, Driver("x LINE 1: SELECT secret")))
        assert isinstance(explained, StoreUnreachable) is passes and isinstance(explained, DecaylabError)
        assert "what the server said" in str(explained) and "SELECT" not in str(explained)
    database.close()


def test_a_full_disk_passes(tmp_path):
    database = Database(tmp_path / "runs.db")
    explained = database._explain(sqlite3.OperationalError("database or disk is full"))
    assert isinstance(explained, StoreUnreachable) and "is full: free some space" in str(explained)
    database.close()


def test_a_new_store_has_a_name_of_its_own(tmp_path):
    names = set()
    for number in range(2):
        with Store(tmp_path / f"{number}.db") as store:
            with store._database.read() as connection:
                about = dict(connection.execute(sqlalchemy.select(schema.about)).tuples().all())
            assert about["schema"] == str(schema.VERSION)
            names.add(about["id"])
    assert len(names) == 2
    assert Path(tmp_path / "0.db").exists()
