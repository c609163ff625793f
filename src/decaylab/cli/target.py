"""Models, optimizers and other objects of the user's, named on the command line."""

from __future__ import annotations

import inspect
from typing import Any

from decaylab.errors import DecaylabError
from decaylab.references import described, load


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
        raise DecaylabError(f"{target} failed: {described(error)}; --debug shows where") from error
