"""Which tables hold runs and metrics, and which version of them this code reads."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Float,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

VERSION = 2
"""Version of the tables; raised by one whenever their meaning changes."""

ENDED = ("done", "diverged")
"""Statuses of a run that is never trained again: divergence is a result."""

STATUSES = ("waiting", "running", "interrupted", "failed", *ENDED)
"""Every status; a ``failed`` run is trained again only when it is asked for again."""

# The prefix lets a team keep the tables in a PostgreSQL database that holds other things too.
metadata = MetaData()

about = Table(
    "decaylab_about",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "decaylab_runs",
    metadata,
    # The short number stands for the run in every metric row; the id is the hash of its config.
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("kind", String(40), nullable=False),
    Column("config", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("step", BigInteger, nullable=False, default=0),
    Column("total_steps", BigInteger, nullable=False, default=0),
    Column("worker", String(64)),  # who holds the lease, or NULL
    Column("lease_until", Double),  # seconds since 1970, by the database's clock, as all times here
    Column("heartbeat", Double),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("environment", Text, nullable=False, default="{}"),
    Column("summary", Text, nullable=False, default="{}"),
    # Since version 2. The default is the database's too, for rows that a migration finds.
    Column("attempt", BigInteger, nullable=False, default=0, server_default="0"),  # leases so far: the fencing token
    Column("saved_step", BigInteger, nullable=False, default=-1, server_default="-1"),  # furthest checkpoint ever
    Column("deaths", BigInteger, nullable=False, default=0, server_default="0"),  # of workers, since that checkpoint
)
ADDED_IN_2 = ("attempt", "saved_step", "deaths")

keys = Table(
    "decaylab_keys",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("name", String(300), nullable=False, unique=True),
)

# One curve (run, key) is one contiguous range of the primary key, in the order of its steps: reading it is a scan,
# its last value is a seek, and writing a point again replaces it. A not-a-number is NULL in SQLite, which has no NaN.
metrics = Table(
    "decaylab_metrics",
    metadata,
    Column("run", Integer, nullable=False, autoincrement=False),
    Column("key", Integer, nullable=False, autoincrement=False),
    Column("step", BigInteger, nullable=False, autoincrement=False),
    Column("value", Float(53)),
    PrimaryKeyConstraint("run", "key", "step"),
    sqlite_with_rowid=False,
)

# A checkpoint counts when its row is here: it is committed after the metrics that the checkpoint relies on.
checkpoints = Table(
    "decaylab_checkpoints",
    metadata,
    Column("run", Integer, nullable=False, autoincrement=False),
    Column("step", BigInteger, nullable=False, autoincrement=False),
    Column("attempt", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),  # of the folder's manifest
    PrimaryKeyConstraint("run", "step"),
)
