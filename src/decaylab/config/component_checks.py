"""Checks of the components that a run names: do they exist, do they have these settings, do they fit each other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from decaylab.components.architectures import ARCHITECTURES, LANGUAGE_ARCHITECTURES, architecture
from decaylab.components.datasets import IMAGE_DATA, image_data
from decaylab.components.lookup import require
from decaylab.components.optimizers import OPTIMIZERS, SOME_HAVE, optimizer
from decaylab.errors import DecaylabError

if TYPE_CHECKING:
    from decaylab.config.schema import AnyRun, LanguageRun, VisionRun


def check_names(config: AnyRun) -> None:
    """Refuse the name of a component that does not exist; those of the user's are not imported for that.

    Raises:
        DecaylabError: There is no such optimizer, architecture or data set; or one of decaylab's own was given options.
    """
    require("optimizer", config.optimizer.name, OPTIMIZERS, called="value for optimizer.name")
    vision = hasattr(config.data, "dataset")
    tables = ARCHITECTURES if vision else LANGUAGE_ARCHITECTURES
    require("architecture", config.model.architecture, tables, called="value for model.architecture")
    parts: list[tuple[str, str, Any]] = [
        ("optimizer", config.optimizer.name, config.optimizer),
        ("model", config.model.architecture, config.model),
    ]
    own = {**OPTIMIZERS, **tables}
    if vision:
        dataset: str = config.data.dataset  # type: ignore[union-attr]
        require("dataset", dataset, IMAGE_DATA, called="value for data.dataset")
        parts.append(("data", dataset, config.data))
        own = {**own, **IMAGE_DATA}
    for part, name, settings in parts:
        if settings.options and name in own:
            raise DecaylabError(f"{part}.options are for components of your own: {name} has none beside {part}'s flags")


def check_optimizer(config: AnyRun) -> None:
    """Refuse settings that the optimizer has not: they would change the run's id and nothing else.

    Asked of new runs only: what was trained with such settings stays readable.

    Raises:
        DecaylabError: See the message.
    """
    settings = config.optimizer
    row = optimizer(settings.name)
    for field in dataclasses.fields(settings):
        unused = field.name in SOME_HAVE and field.name not in row.settings
        if unused and getattr(settings, field.name) != field.default:
            owners = " and ".join(name for name, other in OPTIMIZERS.items() if field.name in other.settings)
            raise DecaylabError(
                f"optimizer.{field.name} is for {owners}; {settings.name} has none: set it to {field.default}"
            )
    if (wrong := row.check(settings)) is not None:
        raise DecaylabError(wrong)


def check_images(config: VisionRun) -> None:
    """Refuse a network for other images, and settings that it does not have; components of the user's are not imported.

    Raises:
        DecaylabError: See the message.
    """
    model, data = config.model, config.data
    if model.architecture not in ARCHITECTURES:
        return
    row = architecture(model.architecture)
    if model.scale_invariant and not row.reads("scale_invariant"):
        raise DecaylabError(f"scale_invariant is for residual networks, not {model.architecture}")
    side = image_data(data.dataset).image_size if data.dataset in IMAGE_DATA else None
    if None not in (row.image_size, side) and row.image_size != side:
        raise DecaylabError(
            f"{model.architecture} takes images of {row.image_size} x {row.image_size} pixels, those of {data.dataset} "
            f"have {side} x {side}: use {row.instead}, or other data"
        )


def check_transformer(config: LanguageRun) -> None:
    """Refuse sizes that do not fit each other.

    Raises:
        DecaylabError: See the message.
    """
    model = config.model
    if model.architecture in LANGUAGE_ARCHITECTURES and model.width % model.num_heads:
        raise DecaylabError(f"width {model.width} is not a multiple of num_heads {model.num_heads}")
