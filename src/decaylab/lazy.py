"""Public names of a package that are imported on first use, read from its type stub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lazy_loader

from decaylab.extras import missing_extra


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the ``__getattr__``, ``__dir__`` and ``__all__`` of a package whose names load on first use.

    The names stand once, in the package's ``__init__.pyi``, where type checkers read their types. A package says
    ``__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)``.

    Args:
        package: The package's ``__name__``.
        file: Its ``__file__``.

    Returns:
        The three. The first raises `decaylab.extras.MissingExtra` where a name needs a package that an extra brings.
    """
    load, names, exported = lazy_loader.attach_stub(package, file)

    def __getattr__(name: str) -> Any:
        try:
            return load(name)
        except ModuleNotFoundError as error:
            raise missing_extra(error) or error from error

    return __getattr__, names, exported
