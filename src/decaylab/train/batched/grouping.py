"""Which runs can be trained side by side in one process? Nothing here imports torch."""

from __future__ import annotations

import json

from decaylab.components import ARCHITECTURES
from decaylab.config.cost import flops_per_step
from decaylab.config.schema import AnyRun, VisionRun
from decaylab.probes.registry import rows
from decaylab.serialization import encode

MOST = 8
"""Runs side by side; more save next to nothing, while each one's activations crowd the caches."""
_SMALL = 2e8  # operations a step: above, arithmetic costs more than the calls that side by side would save
_CHANNELS = 8  # the widths of the channels must fill vector registers, or a lane's sums depend on where it lies


def company(config: AnyRun, device: str) -> str | None:
    """Return what runs must have in common to be trained side by side, or ``None`` where a run trains by itself.

    Small networks of one architecture, with batches of the same size from equally large data sets; everything else may
    differ: seeds, learning rates, decay rules, schedules, lengths.

    Args:
        config: The run's settings.
        device: Where it is trained.
    """
    if not isinstance(config, VisionRun) or device != "cpu":
        return None
    model = config.model
    plain = (config.precision, config.weights, config.compile, config.accumulation) == ("float32", "float32", False, 1)
    small = (
        model.architecture in ARCHITECTURES
        and ARCHITECTURES[model.architecture].batched
        and flops_per_step(config) < _SMALL
    )
    if not (plain and small and model.width % _CHANNELS == 0):
        return None
    if any("microbatches" in row.needs for row in rows(config.probes.names)):
        return None  # their gradients are told apart by hooks on a backward pass of the run's own
    data = config.data
    return json.dumps([encode(model), data.dataset, data.train_size, data.parity, config.batch_size])
