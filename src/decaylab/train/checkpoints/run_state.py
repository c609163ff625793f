"""State of a run in a checkpoint: what is kept, and how a run takes it back bit for bit, by one process or several."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from decaylab.config.identity import run_id
from decaylab.config.schema import AnyRun
from decaylab.errors import DecaylabError
from decaylab.train.checkpoints import files, layout, manifest
from decaylab.train.checkpoints.ledger import Ledger
from decaylab.train.distributed import Processes, load_whole_state, whole_state

_GIVEN_UP, _WRITTEN = 0, 1


class _Refused(Exception):
    """A checkpoint cannot be gone on from; the message, if any, says why."""


class Stateful(Protocol):
    """Something with a state of its own."""

    def state_dict(self) -> Any:
        """Return it."""

    def load_state_dict(self, state: Any) -> Any:
        """Take it back."""


@dataclass
class Tally:
    """What is counted between two records.

    Attributes:
        loss_sum: Sum of the training losses of this process since the last record.
        loss_count: Steps in it.
        evaluations: Evaluations so far.
    """

    loss_sum: Tensor
    loss_count: int = 0
    evaluations: int = 0


class Fingerprints:
    """Digests of what a run reads, kept with its state: what was begun on some data never goes on with other.

    Args:
        digests: By name.
    """

    def __init__(self, digests: Mapping[str, str]) -> None:
        self._digests = dict(digests)

    def state_dict(self) -> dict[str, str]:
        """Return them."""
        return self._digests

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Compare them.

        Raises:
            DecaylabError: The run was begun on other data.
        """
        for name, digest in state.items():
            if self._digests.get(name, digest) != digest:
                raise DecaylabError(
                    f"the {name} of this run has changed since its checkpoint (sha256 {digest}, now "
                    f"{self._digests[name]}): put the earlier data back, or train anew in another store"
                )


class RunState:
    """Saves and resumes everything of a run that changes from step to step.

    All processes call it together; the leader writes. The files hold whole tensors, so that any number of processes,
    in either way of sharing the work, goes on from them.

    Args:
        config: The run's settings.
        model: Its weights.
        optimizer: Its optimizer.
        tally: What the loop counts.
        parts: Everything else with a state, by its name in the file.
        processes: Those who train.
        widened: ``widened(step)`` holds weights in the type that the optimizer's state has.
        ledger: Keeps the metrics, and vouches for checkpoints.

    Attributes:
        refused: Why checkpoints could not be gone on from, by their names, newest first.
    """

    def __init__(
        self,
        config: AnyRun,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        tally: Tally,
        parts: Mapping[str, Stateful],
        processes: Processes,
        widened: Callable[[int], AbstractContextManager[None]],
        ledger: Ledger,
    ) -> None:
        self._config, self._model, self._optimizer, self._tally = config, model, optimizer, tally
        self._parts, self._processes, self._widened, self._ledger = parts, processes, widened, ledger
        self._device = torch.device(processes.device)
        self.refused: dict[str, str] = {}
        self._needless: set[str] = set()

    def save_checkpoint(self, folder: Path, done: int) -> None:
        """Write the checkpoint after ``done`` steps into a run's folder, and remove those that it makes needless.

        Raises:
            DiskFull: There is no room for it; the checkpoints before it are as they were.
        """
        path = layout.checkpoint_folder(folder, done)

        def write(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
            coverage = self._ledger.commit(done)
            confirm = partial(self._ledger.confirm, done)
            files.save(path, self._config, tensors, state, coverage=coverage, confirm=confirm)
            for name in self._needless - {path.name}:  # it would take the place of a good one
                shutil.rmtree(folder / name, ignore_errors=True)
            self._needless.clear()
            layout.prune(folder, done=done, attempt=coverage.attempt)

        self._save(write, optimizer=True, dispensable=True)

    def save_snapshot(self, folder: Path, done: int, *, optimizer: bool) -> None:
        """Write the snapshot after ``done`` steps into a run's folder, with or without the optimizer's state."""
        path = layout.snapshot_folder(folder, done)

        def write(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
            coverage = self._ledger.coverage()
            files.save(path, self._config, tensors, state, coverage=coverage, confirm=lambda _: self._ledger.check())

        self._save(write, optimizer=optimizer)

    def _save(
        self,
        write: Callable[[Mapping[str, Tensor], Mapping[str, Any]], None],
        *,
        optimizer: bool,
        dispensable: bool = False,
    ) -> None:
        """Gather the state from all processes and let the leader write it; all learn whether it could."""
        tensors = files.model_tensors(self._model)
        random = [self._processes.all(state) for state in self._random()]
        loss_sum = self._processes.mean(self._tally.loss_sum)
        state = {
            "run": run_id(self._config),
            "optimizer": whole_state(self._optimizer) if optimizer else None,
            **{name: part.state_dict() for name, part in self._parts.items()},
            "loss": (loss_sum, self._tally.loss_count),
            # The mean alone would round what each process has added up.
            "losses": self._processes.all(self._tally.loss_sum),
            "evaluations": self._tally.evaluations,
            # One list for each kind of generator, with the state of each process.
            "random": random,
        }
        if self._processes.leads:
            try:
                write(tensors, state)
            except BaseException as error:
                # A run goes on without a checkpoint that the disk has no room for. Otherwise the leader ends here, and
                # the others would wait for it until they are killed.
                goes_on = dispensable and isinstance(error, files.DiskFull)
                self._processes.agree(_WRITTEN if goes_on else _GIVEN_UP)
                raise
        if self._processes.agree(_WRITTEN)[0] == _GIVEN_UP:
            raise DecaylabError("the first process gave up; its message says why")

    def resume(self, folder: Path, every: int) -> int:
        """Load the newest checkpoint that is whole, belongs to this run and relies on metrics that are there.

        Args:
            folder: The run's.
            every: Steps between two records of metrics, for checkpoints that do not say which they rely on.

        Returns:
            Its step, or 0.
        """
        if self._processes.leads:
            layout.sweep(folder)
        for done, path in self._candidates(folder):
            try:
                tensors, state = self._read(path, done, every)
            except _Refused as refused:
                if not self._processes.leads:
                    raise DecaylabError(f"{path} {refused}") from None  # the leader could read it
                if str(refused):
                    self.refused[path.name] = str(refused)  # the one before it is as good, only older
                    self._needless.add(path.name)
                continue
            if self._processes.leads:
                self._processes.agree(done)  # the others wait for it in _candidates
            self._take(tensors, state, path, done)
            return done
        if self._processes.leads:
            self._processes.agree(0)
        return 0

    def _read(self, path: Path, done: int, every: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            stated = manifest.read(path)
            if self._processes.leads:
                if stated.digest is None:
                    stated = replace(stated, last_step=done // every * every)
                objection = self._ledger.objection(done, stated)
                if objection:
                    raise _Refused(objection)
            tensors, state = files.load_weights(path), files.load_state(path, self._device)
            if stated.digest is None:
                files.require_plausible(path, tensors)
        except DecaylabError as error:
            raise _Refused("could not be read") from error
        if state.get("run") != run_id(self._config):
            raise _Refused("")
        return tensors, state

    def _candidates(self, folder: Path) -> list[tuple[int, Path]]:
        """List the checkpoints to try: the leader all of them, the others the one that it has read."""
        if self._processes.leads:
            return layout.checkpoints(folder)
        (done,) = self._processes.agree(0)
        return [(done, layout.checkpoint_folder(folder, done))] if done else []

    def _take(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], path: Path, done: int) -> None:
        files.load_model_tensors(self._model, tensors, str(path))
        with self._widened(done):
            load_whole_state(self._optimizer, state["optimizer"])
        for name, part in self._parts.items():
            if name in state or not isinstance(part, Fingerprints):  # earlier checkpoints have none of these
                part.load_state_dict(state[name])
        sums = state.get("losses", ())
        own = sums[self._processes.rank] if len(sums) == self._processes.size else state["loss"][0]
        self._tally.loss_sum.copy_(own)
        self._tally.loss_count, self._tally.evaluations = state["loss"][1], state["evaluations"]
        kinds = [states for states in state["random"] if len(states) == self._processes.size]
        if not kinds:  # other processes than those who wrote it: no generator of theirs is ours
            seed_process(self._config.seed, self._processes.rank, done)
            return
        torch.set_rng_state(kinds[0][self._processes.rank].cpu())
        if self._device.type == "cuda" and len(kinds) > 1:
            torch.cuda.set_rng_state(kinds[1][self._processes.rank].cpu(), self._device)

    def _random(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self._device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self._device))
        return states


def seed_process(seed: int, rank: int, step: int = 0) -> None:
    """Seed the generators that draw dropout, differently in each process."""
    torch.manual_seed((seed * 0x9E3779B97F4A7C15 + rank * 0xBF58476D1CE4E5B9 + step) % 2**63)
