"""The one training loop, for vision and language: steps, evaluations, records, checkpoints, and the end of a run.

Its outlets are ``record`` (metrics), ``folder`` (checkpoints and snapshots) and ``heartbeat`` (progress; its answer
says whether to go on). On the CPU the same settings give the same bits, with and without checkpoints, probes and
interruptions in between.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from decaylab import probes
from decaylab.errors import DecaylabError
from decaylab.schedules import value as schedule_value
from decaylab.train import checkpoint
from decaylab.train.averaging import WeightAverages
from decaylab.train.build import stepper
from decaylab.train.config import AnyRun, check, run_id
from decaylab.train.divergence import DivergenceWatch
from decaylab.train.rounding import StochasticRounding
from decaylab.train.tasks import build_task

Record = Callable[[Mapping[str, float]], None]
Heartbeat = Callable[[int, int], bool]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: ``done``, ``diverged`` (a result too) or ``interrupted`` (goes on from its checkpoint).
        reason: Why, where it is not ``done``.
        steps: Steps done.
        summary: Last metrics, seconds and speed, and ``data``: a hash of the training data, because the embedded
            corpus is another one with another Python.
    """

    status: Literal["done", "diverged", "interrupted"]
    reason: str = ""
    steps: int = 0
    summary: Mapping[str, float | str] = field(default_factory=dict)


def fit(
    config: AnyRun,
    record: Record,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    resolve: Callable[[str], Path] | None = None,
    heartbeat: Heartbeat | None = None,
    resume: bool = True,
    checkpoint_seconds: float = 60.0,
) -> Outcome:
    """Train one run to its end.

    Args:
        config: Everything that decides the result.
        record: Receives ``{"step": ..., key: value, ...}``; after a resume at step s first ``{"resume": s}``, and
            ``{"checkpoint": s}`` right before a checkpoint is written, when all before it has to be safe.
        folder: Where checkpoints and snapshots go; without one nothing is written.
        device: A torch device.
        resolve: Gives the folder of another run, for ``init_from``.
        heartbeat: Called about once a second with (steps done, total); False stops the run after a checkpoint.
        resume: Continue from the newest whole checkpoint in ``folder``.
        checkpoint_seconds: Time between checkpoints.

    Returns:
        How it ended.

    Raises:
        DecaylabError: Settings that cannot be trained, missing data, or a missing run to start from.
    """
    check(config)
    place = torch.device(device)
    # The caller's random state is not ours to move.
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(config.seed)
        training = _Training(config, record, folder, place, resolve)
        return training.run(heartbeat or (lambda step, total: True), resume, checkpoint_seconds)


class _Training:
    """The state of one run and what happens in a step."""

    def __init__(
        self,
        config: AnyRun,
        record: Record,
        folder: Path | None,
        device: torch.device,
        resolve: Callable[[str], Path] | None,
    ) -> None:
        self.config, self.record, self.folder, self.device = config, record, folder, device
        self.task = build_task(config, device)
        self.model = self.task.model.to(_DTYPES[config.weights]).train()
        self.parameters = list(self.model.parameters())  # walking the modules would cost as much as a small layer
        self.total = self.task.total_steps
        if config.init_from is not None:
            self._start_from(resolve)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self.stepper = stepper(config, self.model, scaled=self.scaler.is_enabled())
        self.optimizer = self.stepper.optimizer
        self.rounding = StochasticRounding(self.parameters, config.seed) if config.stochastic_rounding else None
        with self._widened(0):
            self._start_optimizer(resolve)
        self.averages = WeightAverages(config.averages, self.model, self.total)
        self.shadow: nn.Module | None = None
        self.forward: nn.Module = torch.compile(self.model) if config.compile else self.model  # type: ignore[assignment]
        self.probes = probes.ProbeRunner(config.probes.names, self.model, self.optimizer, every=config.probes.every)
        self.watch = DivergenceWatch(config.divergence)
        self.loss_sum = torch.zeros((), device=device)
        self.loss_count = 0
        self.last: dict[str, float] = {}
        self.evaluations = 0

    def run(self, heartbeat: Heartbeat, resume: bool, checkpoint_seconds: float) -> Outcome:
        """Step until the end, a divergence or an interruption."""
        start = self._resume() if resume else 0
        if start == 0:
            self._evaluate(0)
            self._snapshot(0)
        began = beat = saved = time.monotonic()
        for step in range(start, self.total):
            self._step(step)
            done = step + 1
            if done % self.config.probes.every == 0 or done == self.total:
                reason = self._record(done)
                if reason:
                    return self._outcome("diverged", done, began, start, reason)
            if done % self.task.evaluate_every == 0 or done == self.total:
                self._evaluate(done)
            self._snapshot(done)
            now = time.monotonic()
            if now - beat >= 1.0 and done < self.total:
                beat = now
                if not heartbeat(done, self.total):
                    self._save(done)
                    return self._outcome("interrupted", done, began, start, f"stopped at step {done}")
            if now - saved >= checkpoint_seconds and done < self.total:
                saved = now
                self._save(done)
        return self._outcome("done", self.total, began, start)

    def _step(self, step: int) -> None:
        lr = schedule_value(self.config.schedule, step, self.config.optimizer.lr, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        batches = self.task.batches(step)
        for batch in batches:
            with self._autocast():
                loss = self.task.loss(self.forward, batch) / len(batches)
            self.scaler.scale(loss).backward()
            self.loss_sum += loss.detach()
        self.loss_count += 1
        clip = self.config.optimizer.clip
        if self.stepper.penalty or clip is not None:
            self.scaler.unscale_(self.optimizer)
        if self.stepper.penalty:
            self._add_penalty()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        self.probes.before_step(step + 1)
        with self._widened(step):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        measured = self.probes.after_step(step + 1)
        if measured:
            self._emit(step + 1, measured)
        self.optimizer.zero_grad(set_to_none=True)
        self.averages.update(step)

    @torch.no_grad()
    def _add_penalty(self) -> None:
        """Add the gradient of the penalty in the loss, before the clipping as if autograd had done it."""
        pairs = [(p.grad, p) for p in self.stepper.decayed if p.grad is not None]
        torch._foreach_add_([g for g, _ in pairs], [p for _, p in pairs], alpha=self.stepper.penalty)

    def _widened(self, step: int) -> AbstractContextManager[None]:
        """Hold bfloat16 weights in float32 while the optimizer steps, or takes back a state kept in float32."""
        return nullcontext() if self.rounding is None else self.rounding.widened(step)

    def _autocast(self) -> Any:
        precision = self.config.precision
        return nullcontext() if precision == "float32" else torch.autocast(self.device.type, _DTYPES[precision])

    def _record(self, done: int) -> str | None:
        """Emit the mean training loss since the last record; say why if the run has diverged."""
        loss = float(self.loss_sum) / max(self.loss_count, 1)
        self.loss_sum.zero_()
        self.loss_count = 0
        self._emit(done, {"train/batch_loss": loss, "lr": float(self.optimizer.param_groups[0]["lr"])})
        reason = self.watch.see(done, loss)
        if reason and (self.config.divergence.stop or not math.isfinite(loss)):
            return reason
        return None

    def _evaluate(self, done: int) -> None:
        """Measure the iterate and every average, and curvature where it is due."""
        curvature = self.config.probes.curvature and (
            self.evaluations % self.config.probes.curvature_every == 0 or done == self.total
        )
        metrics: dict[str, Tensor | float] = {}
        for name in ("iterate", *self.averages.names):
            model, prefix = self.model, ""
            if name != "iterate":
                model, prefix = self._averaged(name), f"{name}/"
            with self._autocast():
                metrics |= {f"{prefix}{key}": v for key, v in self.task.evaluate(model).items()}
            if curvature and name in self.config.probes.curvature_at:
                batches = self.task.fixed_batches(self.config.probes.curvature_points)
                for probe in self.config.probes.curvature:
                    measured = probes.measure(probe, model, batches, self.task.loss, seed=self.config.seed)
                    metrics |= {f"{prefix}{key}": v for key, v in measured.items()}
        self.evaluations += 1
        self._emit(done, _floats(metrics))

    def _averaged(self, name: str) -> nn.Module:
        """Return the shadow model holding one average, its norms recalibrated on the training set."""
        if self.shadow is None:
            self.shadow = copy.deepcopy(self.model).float()
        self.averages.copy_to(name, self.shadow)
        self.task.recalibrate(self.shadow)
        return self.shadow

    def _emit(self, done: int, values: Mapping[str, float]) -> None:
        self.last.update(values)
        epochs = {"epoch": done / self.task.steps_per_epoch} if self.task.steps_per_epoch else {}
        self.record({"step": done, **epochs, **values})

    def _start_from(self, resolve: Callable[[str], Path] | None) -> None:
        origin = self._origin(resolve)
        assert self.config.init_from is not None
        tensors = checkpoint.load_weights(origin)
        name = self.config.init_from.weights
        if name != "iterate":
            averages = checkpoint.load_state(origin)["averages"]
            chosen = {k.removeprefix(f"{name}/"): v for k, v in averages.items() if k.startswith(f"{name}/")}
            if not chosen:
                raise DecaylabError(f"{origin} holds no average {name!r}; it has to be in that run's averages")
            tensors |= chosen
        checkpoint.load_model_tensors(self.model, tensors, str(origin))
        if name != "iterate":
            self.task.recalibrate(self.model)

    def _start_optimizer(self, resolve: Callable[[str], Path] | None) -> None:
        if self.config.init_from is not None and self.config.init_from.optimizer:
            state = checkpoint.load_state(self._origin(resolve), self.device)
            if state["optimizer"] is None:
                raise DecaylabError("that run's snapshots hold no optimizer state; train it with snapshot_optimizer")
            groups = [dict(group) for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, own in zip(self.optimizer.param_groups, groups, strict=True):
                group.update({key: v for key, v in own.items() if key != "params"})

    def _origin(self, resolve: Callable[[str], Path] | None) -> Path:
        source = self.config.init_from
        assert source is not None
        if resolve is None:
            raise DecaylabError(f"this run starts from run {source.run}: train it in the store that holds that run")
        folder = checkpoint.snapshot_folder(resolve(source.run), source.step)
        if not folder.is_dir():
            raise DecaylabError(
                f"run {source.run} has no snapshot at step {source.step}: train that run first, with snapshots_every"
            )
        return folder

    def _state(self, *, optimizer: bool = True) -> dict[str, Any]:
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "run": run_id(self.config),
            "optimizer": self.optimizer.state_dict() if optimizer else None,
            "averages": self.averages.state_dict(),
            "scaler": self.scaler.state_dict(),
            "watch": self.watch.state_dict(),
            "probes": self.probes.state_dict(),
            "loss": (self.loss_sum, self.loss_count),
            "evaluations": self.evaluations,
            "random": random,
        }

    def _save(self, done: int) -> None:
        if self.folder is not None:
            self.record({"checkpoint": done})
            checkpoint.save(checkpoint.checkpoint_folder(self.folder, done), self.config, self.model, self._state())
            checkpoint.prune(self.folder)

    def _snapshot(self, done: int) -> None:
        every, unit = self.task.snapshots_every, self.task.steps_per_epoch or 1
        wanted = bool(every) and done % every == 0
        wanted = wanted or (done % unit == 0 and done // unit in self.config.snapshots_at)
        if self.folder is None or not wanted:
            return
        state = self._state(optimizer=self.config.snapshot_optimizer)
        checkpoint.save(checkpoint.snapshot_folder(self.folder, done), self.config, self.model, state)

    def _resume(self) -> int:
        """Load the newest checkpoint that is whole and belongs to this run; return its step, or 0."""
        for done, path in checkpoint.checkpoints(self.folder) if self.folder else []:
            try:
                tensors, state = checkpoint.load_weights(path), checkpoint.load_state(path, self.device)
            except DecaylabError:
                continue  # a damaged one: the one before it is as good, only older
            if state.get("run") != run_id(self.config):
                continue
            checkpoint.load_model_tensors(self.model, tensors, str(path))
            with self._widened(done):
                self.optimizer.load_state_dict(state["optimizer"])
            self.averages.load_state_dict(state["averages"])
            self.scaler.load_state_dict(state["scaler"])
            self.watch.load_state_dict(state["watch"])
            self.probes.load_state_dict(state["probes"])
            self.loss_sum.copy_(state["loss"][0])
            self.loss_count, self.evaluations = state["loss"][1], state["evaluations"]
            torch.set_rng_state(state["random"]["cpu"].cpu())
            if "cuda" in state["random"]:
                torch.cuda.set_rng_state(state["random"]["cuda"].cpu(), self.device)
            self.record({"resume": done})
            return done
        return 0

    def _outcome(
        self,
        status: Literal["done", "diverged", "interrupted"],
        done: int,
        began: float,
        start: int,
        reason: str = "",
    ) -> Outcome:
        seconds = time.monotonic() - began
        speed = (done - start) / seconds if seconds else 0.0
        timing = {
            "seconds": seconds,
            "steps_per_second": speed,
            "examples_per_second": speed * self.task.examples_per_step,
            "spikes": float(self.watch.spikes),
        }
        return Outcome(
            status=status, reason=reason, steps=done, summary={**self.last, **timing, "data": self.task.fingerprint}
        )


def _floats(metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Bring all tensors to the host in one transfer."""
    names = [key for key, v in metrics.items() if isinstance(v, Tensor)]
    if not names:
        return {key: float(v) for key, v in metrics.items()}
    together = torch.stack([metrics[key].detach().double() for key in names]).tolist()  # type: ignore[union-attr]
    return {key: float(v) for key, v in metrics.items() if key not in names} | dict(zip(names, together, strict=True))
