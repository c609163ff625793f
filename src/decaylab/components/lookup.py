"""A component by its name: a row of decaylab's own, one of an installed plugin, or an object of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from decaylab.errors import DecaylabError, unknown
from decaylab.references import described, is_reference, load, plugins

Row = TypeVar("Row")
Builder = str | Callable[..., Any]
"""What makes a component: ``module:NAME``, imported when it is called, or the callable itself."""
Options = Iterable[tuple[str, Any]]
"""Settings of a component of the user's, by name."""


def index(rows: Iterable[Any]) -> dict[str, Any]:
    """Return rows by name.

    Raises:
        ValueError: Two have the same name.
    """
    found: dict[str, Any] = {}
    for row in rows:
        if row.name in found:
            raise ValueError(f"{row.name!r} is there twice")
        found[row.name] = row
    return found


def find(
    kind: str, name: str, table: Mapping[str, Row], adopt: Callable[[str, Any], Row], *, forms: Iterable[str] = ()
) -> Row:
    """Return the row of a component.

    Args:
        kind: What it is; entry points of plugins are called ``KIND.NAME``.
        name: A name in the table, that of a plugin, ``package.module:name`` or ``path/to/file.py:name``.
        table: decaylab's own rows.
        adopt: Makes a row of an object that a reference names.
        forms: What else a name may be, for messages.

    Raises:
        DecaylabError: There is none, it cannot be imported, or it is nothing of this kind.
    """
    if name in table:
        return table[name]
    if is_reference(name):
        return adopt(name, load(name))
    offered = plugins(kind)
    if name in offered:
        return adopt(name, load(offered[name]))
    word = {"dataset": "data set"}.get(kind, kind)
    raise unknown(word, name, [*table, *offered, *forms, "package.module:name"])


def require(kind: str, name: str, table: Mapping[str, Any], *, called: str) -> None:
    """Return when a name is known, or is that of an object of the user's; nothing is imported.

    Args:
        kind: See `find`.
        name: The name.
        table: decaylab's own rows.
        called: What a message calls the name.

    Raises:
        DecaylabError: It is neither; the message has near matches.
    """
    if name not in table and not is_reference(name) and name not in (offered := plugins(kind)):
        raise unknown(called, name, [*table, *offered, "package.module:name"])


def first_line(found: Any) -> str:
    """Return the first line of an object's docstring."""
    return (found.__doc__ or "").strip().partition("\n")[0]


def built(builder: Builder) -> Callable[..., Any]:
    """Return the callable of a builder; this may import torch."""
    return load(builder) if isinstance(builder, str) else builder


def fitting(
    function: Callable[..., Any],
    name: str,
    facts: Mapping[str, Any],
    options: Options = (),
    first: tuple[Any, ...] = (),
) -> Any:
    """Call a function of the user's with those facts that its signature has, and with all options.

    Args:
        function: What is called.
        name: What the user calls it, for messages.
        facts: What it may take, by name.
        options: What it must take: what the user has set for it.
        first: What it takes before these, by position.

    Raises:
        DecaylabError: It does not take an option, needs something that is not among the facts, or fails.
    """
    named, anything = parameters(function)
    named = named[len(first) :]
    chosen = dict(options)
    for option in chosen:
        if option not in named and not anything:
            raise unknown(f"option of {name}", option, named)
    given = {n: value for n, value in facts.items() if n in named} | chosen
    try:
        if named:
            inspect.signature(function).bind(*first, **given)
    except TypeError as error:
        raise DecaylabError(
            f"{name} cannot be called with what decaylab knows: {error}; give it a default, or set it in options"
        ) from error
    try:
        return function(*first, **given)
    except DecaylabError:
        raise
    except Exception as error:
        raise DecaylabError(f"{name} failed: {described(error)}; --debug shows where") from error


def parameters(function: Callable[..., Any]) -> tuple[list[str], bool]:
    """Return the names of the arguments that a function takes, in order, and whether it takes any other by name."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return [], True
    named = [p.name for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return named, any(p.kind is p.VAR_KEYWORD for p in known)
