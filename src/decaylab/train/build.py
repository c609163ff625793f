"""From settings to objects: the model, the optimizer and its decay rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from decaylab import decay, models
from decaylab.config.schema import AnyRun, Decay, LanguageModel, VisionModel
from decaylab.config.validation import LOSS_PENALTIES as LOSS_PENALTIES
from decaylab.errors import DecaylabError, unknown
from decaylab.params import ROLES, roles
from decaylab.train.signsgd import SignSGD


def vision_model(config: VisionModel, num_classes: int, in_channels: int) -> nn.Module:
    """Build an image classifier with fresh random weights."""
    shape: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "width": config.width}
    match config.architecture:
        case "vgg16" | "vgg16_bn":
            return models.vgg16(batch_norm=config.architecture == "vgg16_bn", activation=config.activation, **shape)
        case "vgg_small":
            return models.vgg_small(activation=config.activation, **shape)
        case "resnet_small":
            return models.preact_resnet(
                "small",
                scale_invariant=config.scale_invariant,
                activation=config.activation,
                blocks=config.blocks,
                **shape,
            )
    depth: Literal[18, 34] = 18 if config.architecture == "resnet18" else 34
    return models.preact_resnet(depth, scale_invariant=config.scale_invariant, activation=config.activation, **shape)


def language_model(config: LanguageModel, vocab_size: int) -> nn.Module:
    """Build a transformer with fresh random weights; the settings' own vocabulary size wins over the tokenizer's."""
    settings = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return models.GPT(**(settings | {"vocab_size": embedding_rows(config, vocab_size)}))


def embedding_rows(config: LanguageModel, vocab_size: int) -> int:
    """Return the rows of a model's embedding: its own vocabulary size if it has one, else the tokenizer's.

    Raises:
        DecaylabError: Its own one is the smaller.
    """
    rows = config.vocab_size or vocab_size
    if rows < vocab_size:
        raise DecaylabError(f"model.vocab_size {rows} is below the tokenizer's {vocab_size}: raise it")
    return rows


@dataclass(frozen=True)
class Stepper:
    """An optimizer with its decay, and what the loop needs to know of them.

    Attributes:
        optimizer: The optimizer; its groups carry the decay rule's hooks.
        decayed: The parameters that decay.
        penalty: Factor c of a penalty in the loss whose gradient is c * w, or 0.
    """

    optimizer: torch.optim.Optimizer
    decayed: Sequence[Tensor]
    penalty: float


def stepper(config: AnyRun, model: nn.Module, *, scaled: bool) -> Stepper:
    """Build the optimizer and attach the decay rule.

    Args:
        config: The run's settings.
        model: The model to train.
        scaled: Whether a gradient scaler is in use: then a fused step would show scaled gradients to rules that edit
            them, so the step is not fused.

    Raises:
        DecaylabError: An unknown role, rule or option.
    """
    chosen = decayed_roles(config.decay)
    role_of = roles(model)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decayed = [p for name, p in trainable.items() if role_of[name] in chosen]
    ids = {id(p) for p in decayed}
    rest = [p for p in trainable.values() if id(p) not in ids]
    groups = [{"params": p, "decay": on} for p, on in ((decayed, True), (rest, False)) if p]
    fused = not scaled and all(p.is_floating_point() for p in trainable.values())
    if config.optimizer.name == "sgd" and any(p.device.type == "cpu" and p.itemsize < 4 for p in trainable.values()):
        fused = False  # torch's fused SGD computes wrong updates for bfloat16 and float16 weights on the CPU
    optimizer = _optimizer(config, groups, fused=fused)
    if config.decay.rule in LOSS_PENALTIES:
        return Stepper(optimizer, decayed, LOSS_PENALTIES[config.decay.rule] * config.decay.weight_decay)
    _attach(config.decay, optimizer, decayed)
    return Stepper(optimizer, decayed, 0.0)


def _attach(settings: Decay, optimizer: torch.optim.Optimizer, decayed: list[nn.Parameter]) -> None:
    # A rule of norm control acts at weight_decay 0 too, so only the classic rules are left out there.
    rule = decay.build(settings.rule, weight_decay=settings.weight_decay, **dict(settings.options))
    if decayed and (settings.weight_decay or settings.rule not in ("l2", "decoupled")):
        decay.attach(optimizer, rule, params=decayed)


def try_out(config: AnyRun) -> None:
    """Return when a run's optimizer can be made and takes its decay rule; asked with a single small weight.

    Raises:
        DecaylabError: An unknown role, rule or option, a rule that is not for this optimizer, or one that would take a
            whole weight in one step.
    """
    matrices = decayed_roles(config.decay) - {"norm", "bias", "scalar"}
    weight = nn.Parameter(torch.eye(4) if matrices else torch.ones(4))
    optimizer = _optimizer(config, [{"params": [weight]}], fused=False)
    if config.decay.rule not in LOSS_PENALTIES:
        _attach(config.decay, optimizer, [weight])


def decayed_roles(settings: Decay) -> set[str]:
    """Return the roles that decay.

    Raises:
        DecaylabError: An unknown role.
    """
    for role in settings.roles:  # beside "all", too
        if role not in ROLES and role != "all":
            raise unknown("role", role, [*ROLES, "all"])
    return set(ROLES) if "all" in settings.roles else set(settings.roles)


def _optimizer(config: AnyRun, groups: list[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer:
    settings = config.optimizer
    match settings.name:
        case "sgd":
            return torch.optim.SGD(
                groups, lr=settings.lr, momentum=settings.momentum, dampening=settings.dampening, fused=fused
            )
        case "adamw":
            return torch.optim.AdamW(
                groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=0.0, fused=fused
            )
        case "signsgd":
            return SignSGD(groups, lr=settings.lr, momentum=settings.momentum)
