"""The command `train` without its worker process, whose start takes seconds."""

import pytest

from decaylab.launch.report import LaunchReport
from decaylab.launch.scheduler import Queue
from decaylab.launch.worker import Worker
from decaylab.store.store import Store


@pytest.fixture
def in_process(monkeypatch):
    """Let `decaylab train` train in this process; all else is as ever: preflight, store, lease, checkpoints, end."""

    def launch(url, runs, *, workers, device):
        with Store(url) as store:
            queue = Queue(store, runs)
            for run in queue.runs:
                store.add(run.id, run.config, kind=run.kind)
            store.retry([run.id for run in queue.runs])
            Worker(store, queue, name="in-process", device=device).work()
            failed = {run: state.reason for run, state in queue.states().items() if state.status == "failed"}
        return LaunchReport(failed=failed)

    monkeypatch.setattr("decaylab.cli.train.launch", launch)
