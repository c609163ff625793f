"""From settings to objects: the model, the optimizer and its decay rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from decaylab import decay
from decaylab.components import architecture, optimizer
from decaylab.config.schema import AnyRun, Decay, LanguageModel, VisionModel
from decaylab.config.validation import LOSS_PENALTIES as LOSS_PENALTIES
from decaylab.errors import DecaylabError, unknown
from decaylab.params import ROLES, roles
from decaylab.tensors.norm_trajectory import NormTrajectory


def vision_model(config: VisionModel, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build an image classifier with fresh random weights.

    Raises:
        DecaylabError: There is no such architecture, or it cannot be built.
    """
    row = architecture(config.architecture)
    return _module(
        row.make(config, num_classes=num_classes, in_channels=in_channels, image_size=image_size), config.architecture
    )


def language_model(config: LanguageModel, vocab_size: int) -> nn.Module:
    """Build a language model with fresh random weights; the settings' own vocabulary size wins over the tokenizer's.

    Raises:
        DecaylabError: There is no such architecture, or it cannot be built.
    """
    row = architecture(config.architecture, "language")
    return _module(row.make(config, vocab_size=embedding_rows(config, vocab_size)), config.architecture)


def _module(made: object, name: str) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise DecaylabError(f"{name} gave {type(made).__name__} where a torch module is needed")
    return made


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


def stepper(config: AnyRun, model: nn.Module, *, scaled: bool, norms: NormTrajectory | None = None) -> Stepper:
    """Build the optimizer and attach the decay rule.

    Args:
        config: The run's settings.
        model: The model to train.
        scaled: Whether a gradient scaler is in use: then a fused step would show scaled gradients to rules that edit
            them, so the step is not fused.
        norms: Of the run that ``decay.norms_from`` names; without them that rule is left off.

    Raises:
        DecaylabError: An unknown role, rule or option, or norms of other parameters.
    """
    chosen = decayed_roles(config.decay)
    role_of = roles(model)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decayed = [p for name, p in trainable.items() if role_of[name] in chosen]
    ids = {id(p) for p in decayed}
    rest = [p for p in trainable.values() if id(p) not in ids]
    groups = [{"params": p, "decay": on} for p, on in ((decayed, True), (rest, False)) if p]
    fused = not scaled and all(p.is_floating_point() for p in trainable.values())
    made = _optimizer(config, groups, fused=fused)
    if config.decay.rule in LOSS_PENALTIES:
        return Stepper(made, decayed, LOSS_PENALTIES[config.decay.rule] * config.decay.weight_decay)
    if config.decay.follows_norms:
        if norms is not None and decayed:
            decay.follow_norms(made, model, norms, names=[n for n, p in trainable.items() if id(p) in ids])
    else:
        _attach(config.decay, made, decayed)
    return Stepper(made, decayed, 0.0)


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
    made = _optimizer(config, [{"params": [weight]}], fused=False)
    if config.decay.rule not in LOSS_PENALTIES and not config.decay.follows_norms:
        _attach(config.decay, made, [weight])


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
    made = optimizer(settings.name).make(settings, groups, fused=fused)
    if not isinstance(made, torch.optim.Optimizer):
        raise DecaylabError(f"{settings.name} gave {type(made).__name__} where a torch.optim.Optimizer is needed")
    return made
