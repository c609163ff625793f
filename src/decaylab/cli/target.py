"""How a command finds something of the user's in Python: ``package.module:name``, or ``package.module.name``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any

from decaylab.errors import DecaylabError, unknown


def load(target: str) -> Any:
    """Import what ``target`` names; the folder of the call is searched first, as ``python -m`` does.

    Args:
        target: ``package.module:name`` (the name may have dots) or ``package.module.name``.

    Raises:
        DecaylabError: The target has no such form, the module cannot be imported, or it has no such name.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon:
        module_name, _, attribute = target.rpartition(".")
    if not module_name or not attribute:
        raise DecaylabError(f"{target!r} is not of the form package.module:name")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise DecaylabError(f"cannot import {module_name!r} for {target!r}: {error}") from error
    except Exception as error:
        raise DecaylabError(f"{module_name} cannot be imported: {_named(error)}; --debug shows where") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            known = [known for known in dir(found) if not known.startswith("_")]
            raise unknown(f"name in {module_name}", name, known)
        found = getattr(found, name)
    return found


def built(target: str) -> Any:
    """Import what ``target`` names and, if it is a function or a class, return what it gives without arguments.

    Args:
        target: See `load`; a module of torch is taken as it is.

    Raises:
        DecaylabError: See `load`; or it needs arguments, or it fails.
    """
    from torch import nn

    found = load(target)
    if not callable(found) or isinstance(found, nn.Module):
        return found
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError) as error:
        raise DecaylabError(f"{target} must be callable without arguments: {error}") from error
    try:
        return found()
    except Exception as error:
        raise DecaylabError(f"{target} failed: {_named(error)}; --debug shows where") from error


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
