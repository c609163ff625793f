"""Could a run ever fit into the memory of its device? A bound from below, asked before it enters the store."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torch import nn

from decaylab.components import LANGUAGE_ARCHITECTURES, image_data, optimizer
from decaylab.config.schema import AnyRun, LanguageRun, VisionRun
from decaylab.errors import DecaylabError
from decaylab.train.build import language_model, vision_model

_CGROUP = Path("/sys/fs/cgroup/memory.max")


def require_memory(
    config: AnyRun, vocab_size: int, device: str, *, processes: int = 1, image: tuple[int, int] | None = None
) -> None:
    """Return unless a run is sure not to fit.

    Args:
        config: The run's settings.
        vocab_size: The tokenizer's; 0 for images.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        processes: Processes that share the batch and, at most, the weights.
        image: Channels and width of an image, where the data set's row does not say.

    Raises:
        DecaylabError: It needs more than there is; the message names what most of it is for.
    """
    parts = least_memory(config, vocab_size, processes=processes, image=image)
    needed, (where, there) = sum(parts.values()), _memory(device)
    if needed > there:
        largest = max(parts, key=lambda name: parts[name])
        smaller = "make that smaller" + (", or take --preset small" if isinstance(config, LanguageRun) else "")
        raise DecaylabError(
            f"this run needs at least {_written(needed)} of memory and {where} has {_written(there)}; most of it is "
            f"for {largest}: {smaller}"
        )


def least_memory(
    config: AnyRun, vocab_size: int, *, processes: int = 1, image: tuple[int, int] | None = None
) -> dict[str, int]:
    """Return bytes that a run cannot do without, by what they are for.

    Only what is certain is counted: weights, gradients and the optimizer's state, what the backward pass of one
    micro-batch has to keep of each layer, and the logits.
    """
    rows = max(1, config.batch_size // config.accumulation // processes)
    weight = 2 if config.weights == "bfloat16" else 4
    number = 4 if config.precision == "float32" else 2
    each = 2 * weight + weight * optimizer(config.optimizer.name).state_per_weight(config.optimizer)
    if isinstance(config, VisionRun):
        row = image_data(config.data.dataset)
        channels, side = image or (row.channels or 1, row.image_size or 1)
        size = _num_weights(lambda: vision_model(config.model, 10, channels, side))
        rows = min(rows, config.data.train_size or 50_000)
        return {
            f"{size:,} weights (--model.width, --model.blocks)": size * each // processes,
            "the images and first outputs (--batch-size / --accumulation x --model.width)": number
            * rows
            * side**2
            * (channels + config.model.width),
        }
    return _language_memory(config, config.model.vocab_size or vocab_size, rows, each // processes, number)


def _language_memory(config: LanguageRun, vocabulary: int, rows: int, each: int, number: int) -> dict[str, int]:
    model, evaluation = config.model, config.evaluation
    length, width = model.context, model.width
    if model.architecture not in LANGUAGE_ARCHITECTURES:  # of which only the weights are known
        size = _num_weights(lambda: language_model(model, vocabulary))
        return {f"{size:,} weights (--model.width)": size * each}
    size = (1 if model.tied else 2) * vocabulary * width + length * width + model.num_layers * 12 * width**2
    tokens = rows * length
    kept = 10 * width * tokens + (model.num_heads * length * tokens if model.attention == "math" else 0)
    return {
        f"{size:,} weights (--model.num-layers x --model.width^2, vocabulary x --model.width)": size * each,
        "the attention mask (--model.context^2)": 8 * length**2,
        "the layers' outputs (--batch-size / --accumulation x --model.context x --model.width x layers)": number
        * model.num_layers
        * kept,
        "the logits (--batch-size / --accumulation x --model.context x vocabulary)": 2 * number * tokens * vocabulary,
        "the data of evaluations (--evaluation.batches x --evaluation.batch-size x --model.context)": 32
        * evaluation.batches
        * evaluation.batch_size
        * length,
    }


def _num_weights(build: Callable[[], nn.Module]) -> int:
    """Count the weights of a model without making them; 0 for one of the user's that cannot be built that way."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in build().parameters())
    except (NotImplementedError, RuntimeError):
        return 0


def _memory(device: str) -> tuple[str, float]:
    """Return the name of a device's memory and its size in bytes; without end where nobody can say."""
    if device.startswith("cuda") or (device == "auto" and torch.cuda.device_count()):
        number = int(device.partition(":")[2] or os.environ.get("LOCAL_RANK", "0"))
        # A process of its own: a launcher that asks the driver itself would hold a part of the GPU while others train.
        question = f"import torch; print(torch.cuda.get_device_properties({number}).total_memory)"
        answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False).stdout
        return f"GPU {number}", int(answer) if answer.strip().isdecimal() else math.inf
    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        total = min(total, int(_CGROUP.read_text()))
    return "this machine", total + int(psutil.swap_memory().total)


def _written(size: float) -> str:
    amount = float(size)
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} EB"
