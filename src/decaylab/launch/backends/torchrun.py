"""One run, trained by all the processes that torchrun started: rank 0 holds the lease and writes, the others compute.

torchrun starts every process anew after one of them has died (``--max-restarts``); they go on from the last checkpoint.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from decaylab.launch.malloc import keep_freed_memory
from decaylab.launch.progress import display
from decaylab.launch.run_session import Outcome
from decaylab.launch.scheduler import Queue, Run
from decaylab.launch.throughput import Meter
from decaylab.launch.worker import Worker, train
from decaylab.store.records import RunRow
from decaylab.store.store import Store

if TYPE_CHECKING:
    from decaylab.train.distributed import Processes

_LEAVE, _TRAIN = 0, 1


def is_torchrun() -> bool:
    """Whether this process was started by torchrun (or by something that sets the same variables)."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def train_together(
    store_url: str | None,
    run: Run,
    *,
    device: str = "auto",
    parallel: Literal["ddp", "fsdp"] = "ddp",
    lease_seconds: float = 60.0,
    checkpoint_seconds: float = 60.0,
) -> RunRow | None:
    """Train one run in this process and the others that torchrun started; all of them call this.

    Args:
        store_url: The store. All processes must reach its folder of runs, because each reads the checkpoints.
        run: What to train.
        device: ``auto``, ``cpu`` or ``cuda``; each process takes the GPU of its local rank.
        parallel: ``ddp`` keeps whole weights in each process, ``fsdp`` a share of them.
        lease_seconds: After this long without a sign of life others may take the run over.
        checkpoint_seconds: Time between checkpoints.

    Returns:
        How the run stands afterwards, for the leader; None for the others.
    """
    from decaylab.train.distributed import joined

    keep_freed_memory()
    with joined(device, parallel) as processes:
        if not processes.leads:
            _follow(store_url, run, processes)
            return None
        with Store(store_url) as store:
            return _lead(store, run, processes, lease_seconds, checkpoint_seconds)


def _lead(store: Store, run: Run, processes: Processes, lease_seconds: float, checkpoint_seconds: float) -> RunRow:
    import torch

    store.add(run.id, run.config, kind=run.kind)
    store.retry([run.id])
    # torchrun itself lives on when it starts its processes anew: what they held before is theirs again.
    name = f"torchrun-{socket.gethostname()}-{os.getppid()}"
    for held in store.held_by(name):
        store.finish(held, name, status="waiting")
    queue = Queue(store, [run])
    meter, shown = Meter([run], time.monotonic(), store.peak_flops), display(True)

    def target(
        config: Mapping[str, Any],
        record: Callable[[Mapping[str, Any]], None],
        *,
        heartbeat: Callable[[int, int], bool],
        **options: Any,
    ) -> Outcome:
        def beat(step: int, total: int) -> bool:
            shown.show(meter.see(queue.states(), time.monotonic(), 1))
            return heartbeat(step, total)

        processes.agree(_TRAIN)
        options |= {"heartbeat": beat, "processes": processes, "checkpoint_seconds": checkpoint_seconds}
        return train(config, record, **options)

    worker = Worker(
        store,
        queue,
        name=name,
        device=processes.device,
        threads=torch.get_num_threads(),
        target=target,
        lease_seconds=lease_seconds,
    )

    def stop(*_: object) -> None:
        worker.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        worker.work()
    finally:
        shown.close()
    row = store.get(run.id)
    assert row is not None
    if row.status != "failed":  # else the others have failed too, or torchrun ends them
        processes.agree(_LEAVE)
    return row


def _follow(store_url: str | None, run: Run, processes: Processes) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the leader hears it too, and all stop together after a checkpoint
    while processes.agree(_LEAVE)[0] == _TRAIN:
        with Store(store_url) as store:
            train(run.config, _nowhere, folder=store.folder(run.id), resolve=store.folder, processes=processes)


def _nowhere(mapping: Mapping[str, Any]) -> None:
    """Record nothing: the leader does."""
