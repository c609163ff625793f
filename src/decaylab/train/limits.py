"""Which settings cannot be trained? Asked before anything is built. Nothing here imports torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from decaylab.errors import DecaylabError

if TYPE_CHECKING:
    from decaylab.train.config import AnyRun


def check(config: AnyRun) -> None:
    """Refuse settings that cannot be trained, with one line that says which and why.

    Raises:
        DecaylabError: See the message.
    """
    from decaylab.train.config import LanguageRun, VisionRun  # which reads settings, and checks them when it has

    lr, weight_decay = config.optimizer.lr, config.decay.weight_decay
    length = config.epochs if isinstance(config, VisionRun) else config.steps
    positive = {
        "optimizer.lr": lr,
        "batch_size": config.batch_size,
        "accumulation": config.accumulation,
        "evaluation.every": config.evaluation.every,
        "evaluation.batch_size": config.evaluation.batch_size,
        "evaluation.prompt_tokens": config.evaluation.prompt_tokens,
        "evaluation.top_k": config.evaluation.top_k or 1,
        "probes.every": config.probes.every,
        "epochs" if isinstance(config, VisionRun) else "steps": length,
    }
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise DecaylabError(f"{name} must be positive and finite, not {value}")
    if not 0 <= weight_decay < math.inf:
        raise DecaylabError(f"decay.weight_decay must be finite and not negative, it is {weight_decay}")
    if config.decay.rule in ("l2", "decoupled") and lr * weight_decay >= 1:
        raise DecaylabError(
            f"lr x weight decay is {lr * weight_decay:g}, so one step would flip or erase the weights; keep it below 1"
        )
    if config.batch_size % config.accumulation:
        raise DecaylabError(f"batch_size {config.batch_size} is not a multiple of accumulation {config.accumulation}")
    if not config.evaluation.temperature >= 0:
        raise DecaylabError(f"evaluation.temperature must not be negative, it is {config.evaluation.temperature}")
    if config.evaluation.prompt == "":
        raise DecaylabError("evaluation.prompt is empty: give at least one character, or leave it out")
    for coefficient in config.averages.ema:
        if not 0 < coefficient < 1:
            raise DecaylabError(f"averages.ema coefficients lie between 0 and 1, not {coefficient}")
    if config.init_from is not None and not config.init_from.run.removeprefix("hf:"):
        raise DecaylabError("init_from.run is missing: give a run's id, or hf:FOLDER")
    if config.stochastic_rounding and config.weights != "bfloat16":
        raise DecaylabError("stochastic_rounding needs weights = bfloat16")
    if isinstance(config, LanguageRun) and config.model.width % config.model.num_heads:
        raise DecaylabError(f"width {config.model.width} is not a multiple of num_heads {config.model.num_heads}")
    if isinstance(config, VisionRun):
        if not 0 <= config.data.label_noise < 1:
            raise DecaylabError(f"data.label_noise is a share from 0 to 1, not {config.data.label_noise}")
        if config.model.scale_invariant and not config.model.architecture.startswith("resnet"):
            raise DecaylabError(f"scale_invariant is for residual networks, not {config.model.architecture}")
        if config.evaluation.text_file is not None or config.evaluation.prompt is not None:
            raise DecaylabError("evaluation.text_file and evaluation.prompt are for language runs")
