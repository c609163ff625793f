"""How the store's database is opened, shared between processes, and what is said when it cannot be used."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Engine, Insert, Table, event, func, literal, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from decaylab.errors import DecaylabError
from decaylab.files import data_home
from decaylab.store import address, schema, sqlite_reader

LOCK_SECONDS = 60.0
_ADVISORY_LOCK = 0x6465636179  # "decay": one creator of the tables at a time
_Result = TypeVar("_Result")


class StoreUnreachable(DecaylabError):
    """The database does not answer just now (server down, network, locked for long): worth trying again."""


class Database:
    """One SQLite file in WAL mode, or one PostgreSQL database.

    Attributes:
        url: What another process passes to open the same database (with the password, so not for printing).
        label: The same for people: no password.
        path: The SQLite file, ``None`` for PostgreSQL.
        files: Folder for what belongs to the runs but is not a row: checkpoints, snapshots, logs.
        engine: SQLAlchemy's engine.
    """

    def __init__(self, url: str | Path | None = None, *, create: bool = True, read_only: bool = False) -> None:
        """Open the database and make the tables if it is new.

        Args:
            url: As `decaylab.store.address.read` takes it.
            create: Make a missing SQLite file; otherwise a missing file is an error.
            read_only: Write nothing to it, for a store on a disk that cannot be written to as well. A missing store is
                an error.

        Raises:
            DecaylabError: The url means nothing, the file is not a store, the tables are newer than this code, or
                the server does not answer.
        """
        self._address = address.read(url)
        self._read_only = read_only
        self.path = self._address.path
        self.url, self.label = self._address.text, self._address.label
        if self._address.url is not None:
            self.engine = _postgresql_engine(self._address.url)
            place = self.engine.url.set(username=None, password=None).render_as_string()
            self.files = data_home() / f"runs-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
        else:
            assert self.path is not None
            self.files = self.path.with_suffix("")
            if not self.path.exists() and (read_only or not create):
                raise DecaylabError(f"there is no store at {self.path}; runs are put there by `decaylab reproduce`")
            self.engine = sqlite_reader.engine(self.path) if read_only else _sqlite_engine(self.path)
        try:
            self._prepare()
        except BaseException:
            self.engine.dispose()
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection inside a read transaction: all its queries see one state."""
        with self._explained(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection inside a write transaction, committed when the block ends well.

        SQLite has one writer at a time: the lock is taken at once (``BEGIN IMMEDIATE``) and waited for, because a
        transaction that reads first and writes later can fail without a wait.
        """
        with (
            self._explained(),
            self.engine.connect().execution_options(decaylab_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    def now(self) -> ColumnElement[float]:
        """Return the SQL expression for seconds since 1970, by the clock that all users of this database share."""
        if self.path is not None:
            return literal(time.time())
        return func.extract("epoch", func.clock_timestamp()).cast(sqlalchemy.Double)

    def insert_missing(self, table: Table) -> Insert:
        """Return an insert into ``table`` that leaves rows that are there already."""
        if self.path is not None:
            return sqlite.insert(table).on_conflict_do_nothing()
        from sqlalchemy.dialects import postgresql  # takes a while to import

        return postgresql.insert(table).on_conflict_do_nothing()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _prepare(self) -> None:
        """Check the tables' version; make them if there are none. Safe when several processes do it together."""
        if self._version() is None:
            if self._read_only:
                raise DecaylabError(f"there is no store in {self.label} yet; `decaylab reproduce` makes it")
            with self.write() as connection:
                if self.path is None:
                    connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
                schema.metadata.create_all(connection)
                row = {"name": "schema", "value": str(schema.VERSION)}
                connection.execute(self.insert_missing(schema.about).values(row))
        found = self._version()
        if found != schema.VERSION:
            raise DecaylabError(
                f"the store {self.label} has tables of version {found}, this decaylab reads version {schema.VERSION}; "
                "install the newer decaylab that wrote it, or name another store"
            )

    def _version(self) -> int | None:
        with self.read() as connection:
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            if schema.about.name not in tables:
                if tables and self.path is not None:
                    raise DecaylabError(
                        f"{self.path} is an SQLite database, but not a decaylab store: expected the table "
                        f"{schema.about.name}; name another file"
                    )
                return None
            query = select(schema.about.c.value).where(schema.about.c.name == "schema")
            value = connection.execute(query).scalar()
        return int(value) if value is not None and value.isdecimal() else 0

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:  # the second where the driver is asked without SQLAlchemy
            explained = self._explain(error)
            if explained is None:
                raise
            raise explained from error

    def _explain(self, error: DBAPIError | sqlite3.Error) -> DecaylabError | None:
        """Say in one line what a driver's error means; ``None`` when it is a mistake of this code."""
        own = error.orig if isinstance(error, DBAPIError) else error
        said = self._address.censored(" ".join(str(own).split()))
        operational = isinstance(error, (sqlalchemy.exc.OperationalError, sqlite3.OperationalError))
        if self.path is None:
            if operational or (isinstance(error, DBAPIError) and error.connection_invalidated):
                return StoreUnreachable(f"the store {self.label} does not answer: {said}")
            return None
        if any(words in said for words in ("not a database", "malformed", "no such table", "no such column")):
            return DecaylabError(
                f"{self.path} is damaged or not a store: expected an SQLite database ({said}); nothing was changed, "
                "move the file away or name another one"
            )
        if "locked" in said or "busy" in said:
            return StoreUnreachable(f"another program has kept {self.path} locked for {LOCK_SECONDS:.0f} seconds")
        if operational and any(word in said for word in ("unable to open", "readonly", "disk")):
            return DecaylabError(f"the store {self.path} cannot be used: {said}")
        return None


def in_parts(names: Sequence[str], size: int = 500) -> Iterator[Sequence[str]]:
    """Cut a list for ``IN (...)``: databases limit the number of values in one statement."""
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _sqlite_engine(path: Path) -> Engine:
    path.parent.mkdir(parents=True, exist_ok=True)
    location = sqlalchemy.URL.create("sqlite", database=str(path))  # no text: any character may be in a path
    engine = sqlalchemy.create_engine(location, connect_args={"timeout": LOCK_SECONDS})

    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _: Any) -> None:
        raw.isolation_level = None  # transactions begin in _begin, not where the driver guesses
        if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            # Several processes that open a fresh file together meet here, and SQLite does not wait by itself.
            _patiently(lambda: raw.execute("PRAGMA journal_mode=WAL").fetchone())
        # A commit survives the death of the process at once, and the death of the machine at the next checkpoint.
        raw.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("decaylab_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _patiently(action: Callable[[], _Result]) -> _Result:
    """Repeat ``action`` while SQLite says that another process holds the lock, up to the usual patience."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.005, 0.05))


def _postgresql_engine(url: sqlalchemy.URL) -> Engine:
    try:
        # pre_ping: a connection that a restarted server has dropped is replaced instead of failing a run.
        return sqlalchemy.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ModuleNotFoundError as error:
        raise DecaylabError("PostgreSQL needs its driver: pip install 'decaylab[postgres]'") from error
