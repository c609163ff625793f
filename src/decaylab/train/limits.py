"""Which settings cannot be trained? Asked before anything is built. Nothing here imports torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from decaylab.errors import DecaylabError

if TYPE_CHECKING:
    from decaylab.train.config import AnyRun


# Penalties in the loss itself, and the factor c of their gradient c * weight_decay * w.
LOSS_PENALTIES = {"loss-l2": 2.0, "loss-l2-half": 1.0}


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
    if (share := _share(config)) >= 1:
        raise DecaylabError(
            f"lr x weight decay is {lr * weight_decay:g}, so one step of {config.decay.rule} would take {share:g} of "
            "each weight away and erase or flip it; lower one of them"
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


def _share(config: AnyRun) -> float:
    """Return which share of each weight a step at the peak learning rate takes; 0 where the product does not tell.

    SGD alone takes a penalty's gradient as it is: Adam and sign descent scale it to steps of bounded size, and so does
    clipping where the penalty is in the loss. Rules with another product (lambda alone, lr^2 lambda, ...) are asked for
    it when they are tried out (`decaylab.train.build.try_out`); those that steer a norm never erase a weight.
    """
    rule = config.decay.rule.replace("_", "-")
    product = config.optimizer.lr * config.decay.weight_decay
    if rule in ("decoupled", "cautious"):
        return product
    if config.optimizer.name != "sgd":
        return 0.0
    if rule in ("l2", "l2-to-anchor"):
        return product
    return LOSS_PENALTIES.get(rule, 0.0) * product if config.optimizer.clip is None else 0.0
