"""The one training loop, for vision and language: steps, evaluations, records, checkpoints, and the end of a run.

Its outlets are ``record`` (metrics), ``folder`` (checkpoints and snapshots) and ``heartbeat`` (progress; its answer
says whether to go on). On the CPU the same settings give the same bits, with and without checkpoints, probes and
interruptions in between. Who computes the gradients is not the loop's business: it hands out the batches of a step and
goes on when the gradients are there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from decaylab import probes
from decaylab.config.cost import flops_per_step
from decaylab.config.schema import AnyRun, LanguageRun
from decaylab.schedules import value as schedule_value
from decaylab.tensors.sharding import local
from decaylab.train.build import stepper
from decaylab.train.cadence import Agenda, Heartbeat, Order
from decaylab.train.checkpoints import layout as run_folder
from decaylab.train.checkpoints.files import DiskFull
from decaylab.train.checkpoints.initial_weights import Origin
from decaylab.train.checkpoints.ledger import Ledger, NoLedger
from decaylab.train.checkpoints.recorded_norms import followed_norms
from decaylab.train.checkpoints.run_state import Fingerprints, RunState, Stateful, Tally, seed_process
from decaylab.train.distributed import Processes
from decaylab.train.divergence import DivergenceWatch
from decaylab.train.evaluation import Measuring
from decaylab.train.outcome import Outcome, speeds
from decaylab.train.peak_flops import peak_flops
from decaylab.train.stochastic_rounding import StochasticRounding
from decaylab.train.tasks import Batch, Objective, build_task
from decaylab.train.weight_averages import WeightAverages

Record = Callable[[Mapping[str, float]], None]
Losses = Sequence[Tensor]
_WORTH_A_MEASUREMENT = 1e12  # floating-point operations
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Training:
    """The state of one run and what happens in a step.

    Args:
        config: Everything that decides the result.
        record: Receives the metrics, see `decaylab.train.fit.fit`.
        folder: Where checkpoints and snapshots go; without one nothing is written.
        processes: Those who train this run together.
        resolve: Gives the folder of another run, for ``init_from``.
        ledger: Vouches for checkpoints, where somebody keeps the metrics.

    Attributes:
        done: Steps done.
        model: What is trained.
    """

    def __init__(
        self,
        config: AnyRun,
        record: Record,
        folder: Path | None,
        processes: Processes,
        resolve: Callable[[str], Path] | None,
        ledger: Ledger | None = None,
    ) -> None:
        self.config, self.folder, self.processes = config, folder, processes
        self.record = record if processes.leads else _nowhere
        self.device = torch.device(processes.device)
        self.task = build_task(config, self.device, processes)
        self.model = self.task.model.to(_DTYPES[config.weights]).train()
        self.origin = Origin(config, resolve, begun=folder is not None and bool(run_folder.checkpoints(folder)))
        self.origin.give_weights(self.model, self.task.recalibrate)
        processes.shard(self.model)
        self.parameters = list(self.model.parameters())  # walking the modules would cost as much as a small layer
        self.total = self.task.total_steps
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        norms = followed_norms(config, resolve, folder, leads=processes.leads)
        self.stepper = stepper(config, self.model, scaled=self.scaler.is_enabled(), norms=norms)
        self.optimizer = self.stepper.optimizer
        self.rounding = StochasticRounding(self.parameters, config.seed) if config.stochastic_rounding else None
        if self.origin.has_optimizer:
            with self._widened(0):
                self.origin.give_optimizer(self.optimizer, self.device)
        self.averages = WeightAverages(config.averages, self.model, self.total)
        self.measuring = Measuring(config, self.task, self.model, self.averages, processes, self._autocast)
        objective: nn.Module = Objective(self.model, self.task.loss)
        if config.compile:
            objective = torch.compile(objective)  # type: ignore[assignment]
        self.forward = processes.replicate(objective)
        self.probes = probes.ProbeRunner(config.probes.names, self.model, self.optimizer, every=config.probes.every)
        if self.rounding is not None:
            self.rounding.hook(self.optimizer)
        self.probes.hook(self._probed)  # around the rounding, so that stored weights are measured
        self.norms = probes.record_norms(self.optimizer, self.model) if config.record_norms else None
        self.watch = DivergenceWatch(config.divergence)
        self.tally = Tally(torch.zeros((), device=self.device))
        self.last: dict[str, float | str] = {}
        self.done = 0
        self.unsaved = ""  # why the last checkpoint is not on the disk
        # Runs of a moment, such as those of tests, are not worth a measurement of the machine.
        lasts = isinstance(config, LanguageRun) and flops_per_step(config) * self.total > _WORTH_A_MEASUREMENT
        self.peak = self._measure_peak() if lasts else 0.0
        parts: dict[str, Stateful] = {
            "inputs": Fingerprints(self.task.fingerprints),
            "averages": self.averages,
            "scaler": self.scaler,
            "watch": self.watch,
            "probes": self.probes,
        }
        if self.norms is not None:
            parts["norms"] = self.norms
        self.state = RunState(
            config, self.model, self.optimizer, self.tally, parts, processes, self._widened, ledger or NoLedger()
        )
        if processes.rank:
            seed_process(config.seed, processes.rank)

    def run(self, heartbeat: Heartbeat, resume: bool, checkpoint_seconds: float) -> Outcome:
        """Train to the end, a divergence or an interruption, and say how it ended."""
        loop = self.steps(heartbeat, resume, checkpoint_seconds)
        try:
            batches = next(loop)
            while True:
                batches = loop.send(self.gradients(batches))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    def steps(
        self, heartbeat: Heartbeat, resume: bool, checkpoint_seconds: float
    ) -> Generator[list[Batch], Losses, Outcome]:
        """Train as :meth:`run` does, with gradients from elsewhere.

        Yields:
            The micro-batches of a step. Before it is resumed with the share of each in the mean loss, detached, the
            gradient of that mean has to lie in the parameters' ``grad``.

        Returns:
            How it ended.
        """
        start = self.done = self._resume() if resume else 0
        if start == 0:
            self.origin.require()
            self._evaluate(0)
            self._snapshot(0)
        agenda = Agenda(self.processes, heartbeat, checkpoint_seconds, start)
        for step in range(start, self.total):
            losses = yield self._begin(step)
            self._finish(step, losses)
            done = self.done = step + 1
            if done % self.config.probes.every == 0 or done == self.total:
                reason = self._record(done)
                if reason:
                    return self._outcome("diverged", done, agenda.began, start, reason)
            if done % self.task.evaluate_every == 0 or done == self.total:
                self._evaluate(done)
            self._snapshot(done)
            order = agenda.after(done, self.total)
            if order is not Order.GO:
                self._save(done)
            if order is Order.STOP:
                lacking = f", and {self.unsaved}" if self.unsaved else ""
                return self._outcome("interrupted", done, agenda.began, start, f"stopped at step {done}{lacking}")
        loss = self.last.get("train/loss")
        if isinstance(loss, float) and not math.isfinite(loss):  # lost in the last steps, after what the watch has seen
            reason = f"loss is {loss} at step {self.total}"
            return self._outcome("diverged", self.total, agenda.began, start, reason)
        self._conclude()
        return self._outcome("done", self.total, agenda.began, start)

    def _measure_peak(self) -> float:
        """Measure the operations a second of all processes together, and tell it: progress is a share of it."""
        peak = peak_flops(str(self.device), _DTYPES[self.config.precision], torch.get_num_threads())
        peak *= self.processes.size
        self.record({"peak_flops": peak})
        return peak

    @property
    def place_in_epoch(self) -> int:
        """What decides the sizes of the batches from here on: the place in an epoch whose last batch is smaller."""
        return self.done % (self.task.steps_per_epoch or 1)

    def step(self, step: int) -> None:
        """Do one step alone."""
        self._finish(step, self.gradients(self._begin(step)))

    def gradients(self, batches: list[Batch]) -> Losses:
        """Put the gradient of the mean loss of micro-batches into the parameters; return the share of each in it."""
        losses = []
        examples = sum(len(batch[1]) for batch in batches)
        for number, batch in enumerate(batches, start=1):
            with self.processes.syncing(self.forward, self.model, last=number == len(batches)):
                with self._autocast():  # the last batch of an epoch may fall into parts of different sizes
                    loss = self.forward(*batch) / (examples / len(batch[1]))
                self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        return losses

    def _begin(self, step: int) -> list[Batch]:
        lr = schedule_value(self.config.schedule, step, self.config.optimizer.lr, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return self.task.batches(step)

    def _finish(self, step: int, losses: Losses) -> None:
        for loss in losses:
            self.tally.loss_sum += loss
        self.tally.loss_count += 1
        clip = self.config.optimizer.clip
        if self.stepper.penalty or clip is not None:
            self.scaler.unscale_(self.optimizer)
        if self.stepper.penalty:
            self._add_penalty()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        self.probes.step = step + 1
        if self.rounding is not None:
            self.rounding.step = step
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for p in self.parameters:  # as the optimizer's zero_grad, whose wrappers take longer than a small layer
            p.grad = None
        self.averages.update(step)

    @torch.no_grad()
    def _add_penalty(self) -> None:
        """Add the gradient of the penalty in the loss, before the clipping as if autograd had done it."""
        pairs = [(local(p.grad), local(p)) for p in self.stepper.decayed if p.grad is not None]
        torch._foreach_add_([g for g, _ in pairs], [p for _, p in pairs], alpha=self.stepper.penalty)

    def _probed(self, step: int, measured: Mapping[str, float] | None) -> None:
        if measured:
            self._emit(step, measured)

    def _widened(self, step: int) -> AbstractContextManager[None]:
        """Hold bfloat16 weights in float32 while the optimizer takes back a state kept in float32."""
        return nullcontext() if self.rounding is None else self.rounding.widened(step)

    def _autocast(self) -> Any:
        precision = self.config.precision
        return nullcontext() if precision == "float32" else torch.autocast(self.device.type, _DTYPES[precision])

    def _record(self, done: int) -> str | None:
        """Emit the mean training loss since the last record; say why if the run has diverged."""
        loss = float(self.processes.mean(self.tally.loss_sum)) / max(self.tally.loss_count, 1)
        self.tally.loss_sum.zero_()
        self.tally.loss_count = 0
        self._emit(done, {"train/batch_loss": loss, "lr": float(self.optimizer.param_groups[0]["lr"])})
        reason = self.watch.see(done, loss)
        if self.watch.opened == done:
            self._emit(done, {"train/spike": self.watch.height})
        if reason and (self.config.divergence.stop or not math.isfinite(loss)):
            return reason
        return None

    def _evaluate(self, done: int) -> None:
        """Measure the iterate and every average, and curvature where it is due."""
        due = self.tally.evaluations % self.config.probes.curvature_every == 0 or done == self.total
        metrics = self.measuring.evaluate(curvature=due)
        self.tally.evaluations += 1
        self._emit(done, metrics)

    def _conclude(self) -> None:
        """Measure what only the end of a run has, and let the model complete its prompt."""
        metrics = self.measuring.conclude()
        if metrics:
            self._emit(self.total, metrics)
        if self.norms is not None and self.folder is not None and self.processes.leads:
            self.norms.trajectory().save(run_folder.norms_file(self.folder))
        completion = self.task.complete(self.model)
        if completion is not None:
            self.last["completion"] = completion

    def _emit(self, done: int, values: Mapping[str, float]) -> None:
        self.last.update(values)
        epochs = {"epoch": done / self.task.steps_per_epoch} if self.task.steps_per_epoch else {}
        self.record({"step": done, **epochs, **values})

    def _save(self, done: int) -> None:
        """Write a checkpoint; a full disk costs the checkpoint, not the run."""
        if self.folder is not None:
            self.record({"checkpoint": done})
            try:
                self.state.save_checkpoint(self.folder, done)
                self.unsaved = ""
            except DiskFull as error:
                self.unsaved = str(error)

    def _snapshot(self, done: int) -> None:
        unit = self.task.steps_per_epoch or 1
        if self.folder is not None and run_folder.keeps_snapshot(self.config, done, total=self.total, unit=unit):
            self.state.save_snapshot(self.folder, done, optimizer=self.config.snapshot_optimizer)

    def _resume(self) -> int:
        done = self.state.resume(self.folder, self.config.probes.every) if self.folder is not None else 0
        if done:
            self.record({"resume": done})
        return done

    def _outcome(
        self,
        status: Literal["done", "diverged", "interrupted"],
        done: int,
        began: float,
        start: int,
        reason: str = "",
    ) -> Outcome:
        told: dict[str, float | str] = {
            **speeds(self.config, done - start, time.monotonic() - began, self.task.examples_per_step, self.peak),
            "spikes": float(self.watch.spikes),
        }
        if self.watch.lasting:
            told["spike"] = self.watch.lasting
        if self.state.refused:
            told["damaged"] = f"{_refusals(self.state.refused)}: it went on from step {start}"
        return Outcome(
            status=status, reason=reason, steps=done, summary={**self.last, **told, **self.task.fingerprints}
        )


def _refusals(refused: Mapping[str, str]) -> str:
    """Say of checkpoints why they were not gone on from, those with one reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in refused.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{' and '.join(those)} {reason}" for reason, those in names.items())


def _nowhere(values: Mapping[str, float]) -> None:
    """Record nothing: the leader does."""
