"""References to Python objects outside the package: ``package.module:name``, ``path/to/file.py:name``, plugins."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from decaylab.errors import DecaylabError, unknown
from decaylab.extras import missing_extra

_FILE_PREFIX = "decaylab_file_"  # of the modules that files are loaded as
GROUP = "decaylab.plugins"
"""Entry points of installed packages; one is called ``KIND.NAME``, such as ``rule.halves``."""


def is_reference(name: str) -> bool:
    """Whether a name is a reference to an object rather than a name in one of decaylab's tables."""
    return ":" in name or is_file(name)


def is_file(name: str) -> bool:
    """Whether a name is that of a Python file."""
    return name.endswith(".py")


def load(target: str, *, default: str | None = None) -> Any:
    """Import what a reference names.

    The folder of the call is searched first, as ``python -m`` does; a file's own folder is searched for what the file
    imports, as ``python FILE`` does.

    Args:
        target: ``package.module:name``, ``path/to/file.py:name`` (the name may have dots), or ``package.module.name``.
        default: The name where the target has none: then ``package.module`` and ``path/to/file.py`` will do.

    Raises:
        DecaylabError: The target has no such form, cannot be imported, or has no such name.
    """
    place, colon, attribute = target.rpartition(":") if ":" in target else (target, "", "")
    if not colon and default is not None:
        attribute = default
    elif not colon and not is_file(target):
        place, _, attribute = target.rpartition(".")
    if not place or not attribute:
        raise DecaylabError(f"{target!r} is not of the form package.module:name or path/to/file.py:name")
    found: Any = _file(place, target) if is_file(place) else _module(place, target)
    for name in attribute.split("."):
        if not hasattr(found, name):
            known = [known for known in dir(found) if not known.startswith("_")]
            raise unknown(f"name in {place}", name, known)
        found = getattr(found, name)
    return found


def file_reference(name: str) -> str:
    """Return a reference to a file without the file's folder; other names as they are."""
    place, colon, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    return f"{Path(place).name}{colon}{attribute}" if is_file(place) else name


def reference_to(function: Callable[..., Any] | str) -> str:
    """Return the reference that leads to a function from another process.

    Args:
        function: A function at the top of a module or file, or a reference already.

    Raises:
        DecaylabError: Another process could not find it by its name.
    """
    if isinstance(function, str):
        return absolute_reference(function)
    name, module = getattr(function, "__qualname__", ""), sys.modules.get(getattr(function, "__module__", ""))
    if module is None or not name or "<" in name:
        raise DecaylabError(f"{function!r} has no name at the top of a module, by which a worker process could find it")
    file = getattr(module, "__file__", None)
    by_file = file is not None and (module.__name__ == "__main__" or module.__name__.startswith(_FILE_PREFIX))
    return f"{os.path.abspath(str(file)) if by_file else module.__name__}:{name}"


def absolute_reference(name: str) -> str:
    """Return a reference to a file with the file's absolute path; other names as they are."""
    place, colon, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    return f"{os.path.abspath(Path(place).expanduser())}{colon}{attribute}" if is_file(place) else name


def source_file(name: str) -> Path | None:
    """Return the file that a reference leads to; None for an installed package's, or where there is none.

    Nothing is imported but the packages around a module.

    Raises:
        DecaylabError: There is no such file or module.
    """
    place = name.rpartition(":")[0] if ":" in name else name
    if is_file(place):
        path = Path(place).expanduser()
        if not path.is_file():
            raise DecaylabError(f"there is no file {place}")
        return path
    _search_here()
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise DecaylabError(f"cannot import {place!r} for {name!r}: No module named {place!r}")
    if spec.origin is None or not spec.has_location:
        return None
    installed = [sysconfig.get_path(key) for key in ("purelib", "platlib", "stdlib", "platstdlib")]
    return None if any(Path(spec.origin).is_relative_to(folder) for folder in installed) else Path(spec.origin)


def plugins(kind: str) -> dict[str, str]:
    """Return the references that installed packages offer under the entry points `GROUP`, by name.

    Nothing of these packages is imported.

    Args:
        kind: ``rule``, ``probe``, ``architecture``, ``dataset``, ``optimizer`` or ``experiment``.
    """
    return {name: value for own, name, value in _entry_points() if own == kind}


@functools.cache
def _entry_points() -> tuple[tuple[str, str, str], ...]:
    points = importlib.metadata.entry_points(group=GROUP)
    return tuple((*point.name.partition(".")[::2], point.value) for point in points)


def _search_here() -> None:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())


def _module(name: str, target: str) -> ModuleType:
    _search_here()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing_extra(error) or DecaylabError(f"cannot import {name!r} for {target!r}: {error}") from error
    except DecaylabError:
        raise
    except Exception as error:
        raise DecaylabError(f"{name} cannot be imported: {described(error)}; --debug shows where") from error


def _file(name: str, target: str) -> ModuleType:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise DecaylabError(f"there is no file {name}")
    # Under a name of its own: a user's json.py must not stand for Python's.
    known_as = f"{_FILE_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if known_as in sys.modules:
        return sys.modules[known_as]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(known_as, path)
    if spec is None or spec.loader is None:
        raise DecaylabError(f"{name} is not a file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[known_as] = module  # dataclasses look their module up while it is being made
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[known_as]
        if isinstance(error, DecaylabError) or not isinstance(error, Exception):
            raise
        raise missing_extra(error) or DecaylabError(
            f"{name} cannot be imported: {described(error)}; --debug shows where"
        ) from error
    return module


def described(error: BaseException) -> str:
    """Return an error's type and message."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
