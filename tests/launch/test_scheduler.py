"""Longest chain first, needs before dependants, and a clear word where a run can never start."""

import pytest

from decaylab.errors import DecaylabError
from decaylab.launch.scheduler import Queue, Run
from decaylab.store.store import Store


def _queue(store, *runs):
    for run in runs:
        store.add(run.id, run.config, kind=run.kind)
    return Queue(store, runs)


def _take(queue, worker, **options):
    return [lease.run_id for lease in queue.take(worker, 60, {}, **options)]


def _finish(store, run, **how):
    (lease,) = (lease for lease in store.held_by(store.get(run).worker) if lease.run_id == run)
    store.finish(lease, **how)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "runs.db") as store:
        yield store


def test_the_longest_chain_comes_first(store, tmp_path):
    queue = _queue(
        store,
        Run(id="alone", cost=4),
        Run(id="root", cost=1),
        Run(id="leaf", cost=5, needs=("root",)),
        Run(id="last", cost=2, needs=("leaf", "root")),
    )
    assert [run.id for run in queue.runs] == ["root", "leaf", "alone", "last"]
    (tmp_path / "queue.json").write_text(queue.to_json(2))
    copied = Queue.from_file(store, tmp_path / "queue.json")
    assert [(run.id, run.needs) for run in copied.runs] == [(run.id, run.needs) for run in queue.runs]


def test_runs_are_taken_when_what_they_need_has_ended(store):
    queue = _queue(store, Run(id="root"), Run(id="leaf", cost=9, needs=("root",)), Run(id="alone", cost=0.5))
    assert _take(queue, "w") == ["root"]
    assert _take(queue, "v") == ["alone"]
    assert not _take(queue, "u") and not queue.is_settled()
    _finish(store, "root", status="diverged")
    assert _take(queue, "w") == ["leaf"]
    _finish(store, "leaf", status="interrupted")
    assert _take(queue, "u") == ["leaf"]
    _finish(store, "leaf", status="failed", reason="x")
    assert not _take(queue, "u") and not queue.is_settled()
    _finish(store, "alone", status="done")
    assert queue.is_settled()


def test_a_need_outside_the_queue_is_waited_for_only_while_somebody_trains_it(store):
    store.add("outside", {}, kind="vision")
    store.lease("outside", "other")
    queue = _queue(store, Run(id="leaf", needs=("outside",)))
    assert not _take(queue, "w") and store.get("leaf").status == "waiting"
    _finish(store, "outside", status="waiting")
    assert not _take(queue, "w")
    assert store.get("leaf").reason == "needs run outside, which nobody trains: launch it too"


def test_a_circle_is_refused(store):
    with pytest.raises(DecaylabError, match="need each other, so none can start: a, b"):
        Queue(store, [Run(id="a", needs=("b",)), Run(id="b", needs=("a",)), Run(id="c")])


def test_small_runs_are_taken_together_and_shared_out_among_the_workers(store, tmp_path):
    small = [Run(id=f"s{n:02}", company="a") for n in range(20)]
    queue = _queue(store, *small, Run(id="other", company="b", cost=0.5), Run(id="large", cost=9))
    path = tmp_path / "queue.json"
    path.write_text(queue.to_json(2))
    copied = Queue.from_file(store, path)
    assert _take(copied, "w", several=True) == ["large"]
    # 20 runs for 2 workers with at most 8 at a time: two rounds of two fives.
    assert _take(copied, "v", several=True) == [f"s{n:02}" for n in range(5)]
    assert _take(copied, "u", several=True) == [f"s{n:02}" for n in range(5, 10)]
    assert _take(copied, "t") == ["s10"]
    for n in range(5, 8):
        _finish(store, f"s{n:02}", status="waiting")
    path.write_text(queue.to_json(2, alone=["s05", "s06"]))  # a worker died with them
    assert _take(copied, "u", several=True) == ["s05"]
    assert _take(copied, "u", several=True) == ["s06"]
    assert _take(copied, "u", several=True) == ["s07", *(f"s{n}" for n in range(11, 15))]
    path.write_text(queue.to_json(0))
    assert _take(copied, "u", several=True) == ["s15"]
