"""Metrics go in buffered and come out as they were: against a dictionary, and across a kill."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decaylab.errors import DecaylabError
from decaylab.store.store import Store

# SQLite keeps -0.0 as 0.0, which compares equal anyway.
VALUES = st.floats(width=64).map(lambda value: value + 0.0)
RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 2**50),
        st.dictionaries(st.sampled_from(["train/loss", "test/error", "epoch", "Zeta"]), VALUES),
    ),
    max_size=20,
)


def _truncate(store, run, after):
    lease = store.lease(run, "w")
    store.ledger(lease, store.writer(lease)).begin(after)


def _points(frame):
    return [tuple(row) for row in frame.itertuples(index=False)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RECORDS, cut=st.integers(0, 2**50))
def test_the_table_is_what_a_dictionary_would_hold(tmp_path_factory, records, cut):
    truth = {}
    with Store(tmp_path_factory.mktemp("s") / "runs.db") as store:
        for run in "cba":
            store.add(run, {}, kind="vision")
        for run, step, values in records:
            with store.writer(run) as writer:
                writer.record({"step": step, **values})
            truth.update({(run, key, step): value for key, value in values.items()})
        expected = sorted((("cba".index(run), key, step), run, value) for (run, key, step), value in truth.items())
        frame = store.table()
        assert list(frame.columns) == ["run", "step", "key", "value"]
        assert frame["step"].dtype == np.int64 and frame["value"].dtype == np.float64
        np.testing.assert_equal(_points(frame), [(run, step, key, value) for (_, key, step), run, value in expected])
        last = {}
        for (_, key, _), run, value in expected:
            last.setdefault(run, {})[key] = value
        np.testing.assert_equal(store.last(), last)
        _truncate(store, "b", cut)
        left = sorted((run, key, step) for run, key, step in truth if run != "b" or step <= cut)
        found = store.table(["a", "b", "c"])
        assert sorted(zip(found["run"], found["key"], found["step"], strict=True)) == left


def test_points_are_replaced_selected_and_ordered(store):
    store.add("b", {}, kind="vision")
    for run in "ab":
        with store.writer(run, batch=7) as writer:
            for step in (0, 10, 5):
                writer.record({"step": step, "z": step, "a": np.float32(0.5), "m": math.nan})
            writer.record({"step": 10, "z": math.inf})
    assert _points(store.table(["b"], ["z"])) == [("b", 0, "z", 0.0), ("b", 5, "z", 5.0), ("b", 10, "z", math.inf)]
    frame = store.table(["b", "zz", "a"])
    assert frame["run"].tolist() == ["b"] * 9 + ["a"] * 9
    assert frame["key"].tolist() == (["a"] * 3 + ["m"] * 3 + ["z"] * 3) * 2
    assert frame["step"].tolist() == [0, 5, 10] * 6
    assert frame.loc[frame["key"] == "m", "value"].isna().all()
    assert store.keys() == ["a", "m", "z"]
    np.testing.assert_equal(store.last(["a"]), {"a": {"a": 0.5, "m": math.nan, "z": math.inf}})
    _truncate(store, "a", 4)
    assert store.table(["a"])["step"].tolist() == [0, 0, 0]
    assert len(store.table(["b"])) == 9


def test_an_empty_table_has_its_columns(store):
    for run_ids, keys in (([], None), (["zz"], None), (None, []), (None, ["zz"]), (["a"], ["x"])):
        frame = store.table(run_ids, keys)
        assert list(frame.columns) == ["run", "step", "key", "value"] and len(frame) == 0
        assert frame["step"].dtype == np.int64 and frame["value"].dtype == np.float64


def test_a_writer_waits_for_a_batch_or_a_while(store):
    writer = store.writer("a", batch=4, seconds=1000)
    writer.record({"step": 0, "x": 1, "y": 2})
    assert len(store.table()) == 0
    writer.record({"step": 1, "x": 1, "y": 2})
    assert len(store.table()) == 4
    writer = store.writer("a", seconds=0)
    writer.record({"step": 2, "x": 1})
    assert len(store.table()) == 5


def test_records_that_cannot_be_kept_are_refused(store):
    writer = store.writer("a")
    for record in ({"x": 1.0}, {"step": 0.5, "x": 1.0}, {"step": 1, "x": "much"}, {"step": 1, "x": None}):
        with pytest.raises(DecaylabError, match="a record"):
            writer.record(record)
    writer = store.writer("a")
    writer.record({"step": 1, "two words": 1.0})
    with pytest.raises(DecaylabError, match="cannot name a metric"):
        writer.flush()


_WRITE = """
import sys
from decaylab.store.store import Store
store = Store(sys.argv[1])
writer = store.writer(sys.argv[2], batch=10**9, seconds=10**9)
for step in range(10**9):
    writer.record({"step": step, "x": step, "y": -step})
    if step % 50 == 49:
        writer.flush()
        print(step, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(store, url):
    store.add("b", {}, kind="vision")
    command = [sys.executable, "-c", _WRITE, url]
    writers = {run: subprocess.Popen([*command, run], stdout=subprocess.PIPE, text=True) for run in "ab"}
    last = {}
    for process in writers.values():
        for _ in range(5):
            process.stdout.readline()
    for run, process in writers.items():
        os.kill(process.pid, signal.SIGKILL)
        rest = process.communicate(timeout=60)[0].splitlines()
        last[run] = int(rest[-1]) if rest else 249
    for run, step in last.items():
        frame = store.table([run], ["x"])
        assert frame["step"].tolist()[: step + 1] == list(range(step + 1))
        assert frame["value"].tolist() == frame["step"].tolist()


def test_nothing_here_imports_torch():
    code = "import sys, decaylab.store.store as s; s.Store('x.db').table(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(os.environ["DECAYLAB_HOME"])).returncode == 0
