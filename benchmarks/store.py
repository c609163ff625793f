"""How fast does the store take metrics and give them back, beside what one would write oneself?

The store has what a training has: leased runs, and before each checkpoint, here every 20,000 points, a commit that
waits for the disk. The peers hold the same points under a lesser promise (a record is safe from the death of the
process, not of the machine): a table in plain ``sqlite3``, WAL as in the store, one transaction a record, read with
``pandas.read_sql``; and a file of JSON lines, flushed a record, read with ``pandas.read_json`` and melted. The store
buffers up to a second, which is its advantage in writing and its price: after a kill that second is missing (and is
trained again from the checkpoint).

    python benchmarks/store.py [--points 1000000] [--processes 4] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from decaylab.store.checkpoint_ledger import CheckpointLedger
from decaylab.store.metric_writer import MetricWriter
from decaylab.store.store import Store

CHECKPOINT_STEPS = 1000  # a run writes one a minute: many more steps
NUM_KEYS = 20
NUM_RUNS = 10
KEYS = [f"weights/norm/layer{i}" for i in range(NUM_KEYS)]


def records(points: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield (run, record): ten runs one after another, twenty values a step."""
    steps = points // NUM_KEYS // NUM_RUNS
    for run in range(NUM_RUNS):
        for step in range(steps):
            yield f"run{run}", {"step": step, **dict.fromkeys(KEYS, 1.0 / (step + 1))}


def write_store(path: Path, points: int) -> None:
    with Store(path) as store:
        taken: dict[str, tuple[MetricWriter, CheckpointLedger]] = {}
        for run, record in records(points):
            if run not in taken:
                taken[run] = take(store, run)
            writer, ledger = taken[run]
            writer.record(record)
            if record["step"] % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1:
                checkpoint(ledger, int(record["step"]))
        for writer, _ in taken.values():
            writer.flush()


def take(store: Store, run: str) -> tuple[MetricWriter, CheckpointLedger]:
    """Lease a run as a worker does."""
    store.add(run, {}, kind="vision")
    lease = store.lease(run, "benchmark", seconds=3600)
    assert lease is not None
    writer = store.writer(lease)
    ledger = store.ledger(lease, writer)
    ledger.begin(-1)
    return writer, ledger


def checkpoint(ledger: CheckpointLedger, step: int) -> None:
    """Make the metrics outlast the death of the machine and enter a checkpoint, as before one of a run."""
    ledger.commit(step)
    ledger.confirm(step, "0" * 64)


def read_store(path: Path) -> pd.DataFrame:
    with Store(path) as store:
        return store.table()


def write_sqlite(path: Path, points: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE metrics (run TEXT, step INTEGER, key TEXT, value REAL)")
    for run, record in records(points):
        rows = [(run, record["step"], key, value) for key, value in record.items() if key != "step"]
        with connection:
            connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?)", rows)
    connection.close()


def read_sqlite(path: Path) -> pd.DataFrame:
    connection = sqlite3.connect(path)
    frame = pd.read_sql("SELECT run, step, key, value FROM metrics ORDER BY run, key, step", connection)
    connection.close()
    return frame


def write_lines(path: Path, points: int) -> None:
    with path.open("w") as file:
        for run, record in records(points):
            file.write(json.dumps({"run": run, **record}) + "\n")
            file.flush()


def read_lines(path: Path) -> pd.DataFrame:
    frame = pd.read_json(path, lines=True).melt(["run", "step"], var_name="key")
    return frame.sort_values(["run", "key", "step"], ignore_index=True)[["run", "step", "key", "value"]]


WAYS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], pd.DataFrame], str]] = {
    "store": (write_store, read_store, ".db"),
    "plain sqlite3": (write_sqlite, read_sqlite, ".db"),
    "JSON lines": (write_lines, read_lines, ".jsonl"),
}

WRITER = """
import sys, time
sys.path.insert(0, {folder!r})
import store as benchmark
from decaylab.store.store import Store
run, points = sys.argv[2], int(sys.argv[3])
database = Store(sys.argv[1])
writer, ledger = benchmark.take(database, run)
print("ready", flush=True)
sys.stdin.readline()
began = time.perf_counter()
for step in range(points // benchmark.NUM_KEYS):
    writer.record({{"step": step, **dict.fromkeys(benchmark.KEYS, 1.0 / (step + 1))}})
    if step % benchmark.CHECKPOINT_STEPS == benchmark.CHECKPOINT_STEPS - 1:
        benchmark.checkpoint(ledger, step)
writer.flush()
print(time.perf_counter() - began, flush=True)
"""


def several_processes(path: Path, points: int, processes: int) -> tuple[float, float]:
    """Return points a second of all processes together, and of the slowest one alone."""
    code = WRITER.format(folder=str(Path(__file__).parent))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), f"run{i}", str(points)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    began = time.perf_counter()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seconds = [float(writer.communicate()[0]) for writer in writers]
    return processes * points / (time.perf_counter() - began), points / max(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    points = arguments.points
    writing: dict[str, list[float]] = {name: [] for name in WAYS}
    reading: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        tables = {}
        for repeat in range(arguments.repeats):  # interleaved: a busy moment of the machine hits all of them
            for name, (write, read, suffix) in WAYS.items():
                path = Path(folder, f"{name}{repeat}{suffix}")
                began = time.perf_counter()
                write(path, points)
                written = time.perf_counter()
                tables[name] = read(path)
                reading[name].append(time.perf_counter() - written)
                writing[name].append(written - began)
        for name, table in tables.items():
            pd.testing.assert_frame_equal(table, tables["store"], check_dtype=False, obj=name)
        together, slowest = several_processes(Path(folder, "many.db"), points // 4, arguments.processes)
    write_seconds = {name: statistics.median(values) for name, values in writing.items()}
    read_seconds = {name: statistics.median(values) for name, values in reading.items()}
    print(f"{points} points, median of {arguments.repeats}      points/s written      seconds to read all as a table")
    for name in WAYS:
        print(f"  {name:<28}{points / write_seconds[name]:>20,.0f}{read_seconds[name]:>28.2f}")
    print(
        f"  {f'store, {arguments.processes} processes':<28}{together:>20,.0f}   (the slowest process: {slowest:,.0f})"
    )
    peer = "plain sqlite3"
    total = {name: write_seconds[name] + read_seconds[name] for name in WAYS}
    print(f"ratio: writing and reading takes {peer} {total[peer] / total['store']:.2f} times as long as the store")


if __name__ == "__main__":
    main()
