"""SQLite stores that are only read, on disks that cannot be written to as well."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import weakref
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Engine, event

LOCK_SECONDS = 60.0


def engine(path: Path) -> Engine:
    """Return an engine whose connections cannot write to a file.

    A file in WAL mode needs two more beside it, even for reading. Where the folder does not take them, the file is read
    as one that nobody changes; and where it has a log of commits that are not in it yet (a copy of a store at work, on
    a disk that is read-only now), both are copied to a temporary folder, which goes with the engine.
    """
    folder = None
    uri = f"{path.absolute().as_uri()}?mode=ro"
    if not _takes_files_beside(uri):
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            folder = tempfile.mkdtemp(prefix="decaylab-")
            for file in (path, log):
                shutil.copyfile(file, Path(folder) / file.name)
            uri = (Path(folder) / path.name).as_uri()
        else:
            uri = f"{path.absolute().as_uri()}?immutable=1"
    made = sqlalchemy.create_engine("sqlite://", creator=lambda: _connect(uri), poolclass=sqlalchemy.pool.QueuePool)
    if folder is not None:
        weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)

    @event.listens_for(made, "connect")
    def _begin_by_hand(raw: Any, _: Any) -> None:
        raw.isolation_level = None

    @event.listens_for(made, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return made


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS, check_same_thread=False)


def _takes_files_beside(uri: str) -> bool:
    connection = None
    try:
        connection = _connect(uri)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:  # whatever else is wrong shows when the store is read
        return "unable to open" not in str(error) and "readonly" not in str(error)
    finally:
        if connection is not None:
            connection.close()
    return True
