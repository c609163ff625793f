"""One run, trained by all the processes that torchrun started: rank 0 holds the lease and writes, the others compute.

torchrun starts every process anew after one of them has died (``--max-restarts``); they go on from the last checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from decaylab.launch.malloc import keep_freed_memory
from decaylab.launch.progress import display
from decaylab.launch.run_session import Outcome
from decaylab.launch.scheduler import Queue, Run
from decaylab.launch.throughput import Meter
from decaylab.launch.worker import Worker, train
from decaylab.store.database import StoreUnreachable
from decaylab.store.leases import LeaseLost
from decaylab.store.patience import insist
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
        with insist(lambda: Store(store_url)) as store:
            return _lead(store, run, processes, lease_seconds, checkpoint_seconds)


def _lead(store: Store, run: Run, processes: Processes, lease_seconds: float, checkpoint_seconds: float) -> RunRow:
    import torch

    name = group_name()
    insist(lambda: _enter(store, run, name))
    lost: list[LeaseLost] = []
    queue = Queue(store, [run])
    meter, shown = Meter([run], time.monotonic(), store.peak_flops), display(True)

    def target(
        config: Mapping[str, Any],
        record: Callable[[Mapping[str, Any]], None],
        *,
        heartbeat: Callable[[int, int], bool],
        **options: Any,
    ) -> Outcome:
        def keep(mapping: Mapping[str, Any]) -> None:
            try:
                record(mapping)
            except LeaseLost as error:  # the others would wait for this process: all are told at the next beat
                lost.append(error)

        def beat(step: int, total: int) -> bool:
            if lost:
                raise lost[0]
            with suppress(StoreUnreachable):
                shown.show(meter.see(queue.states(), time.monotonic(), 1))
            return heartbeat(step, total)

        processes.agree(_TRAIN)
        options |= {"heartbeat": beat, "processes": processes, "checkpoint_seconds": checkpoint_seconds}
        return train(config, keep, **options)

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
    row = insist(lambda: store.get(run.id))
    assert row is not None
    if row.status != "failed":  # else the others have failed too, or torchrun ends them
        processes.agree(_LEAVE)
    return row


def _enter(store: Store, run: Run, name: str) -> None:
    store.add(run.id, run.config, kind=run.kind)
    store.retry([run.id])
    # torchrun itself lives on when it starts its processes anew: what they held before is theirs again.
    for lease in store.held_by(name):
        store.finish(lease, status="waiting")


def group_name() -> str:
    """Return the name under which the processes of one torchrun hold leases, the same after it has restarted them.

    Host name and process number are not enough: containers share them. The boot, the namespace of process numbers and
    the start of torchrun itself make it one of its kind.
    """
    parent = os.getppid()
    facts = [socket.gethostname(), str(uuid.getnode()), str(parent), os.environ.get("TORCHELASTIC_RUN_ID", "")]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    with suppress(OSError, IndexError):  # the fields after the name, which may hold spaces and brackets
        facts.append(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19])
    return f"torchrun-{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}"


def _follow(store_url: str | None, run: Run, processes: Processes) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the leader hears it too, and all stop together after a checkpoint
    while processes.agree(_LEAVE)[0] == _TRAIN:
        with insist(lambda: Store(store_url)) as store:
            train(run.config, _nowhere, folder=store.folder(run.id), resolve=store.folder, processes=processes)


def _nowhere(mapping: Mapping[str, Any]) -> None:
    """Record nothing: the leader does."""
