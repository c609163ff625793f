"""A worker in this process that stops after so many steps, as one does that was asked to."""

from types import SimpleNamespace

from decaylab.launch.scheduler import Queue
from decaylab.launch.worker import Worker, train


def work(store, run, monkeypatch, *, stop=None, every=1, **options):
    """Train a run as a worker does, with a checkpoint every so many steps; to its end, or to the step ``stop``."""
    ticks = iter(range(10**9))
    store.add(run.id, run.config, kind=run.kind)
    queue = Queue(store, [run])

    def target(config, record, *, heartbeat, **more):
        def beat(step, total):
            worker.stopping = stop is not None and step >= stop
            return heartbeat(step, total)

        # A clock that goes on by a second a look: a heartbeat every step.
        return train(config, record, heartbeat=beat, checkpoint_seconds=every * 1.0, **more, **options)

    worker = Worker(store, queue, name="worker of a test", target=target)
    with monkeypatch.context() as patch:
        patch.setattr("decaylab.train.cadence.time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
        worker.work()
    return store.get(run.id)
