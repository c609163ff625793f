"""Train one run, or several small ones side by side, to the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from decaylab.config.schema import AnyRun
from decaylab.config.validation import check
from decaylab.train.batched.driver import Runner, drive
from decaylab.train.batched.grouping import company
from decaylab.train.cadence import Heartbeat
from decaylab.train.checkpoints.ledger import Ledger, NoLedger
from decaylab.train.distributed import Processes
from decaylab.train.outcome import Outcome
from decaylab.train.trainer import Record, Training

Resolve = Callable[[str], Path]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run to train.

    Attributes:
        config: Everything that decides the result.
        record: Receives ``{"step": ..., key: value, ...}``; after a resume at step s first ``{"resume": s}``, and
            ``{"checkpoint": s}`` right before a checkpoint is written, when all before it has to be safe; of a long
            language run before all of it ``{"peak_flops": operations a second}``, see `decaylab.train.peak_flops`.
        folder: Where checkpoints and snapshots go; without one nothing is written. The last checkpoints stay: whoever
            has kept the outcome of a run that is done may remove them (`decaylab.train.checkpoints.layout.prune`).
        heartbeat: Called about once a second with (steps done, total); False stops the run after a checkpoint.
        ledger: Vouches for checkpoints, where somebody keeps the metrics and others may take the run over.
    """

    config: AnyRun
    record: Record
    folder: Path | None = None
    heartbeat: Heartbeat | None = None
    ledger: Ledger = field(default_factory=NoLedger)


def fit(
    config: AnyRun,
    record: Record,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    resolve: Resolve | None = None,
    heartbeat: Heartbeat | None = None,
    resume: bool = True,
    checkpoint_seconds: float = 60.0,
    processes: Processes | None = None,
    ledger: Ledger | None = None,
) -> Outcome:
    """Train one run to its end.

    Args:
        config: See `Job`, as for ``record``, ``folder`` and ``heartbeat``.
        record: Receives metrics.
        folder: Where checkpoints and snapshots go.
        device: A torch device.
        resolve: Gives the folder of another run, for ``init_from``.
        heartbeat: Asked whether to go on.
        resume: Continue from the newest whole checkpoint in ``folder``.
        checkpoint_seconds: Time between checkpoints.
        processes: Those who train this run together, each of which calls this, with the same folder; only the leader
            records, writes and is asked by ``heartbeat``. They name the device. One process by default.
        ledger: Vouches for checkpoints.

    Returns:
        How it ended.

    Raises:
        DecaylabError: Settings that cannot be trained, missing data, or a missing run to start from.
    """
    job = Job(config=config, record=record, folder=folder, heartbeat=heartbeat, ledger=ledger or NoLedger())
    if processes is None and company(config, device) is not None:
        ((_, ended),) = fit_side_by_side(
            [job], device=device, resolve=resolve, resume=resume, checkpoint_seconds=checkpoint_seconds
        )
        if isinstance(ended, Exception):
            raise ended
        return ended
    processes = processes or Processes(device=device)
    processes.check(config)
    place = torch.device(processes.device)
    # The caller's random state is not ours to move.
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        return _made(job, processes, resolve).run(job.heartbeat or _go_on, resume, checkpoint_seconds)


def fit_side_by_side(
    jobs: Sequence[Job],
    *,
    device: str = "cpu",
    resolve: Resolve | None = None,
    resume: bool = True,
    checkpoint_seconds: float = 60.0,
) -> Iterator[tuple[int, Outcome | Exception]]:
    """Train small runs of one group (see `decaylab.train.batched.grouping`) in this process, a step of each at a time.

    Every run has the bits that `fit` gives it, whatever it is trained beside. A run that fails does not stop the
    others.

    Args:
        jobs: What to train.
        device: A torch device.
        resolve: Gives the folder of another run, for ``init_from``.
        resume: Continue each run from the newest whole checkpoint in its folder.
        checkpoint_seconds: Time between checkpoints of a run.

    Yields:
        The number of a job that has ended, and how it ended or the error that ended it.
    """
    runners: dict[Runner, int] = {}
    with torch.random.fork_rng(devices=[]):
        for number, job in enumerate(jobs):
            try:
                training = _made(job, Processes(device=device), resolve)
            except Exception as error:
                yield number, error
                continue
            loop = training.steps(job.heartbeat or _go_on, resume, checkpoint_seconds)
            runners[Runner(training, loop, torch.get_rng_state())] = number
        for runner in drive(list(runners)):
            assert runner.ended is not None
            yield runners[runner], runner.ended


def _made(job: Job, processes: Processes, resolve: Resolve | None) -> Training:
    check(job.config)
    torch.manual_seed(job.config.seed)
    return Training(job.config, job.record, job.folder, processes, resolve, job.ledger)


def _go_on(step: int, total: int) -> bool:
    return True
