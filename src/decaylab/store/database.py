"""Database of a store: opening it, sharing it between processes, and what is said when it cannot be used."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Engine, Insert, Table, event, func, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn

from decaylab.errors import DecaylabError
from decaylab.files import data_home
from decaylab.store import address, schema, sqlite_reader

LOCK_SECONDS = 60.0
_CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
_JULIAN_1970 = 2440587.5  # the Julian day of 1970-01-01 00:00 UTC
# SQLSTATE classes of what passes: connection lost, rolled back for another transaction, resources or disk used up, lock
# not to be had, server shutting down or starting, system error.
_PASSING = ("08", "40", "53", "55", "57", "58")
# A connection refused for good has no SQLSTATE in psycopg.
_FINAL = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
_READABLE = (1, schema.VERSION)  # versions whose tables have what is read of them
_ADVISORY_LOCK = 0x6465636179  # "decay": one creator of the tables at a time
_Result = TypeVar("_Result")


class StoreUnreachable(DecaylabError):
    """The database takes nothing just now (server down, fail-over, locked for long, disk full): worth trying again."""


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
        self._old_name = ""
        if self._address.url is not None:
            self.engine = _postgresql_engine(self._address.url)
            # The name that stores of version 1 have for their files: they keep it when they are brought up to date.
            place = self.engine.url.set(username=None, password=None).render_as_string()
            self._old_name = hashlib.sha256(place.encode()).hexdigest()[:8]
        else:
            assert self.path is not None
            if not self.path.exists() and (read_only or not create):
                raise DecaylabError(f"there is no store at {self.path}; runs are put there by `decaylab reproduce`")
            self.engine = sqlite_reader.engine(self.path) if read_only else _sqlite_engine(self.path)
        try:
            name = self._prepare()
        except BaseException:
            self.engine.dispose()
            raise
        # A server has many spellings (localhost, 127.0.0.1), so its files go by a name that is kept in the database;
        # a file has one path behind all links.
        self.files = data_home() / f"runs-{name}" if self.path is None else self.path.resolve().with_suffix("")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection inside a read transaction: all its queries see one state."""
        with self._explained(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[Connection]:
        """Give a connection inside a write transaction, committed when the block ends well.

        SQLite has one writer at a time: the lock is taken at once (``BEGIN IMMEDIATE``) and waited for, because a
        transaction that reads first and writes later can fail without a wait.

        Args:
            durable: Return only when this and everything committed before outlasts the death of the machine. Without
                it a commit outlasts the death of the process, and that of the machine a little later; what is lost
                then is lost from the end.
        """
        options = {"decaylab_write": True, "decaylab_durable": durable}
        with (
            self._explained(),
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            if durable and self.path is None:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
            yield connection

    def now(self) -> ColumnElement[float]:
        """Return the SQL expression for seconds since 1970, by the clock that all users of this database share."""
        if self.path is not None:
            return (func.julianday("now", type_=sqlalchemy.Double) - _JULIAN_1970) * 86400.0
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

    def _prepare(self) -> str:
        """Check the tables' version; make them if there are none, bring them up to date if they are older.

        Safe when several processes do it together.

        Returns:
            The name of this database's files.
        """
        found = self._about()
        if self._read_only:
            if found is None:
                raise DecaylabError(f"there is no store in {self.label} yet; `decaylab reproduce` makes it")
            if found.version in _READABLE:
                return found.name or self._old_name
        elif found is None or found.version < schema.VERSION:
            with self.write(durable=True) as connection:
                if self.path is None:
                    connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
                self._bring_up_to_date(connection)
            found = self._about()
        if found is None or found.version != schema.VERSION:
            raise DecaylabError(
                f"the store {self.label} has tables of version {found.version if found else 0}, this decaylab reads "
                f"version {schema.VERSION}; install the newer decaylab that wrote it, or name another store"
            )
        return found.name

    def _bring_up_to_date(self, connection: Connection) -> None:
        """Make what tables and columns are missing, in a transaction in which nobody else does."""
        entry = self.insert_missing(schema.about)
        there = set(sqlalchemy.inspect(connection).get_table_names())
        schema.metadata.create_all(connection)
        if schema.about.name not in there:
            connection.execute(entry.values(name="schema", value=str(schema.VERSION)))
            connection.execute(entry.values(name="id", value=uuid.uuid4().hex[:12]))
            return
        columns = {column["name"] for column in sqlalchemy.inspect(connection).get_columns(schema.runs.name)}
        for name in schema.ADDED_IN_2:
            if name not in columns:
                column = CreateColumn(schema.runs.c[name]).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {schema.runs.name} ADD COLUMN {column}")
        connection.execute(entry.values(name="id", value=self._old_name or uuid.uuid4().hex[:12]))
        version = update(schema.about).where(schema.about.c.name == "schema", schema.about.c.value == "1")
        connection.execute(version.values(value=str(schema.VERSION)))

    def _about(self) -> _About | None:
        """Return what the database says of itself; ``None`` when it is empty."""
        with self.read() as connection:
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            if schema.about.name not in tables:
                if tables and self.path is not None:
                    raise DecaylabError(
                        f"{self.path} is an SQLite database, but not a decaylab store: expected the table "
                        f"{schema.about.name}; name another file"
                    )
                return None
            about = schema.about.c
            found = {name: value for name, value in connection.execute(select(about.name, about.value))}
        version = found.get("schema", "")
        return _About(int(version) if version.isdecimal() else schema.VERSION + 1, found.get("id", ""))

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
            lost = operational or (isinstance(error, DBAPIError) and error.connection_invalidated)
            return self._explain_server(own, said, lost)
        if any(words in said for words in ("not a database", "malformed", "no such table", "no such column")):
            return DecaylabError(
                f"{self.path} is damaged or not a store: expected an SQLite database ({said}); nothing was changed, "
                "move the file away or name another one"
            )
        if "locked" in said or "busy" in said:
            return StoreUnreachable(f"another program has kept {self.path} locked for {LOCK_SECONDS:.0f} seconds")
        if "disk is full" in said:
            return StoreUnreachable(f"the disk of the store {self.path} is full: free some space on it")
        if operational and any(word in said for word in ("unable to open", "readonly", "disk")):
            return DecaylabError(f"the store {self.path} cannot be used: {said}")
        return None

    def _explain_server(self, error: BaseException | None, said: str, lost: bool) -> DecaylabError | None:
        """Say what PostgreSQL's error means, by its SQLSTATE; never the statement, which holds a run's settings."""
        state = getattr(error, "sqlstate", None) or ""
        primary = getattr(getattr(error, "diag", None), "message_primary", None) or said.partition(" LINE ")[0]
        primary = self._address.censored(primary)
        if state == "25006":
            self.engine.dispose()  # these connections lead to a server that has become a stand-by
            return StoreUnreachable(f"the store {self.label} takes no writes just now, as in a fail-over: {primary}")
        if not state and not lost:
            return None
        if state.startswith(_PASSING) or (not state and not any(words in said for words in _FINAL)):
            return StoreUnreachable(f"the store {self.label} does not answer: {primary}")
        return DecaylabError(f"the store {self.label} cannot be used: {primary}")


class _About(NamedTuple):
    version: int
    name: str


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

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("decaylab_write", False)
        if write:  # NORMAL syncs the disk only when the log is copied into the database
            level = "FULL" if connection.get_execution_options().get("decaylab_durable") else "NORMAL"
            connection.exec_driver_sql(f"PRAGMA synchronous={level}")
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
        # What a vanished server or network may cost, unless the URL says otherwise: no call hangs for hours.
        patience = {k: v for k, v in _CONNECTION.items() if k not in url.query}
        # pre_ping: a connection that a restarted server has dropped is replaced instead of failing a run.
        engine = sqlalchemy.create_engine(url, pool_pre_ping=True, connect_args=patience)
    except ModuleNotFoundError as error:
        raise DecaylabError("PostgreSQL needs its driver: pip install 'decaylab[postgres]'") from error

    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _: Any) -> None:
        # A process that is suspended inside a transaction must not keep its rows locked from those that go on.
        with raw.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{LOCK_SECONDS:.0f}s'")
        raw.commit()

    return engine
