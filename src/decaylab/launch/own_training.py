"""Training functions of the user's: called with what they take, and their answer as an outcome."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from decaylab.errors import DecaylabError
from decaylab.references import described
from decaylab.serialization import decode
from decaylab.train.outcome import Outcome


def adapted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a training function as a worker calls it.

    It is called with those of these arguments that it has:

    - ``config``: the run's settings, as a mapping or, where the argument is annotated with a dataclass, as that;
    - ``record``: takes ``{"step": 10, "val/loss": 0.3, ...}``;
    - ``heartbeat``: called with the step and the total of steps, shows progress; it returns False when the run shall
      stop: then return ``Outcome(status="interrupted")``, and go on from ``folder`` the next time;
    - ``folder``, for files of its own, and ``device``;
    - ``resume``, ``resolve`` and ``ledger``, as `decaylab.train.fit.fit` takes them.

    It returns an `Outcome`; or a mapping with final values or None, for a run that is done.

    Args:
        function: The function.

    Raises:
        DecaylabError: It cannot be called so.
    """
    if not callable(function):
        raise DecaylabError(f"{function!r} trains nothing: expected a function that takes config and record")
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = {p.name for p in parameters}
    unknown = [p.name for p in parameters if p.default is p.empty and p.name not in _GIVEN and p.kind in _NAMED]
    if unknown:
        name = getattr(function, "__qualname__", repr(function))
        raise DecaylabError(f"{name} has the argument {unknown[0]!r}; a training function may take {', '.join(_GIVEN)}")
    kind = _config_class(function)

    @functools.wraps(function)
    def train(config: Mapping[str, Any], record: Callable[[Mapping[str, Any]], None], **options: Any) -> Any:
        last = {"step": 0}

        def recorded(values: Mapping[str, Any]) -> None:
            last["step"] = max(last["step"], int(values.get("step", 0)))
            record(values)

        given = {"config": config if kind is None else decode(kind, dict(config)), "record": recorded, **options}
        found = function(**{name: value for name, value in given.items() if takes_all or name in names})
        if found is None or isinstance(found, Mapping):
            return Outcome(status="done", steps=last["step"], summary=dict(found or {}))
        if not all(hasattr(found, name) for name in ("status", "reason", "steps", "summary")):
            raise DecaylabError(
                f"the training function returned {type(found).__name__}: expected Outcome, mapping or None"
            )
        return found

    return train


_GIVEN = ("config", "record", "folder", "device", "heartbeat", "resume", "resolve", "ledger")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _config_class(function: Callable[..., Any]) -> type[Any] | None:
    """Return the dataclass with which a function annotates its config."""
    try:
        hint = typing.get_type_hints(function).get("config")
    except NameError as error:
        raise DecaylabError(f"the annotations of {function.__qualname__} cannot be read: {described(error)}") from error
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None
