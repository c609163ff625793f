"""How are several small runs trained side by side in one process, each with the bits that it has alone?

Each run goes through the loop of its own; only the forward and the backward pass are computed for all of them at once.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from decaylab.train.batched.grouped_network import Lanes
from decaylab.train.outcome import Outcome
from decaylab.train.tasks import Batch
from decaylab.train.trainer import Losses, Training

Loop = Generator[list[Batch], Losses, Outcome]


class Runner:
    """One run on its way through its loop, with a random state of its own.

    Args:
        training: The run, made while ``random`` was torch's state.
        loop: Its loop, not yet begun.
        random: Torch's random state after the run was made.

    Attributes:
        batch: What it waits for the gradient of.
        ended: How it ended, or the error that ended it; ``None`` while it goes on.
    """

    def __init__(self, training: Training, loop: Loop, random: Tensor) -> None:
        self.training, self._loop, self._random = training, loop, random
        self.batch: Batch
        self.ended: Outcome | Exception | None = None

    def advance(self, loss: Tensor | None) -> None:
        """Go on, with the loss of ``batch`` unless the loop has yet to begin, to the next batch or the end."""
        torch.set_rng_state(self._random)
        try:
            (self.batch,) = next(self._loop) if loss is None else self._loop.send([loss])
        except StopIteration as end:
            self.ended = end.value
        except Exception as error:  # it is this run's; the others go on
            self.ended = error
        self._random = torch.get_rng_state()


def drive(runners: Sequence[Runner]) -> Iterator[Runner]:
    """Train runs of one company to their ends, and yield each as it ends.

    Runs whose batches differ in size, as they do when one resumed at another place of an epoch, take turns.
    """
    for runner in runners:
        runner.advance(None)
    waiting = list(runners)
    while waiting:
        yield from (runner for runner in waiting if runner.ended is not None)
        waiting = [runner for runner in waiting if runner.ended is None]
        if waiting:
            first = waiting[0].training.place_in_epoch
            _step_together([runner for runner in waiting if runner.training.place_in_epoch == first])


def _step_together(runners: Sequence[Runner]) -> None:
    """Step runs whose batches have the same sizes until one of them ends."""
    models = [runner.training.model for runner in runners]
    if len(runners) > 1 and not _same_as_alone(models, [runner.batch for runner in runners]):
        models, runners = models[:1], runners[:1]
    lanes = Lanes(models)
    while all(runner.ended is None for runner in runners):
        losses = _gradients(lanes, [runner.batch for runner in runners])
        for runner, loss in zip(runners, losses.unbind(), strict=False):  # a run alone has a second lane
            runner.advance(loss)


def _gradients(lanes: Lanes, batches: Sequence[Batch]) -> Tensor:
    """Put the gradients of the mean cross-entropies into the networks' parameters; return the losses (lanes,)."""
    logits_SNK = lanes.logits([x for x, _ in batches])
    labels_SN = torch.stack([y for _, y in batches]).expand(len(logits_SNK), -1)
    losses = functional.cross_entropy(logits_SNK.flatten(0, 1), labels_SN.flatten(), reduction="none")
    losses_S = losses.view(labels_SN.shape).mean(1)
    lanes.backward(losses_S)
    return losses_S.detach()


def _same_as_alone(models: Sequence[nn.Module], batches: Sequence[Batch]) -> bool:
    """Whether this machine computes the same bits for networks side by side and for each alone: losses, gradients."""
    side_by_side = copy.deepcopy(list(models))
    losses = _gradients(Lanes(side_by_side), batches)
    for lane, (model, beside, batch) in enumerate(zip(models, side_by_side, batches, strict=True)):
        alone = copy.deepcopy(model)
        pairs = [(_gradients(Lanes([alone]), [batch])[0], losses[lane])]
        pairs += zip(alone.buffers(), beside.buffers(), strict=True)
        pairs += zip(_gradients_of(alone), _gradients_of(beside), strict=True)
        if not all(torch.equal(one, other) for one, other in pairs):
            return False
    return True


def _gradients_of(model: nn.Module) -> Iterator[Tensor]:
    return (p.grad for p in model.parameters() if p.grad is not None)
