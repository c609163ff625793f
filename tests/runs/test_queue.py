"""Longest chain first, needs before dependants, and a clear word where a run can never start."""

import pytest

from decaylab.errors import DecaylabError
from decaylab.runs.queue import Queue, Run
from decaylab.runs.store import Store


def _queue(store, *runs):
    for run in runs:
        store.add(run.id, run.config, kind=run.kind)
    return Queue(store, runs)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "runs.db") as store:
        yield store


def test_the_longest_chain_comes_first(store):
    queue = _queue(
        store,
        Run(id="alone", cost=4),
        Run(id="root", cost=1),
        Run(id="leaf", cost=5, needs=("root",)),
        Run(id="last", cost=2, needs=("leaf", "root")),
    )
    assert [run.id for run in queue.runs] == ["root", "leaf", "alone", "last"]
    copied = Queue.from_json(store, queue.to_json())
    assert [(run.id, run.needs) for run in copied.runs] == [(run.id, run.needs) for run in queue.runs]


def test_runs_are_taken_when_what_they_need_has_ended(store):
    queue = _queue(store, Run(id="root"), Run(id="leaf", cost=9, needs=("root",)), Run(id="alone", cost=0.5))
    assert queue.take("w", 60, {}).id == "root"
    assert queue.take("v", 60, {}).id == "alone"
    assert queue.take("u", 60, {}) is None and not queue.is_settled()
    store.finish("root", "w", status="diverged")
    assert queue.take("w", 60, {}).id == "leaf"
    store.finish("leaf", "w", status="interrupted")
    assert queue.take("u", 60, {}).id == "leaf"
    store.finish("leaf", "u", status="failed", reason="x")
    assert queue.take("u", 60, {}) is None and not queue.is_settled()
    store.finish("alone", "v", status="done")
    assert queue.is_settled()


def test_a_need_outside_the_queue_is_waited_for_only_while_somebody_trains_it(store):
    store.add("outside", {}, kind="vision")
    store.lease("outside", "other")
    queue = _queue(store, Run(id="leaf", needs=("outside",)))
    assert queue.take("w", 60, {}) is None and store.get("leaf").status == "waiting"
    store.finish("outside", "other", status="waiting")
    assert queue.take("w", 60, {}) is None
    assert store.get("leaf").reason == "needs run outside, which nobody trains: launch it too"


def test_a_circle_is_refused(store):
    with pytest.raises(DecaylabError, match="need each other, so none can start: a, b"):
        Queue(store, [Run(id="a", needs=("b",)), Run(id="b", needs=("a",)), Run(id="c")])
