"""How is a model measured by itself: an average, a fine-tuned copy, a checkpoint?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from decaylab.curvature.shared_view import evaluation_twin, unwrap
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.probes.context import Context, Probe
from decaylab.probes.optimizer_rates import Rates, read_rates, spread
from decaylab.probes.runner import make, to_floats
from decaylab.probes.watched_parameters import reading_roles, warn_of_unknown
from decaylab.tensors.reduce import accurate


def measure(
    probe: str | Probe,
    model: nn.Module,
    batches: Iterable[Any] = (),
    loss_fn: LossFunction | None = None,
    *,
    seed: int | None = None,
    optimizer: Optimizer | None = None,
    weights: Mapping[str, Tensor] | None = None,
    roles: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Measure a model by itself with one probe.

    Args:
        probe: Name from the table, or a probe.
        model: The model; it is only read.
        batches: Batches for probes that run the model.
        loss_fn: ``loss_fn(model, batch)``, mean loss of a batch.
        seed: Seed for probes that draw random numbers; None leaves their own.
        optimizer: Gives learning rates and decay to probes that need them.
        weights: Other tensors to measure the same model with, by name (an average of its weights).
        roles: Overrides of parameter roles.

    Returns:
        The probe's keys and numbers. Keys that speak of a step are missing.

    Raises:
        DecaylabError: The probe needs a loss or an optimizer that was not given, nothing in the model is trainable, or
            a name in ``weights`` is not one of the model's.
    """
    (made,) = make([probe], seed)
    empty = isinstance(batches, Sized) and not len(batches)
    if "loss" in made.needs and (loss_fn is None or empty):
        raise DecaylabError(f"the probe {made.name!r} runs the model: give loss_fn= and batches=")
    if "optimizer" in made.needs and optimizer is None:
        raise DecaylabError(f"the probe {made.name!r} reads learning rates: give optimizer=")
    own = unwrap(model)
    measured = own if weights is None else evaluation_twin(own, weights)
    parameters = {name: p.detach() for name, p in measured.named_parameters() if p.requires_grad}
    if not parameters:
        raise DecaylabError("the model has no trainable parameters (requires_grad): there is nothing to measure")
    known = reading_roles(own, roles)
    warn_of_unknown(known, stacklevel=3)
    context = Context(
        step=0,
        model=measured,
        parameters=parameters,
        roles=known,
        optimizer=optimizer,
        rates=None if optimizer is None else _rates(own, optimizer, parameters),
        loss_fn=loss_fn,
        batches=batches,
    )
    return to_floats(made.measure(context))


def _rates(model: nn.Module, optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> Rates:
    inner, own = inner_optimizer(optimizer), dict(model.named_parameters())
    device = next(iter(parameters.values())).device
    return spread(inner, read_rates(inner), [own[name] for name in parameters], device, accurate(device))
