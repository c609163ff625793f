"""Frozen dataclasses to JSON and back, refusing what does not belong."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from decaylab.errors import DecaylabError, shown, unknown

T = TypeVar("T")
_LARGEST_FILE = 64 * 2**20


def encode(value: Any) -> Any:
    """Turn a dataclass into JSON values: nested mappings, lists, numbers, strings, booleans, null."""
    names = _names(type(value))
    if names is not None:
        return {name: encode(getattr(value, name)) for name in names}
    return [encode(v) for v in value] if isinstance(value, tuple) else value


# Ids are computed by the thousand, and asking a dataclass for its fields is most of the work.
_NAMES: dict[type, tuple[str, ...] | None] = {}


def _names(cls: type) -> tuple[str, ...] | None:
    """Return the fields of a dataclass; None for any other type."""
    if cls not in _NAMES:
        _NAMES[cls] = tuple(f.name for f in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else None
    return _NAMES[cls]


def changes(value: Any, base: Any) -> Any:
    """Encode only what differs between two instances of one dataclass.

    1 and 1.0 are the same setting, so whole numbers are written alike wherever they come from.
    """
    names = _names(type(value))
    if names is None:
        return canonical(encode(value))
    if type(value) is not type(base):
        return {name: canonical(v) for name, v in encode(value).items()}
    pairs = ((name, getattr(value, name), getattr(base, name)) for name in names)
    return {name: changes(new, old) for name, new, old in pairs if new is not old and new != old}


def canonical(value: Any) -> Any:
    """Write whole numbers alike, 1 and 1.0, wherever in a JSON value they are."""
    if isinstance(value, list):
        return [canonical(v) for v in value]
    if isinstance(value, dict):
        return {key: canonical(v) for key, v in value.items()}
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def decode(cls: type[T], content: Any, path: str = "", base: T | None = None) -> T:
    """Build ``cls`` from JSON values.

    Args:
        cls: A dataclass.
        content: A mapping with the fields that differ from the defaults, or all of them.
        path: Where in the whole configuration this is, for messages.
        base: Where the fields that are left out come from; the class's own defaults if there is none.

    Raises:
        DecaylabError: An unknown key (with near matches), a missing one, or a value of the wrong type.
    """
    if not isinstance(content, dict):
        raise DecaylabError(f"{path.rstrip('.') or cls.__name__}: expected settings in braces, got {shown(content)}")
    hints = get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in content:
        if key not in names:
            raise unknown("setting", f"{path}{shown(key, quoted=False)}", [f"{path}{name}" for name in names])
    defaults = {item.name: _default(item) for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if base is not None:
        defaults = {name: getattr(base, name) for name in names}
    values = {key: _decode(hints[key], value, f"{path}{key}", defaults[key]) for key, value in content.items()}
    values = defaults | values
    missing = [name for name, value in values.items() if value is dataclasses.MISSING]
    if missing:
        raise DecaylabError(f"{path}{missing[0]} is missing; give it a value")
    return cls(**values)


def _decode(hint: Any, value: Any, path: str, default: Any = None) -> Any:
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        base = default if isinstance(default, hint) else None  # type: ignore[arg-type]
        return decode(hint, value, f"{path}.", base)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(hint), value, path)
    if origin is Literal:
        if value not in get_args(hint):
            raise unknown(f"value for {path}", shown(value, quoted=False), [str(choice) for choice in get_args(hint)])
        return value
    if origin is tuple:
        return _decode_tuple(get_args(hint), value, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise DecaylabError(f"{path} must be {hint.__name__}, not {shown(value)}")


def _decode_union(choices: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    # An exact type first, so that a whole number stays one where both int and float are allowed.
    for choice in choices:
        if isinstance(choice, type) and type(value) is choice:
            return value
    errors = []
    for choice in choices:
        if choice is not type(None):
            try:
                return _decode(choice, value, path)
            except DecaylabError as error:
                errors.append(error)
    raise errors[0]


def _decode_tuple(items: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise DecaylabError(f"{path} must be a list, not {shown(value)}")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_decode(items[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if len(items) != len(value):
        raise DecaylabError(f"{path} must have {len(items)} entries, not {len(value)}")
    return tuple(_decode(item, v, f"{path}[{i}]") for i, (item, v) in enumerate(zip(items, value, strict=True)))


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        expected: What it should hold, for the message (``"a model's settings"``).

    Raises:
        DecaylabError: It is missing, unreadable, larger than 64 MiB, not UTF-8, not JSON, nested too deeply, or has a
            number of thousands of digits.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise DecaylabError(f"{path} has {path.stat().st_size:,} bytes: expected {expected} as JSON")
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise DecaylabError(f"{path} is missing: expected {expected} as JSON") from None
    except OSError as error:
        raise DecaylabError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise DecaylabError(f"{path} is damaged ({json_fault(error)}); expected {expected} as JSON") from None


def read_object(path: Path, expected: str) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        DecaylabError: See `read_json`; or it holds something else.
    """
    content = read_json(path, expected)
    if not isinstance(content, dict):
        raise DecaylabError(f"{path} is damaged (it holds {shown(content)}); expected {expected} as JSON")
    return content


def json_fault(error: BaseException) -> str:
    """Return what is wrong with a text that could not be read as JSON, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} in line {error.lineno}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} at byte {error.start}"
    if isinstance(error, ValueError):  # Python refuses to turn thousands of digits into a number
        return "a number has too many digits"
    return "nested too deeply"
