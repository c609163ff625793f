"""Configurations of one's own: any frozen dataclass or mapping, as JSON and as a run's id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from decaylab.errors import DecaylabError, shown
from decaylab.serialization import canonical, encode


def own_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as JSON values.

    Args:
        config: A frozen dataclass, whose fields may be others, or a mapping of JSON values.

    Raises:
        DecaylabError: It is neither, or holds something that JSON has not.
    """
    if isinstance(config, Mapping):
        content = {str(key): value for key, value in config.items()}
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        content = encode(config)
    else:
        raise DecaylabError(f"a run's config is a frozen dataclass or a mapping, not {shown(config)}")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DecaylabError(f"a run's config holds what JSON has not: {error}") from error
    return plain


def own_id(config: Any, trainer: str, version: int = 1) -> str:
    """Return the id of a run that a function of the user's trains: 16 hexadecimal digits.

    Hashed are the function's name, the settings that differ from their dataclass's defaults (of a mapping all), and the
    experiment's version, so that a setting added later, with a default, leaves the ids of earlier runs alone.

    Args:
        config: See `own_dict`.
        trainer: Name of the function, without the folder of its file.
        version: Raise it when the function changes: its code is not part of the id.
    """
    content = own_dict(config)
    if dataclasses.is_dataclass(config):
        content = _changed(config, content)
    whole = {"trainer": trainer, "config": canonical(content), **({"version": version} if version != 1 else {})}
    return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _changed(config: Any, content: dict[str, Any]) -> dict[str, Any]:
    """Leave out the fields that have their default."""
    left = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        default = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        if default is not dataclasses.MISSING and value == default:
            continue
        nested = dataclasses.is_dataclass(value)
        left[item.name] = _changed(value, content[item.name]) if nested else content[item.name]
    return left
