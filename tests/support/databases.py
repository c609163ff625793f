"""Stores to test on: an SQLite file, and a PostgreSQL server of the tests' own where its programs are installed."""

import glob
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

from decaylab.store.store import Store


def _programs() -> Path | None:
    found = shutil.which("pg_ctl")
    candidates = [found] if found else sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl"))
    return Path(candidates[-1]).parent if candidates else None


@pytest.fixture(scope="session")
def postgresql_server():
    """A URL with ``{database}`` in it; a fresh server on a socket in a scratch folder, stopped at the end."""
    given = os.environ.get("DECAYLAB_TEST_POSTGRESQL")
    if given:
        yield f"{given.rpartition('/')[0]}/{{database}}"
        return
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'decaylab[postgres]'")
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server here (pg_ctl not found); DECAYLAB_TEST_POSTGRESQL can name one")
    folder = Path(tempfile.mkdtemp(prefix="decaylab-pg-"))
    as_user = {}
    if os.getuid() == 0:  # the server refuses to run as root
        try:
            shutil.chown(folder, "postgres")
        except LookupError:
            pytest.skip("PostgreSQL does not run as root and there is no user postgres")
        as_user = {"user": "postgres"}

    def run(program, *arguments):
        command = [str(programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=60, **as_user)

    data = str(folder / "data")
    run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C")
    # The log goes to a file: a server that inherits a pipe keeps the caller waiting for its end.
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    yield f"postgresql://postgres@/{{database}}?host={folder}"
    run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_database(postgresql_server):
    """The URL of a database of this test process's own."""
    import psycopg

    name = f"decaylab_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgresql_server.format(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgresql_server.format(database=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    database = request.getfixturevalue("postgresql_database")
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return database


@pytest.fixture
def store(url):
    """A store with one waiting run, ``a``."""
    with Store(url) as store:
        store.add("a", {"seed": 0}, kind="vision")
        yield store
