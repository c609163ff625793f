"""What of a run is kept in a checkpoint, and how a run takes it back: bit for bit, by one process or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from decaylab.config.identity import run_id
from decaylab.config.schema import AnyRun
from decaylab.errors import DecaylabError
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.checkpoints import layout as run_folder
from decaylab.train.distributed import Processes, load_whole_state, whole_state


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

    Attributes:
        damaged: Names of the checkpoints that could not be read, newest first.
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
    ) -> None:
        self._config, self._model, self._optimizer, self._tally = config, model, optimizer, tally
        self._parts, self._processes, self._widened = parts, processes, widened
        self._device = torch.device(processes.device)
        self.damaged: list[str] = []

    def save(self, folder: Path, *, optimizer: bool = True) -> None:
        """Write the state into ``folder``, with or without the optimizer's."""
        tensors = checkpoint.model_tensors(self._model)
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
            checkpoint.save(folder, self._config, tensors, state)

    def resume(self, folder: Path) -> int:
        """Load the newest checkpoint that is whole and belongs to this run; return its step, or 0."""
        if self._processes.leads:
            run_folder.sweep(folder)
        for done, path in self._candidates(folder):
            try:
                tensors, state = checkpoint.load_weights(path), checkpoint.load_state(path, self._device)
            except DecaylabError:
                if self._processes.size > 1 and not self._processes.leads:
                    raise  # the leader could read it
                self.damaged.append(path.name)  # the one before it is as good, only older
                continue
            if state.get("run") != run_id(self._config):
                continue
            if self._processes.leads:
                self._processes.agree(done)  # the others wait for it in _candidates
            self._take(tensors, state, path, done)
            return done
        if self._processes.leads:
            self._processes.agree(0)
        return 0

    def _candidates(self, folder: Path) -> list[tuple[int, Path]]:
        """List the checkpoints to try: the leader all of them, the others the one that it has read."""
        if self._processes.leads:
            return run_folder.checkpoints(folder)
        (done,) = self._processes.agree(0)
        return [(done, run_folder.checkpoint_folder(folder, done))] if done else []

    def _take(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], path: Path, done: int) -> None:
        checkpoint.load_model_tensors(self._model, tensors, str(path))
        with self._widened(done):
            load_whole_state(self._optimizer, state["optimizer"])
        for name, part in self._parts.items():
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
