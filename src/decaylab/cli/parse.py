"""Reading of a command's arguments: tyro parses them, and a refusal is said in one line."""

from __future__ import annotations

import difflib
import functools
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from typing import Any

from decaylab.errors import DecaylabError, shown, unknown

_LISTED = 12  # options that one line has room for
_NEAR = 3
# What people call an option elsewhere.
_SYNONYMS = {"lambda": "weight-decay", "decay": "weight-decay", "learning-rate": "lr", "batch": "batch-size"}


def parse(target: Callable[..., Any], arguments: Sequence[str], *, prog: str, **options: Any) -> Any:
    """Read the arguments of a command.

    Args:
        target: What takes them: a dataclass, or a function, which is not called yet.
        arguments: The words after the command's name.
        prog: What the command is called, for messages and the help.
        options: Further options of ``tyro.cli``.

    Returns:
        The dataclass's instance; or, for a function, the call as a function without arguments.

    Raises:
        DecaylabError: The arguments do not fit; the one line says which one and what would.
        SystemExit: After ``--help``.
    """
    import tyro

    deferred = _deferred(target)
    words = list(arguments)

    def refuse(event: Any) -> None:
        known = _options(tyro.extras.get_parser(deferred, prog=prog, **options))
        raise _refusal(event, words, known, prog)

    heard = io.StringIO()
    try:
        with _hook(refuse), redirect_stderr(heard):
            parsed = tyro.cli(deferred, prog=prog, args=words, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        text = " ".join(word for word in heard.getvalue().split() if any(map(str.isalnum, word)))
        raise DecaylabError(f"{text or 'the arguments do not fit'}; {_hint(prog)}") from None
    sys.stderr.write(heard.getvalue())  # a warning, if anything
    return parsed


def _hook(refuse: Callable[[Any], None]) -> Any:
    """Have tyro give its refusals as data: a private part of it, so pyproject.toml names the versions."""
    from tyro import _errors

    return _errors.on_parse_error(refuse)


def _deferred(target: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function give its call instead of its result, so that what it prints is not taken for an objection."""
    if isinstance(target, type):
        return target

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(target, *args, **kwargs)

    return call


def _options(parser: Any) -> list[str]:
    """Return the options of a command, in the order of its help."""
    return [flag for flag in parser._option_string_actions if flag.startswith("--") and flag != "--help"]


def _hint(prog: str) -> str:
    return f"`{prog} --help` lists what it takes"


def _refusal(event: Any, arguments: Sequence[str], known: Sequence[str], prog: str) -> DecaylabError:
    """Say in one line why arguments were refused; see `tyro._errors` for the kinds of events."""
    hint = _hint(prog)
    for argument in arguments:  # a misspelled option may also leave another one without its value
        if argument == "--":
            break
        flag = argument.partition("=")[0]
        if _looks_like_option(flag) and flag.replace("_", "-") not in known and not _negation(flag, known):
            return _unknown_option(flag, known, hint)
    match type(event).__name__:
        case "InvalidChoice":
            return unknown(f"value for {event.argument.display_name()}", event.value, map(str, event.choices))
        case "BadValue" if event.reason == "too_few_values":
            count = event.argument.lowered.nargs
            values = f"{count} values" if isinstance(count, int) and count > 1 else "a value"
            return DecaylabError(f"{event.argument.display_name()} needs {values}; {hint}")
        case "MissingArgs":
            missing = [each.arg.get_invocation_text()[1].as_str_no_ansi() for each in event.missing_arguments]
            return DecaylabError(f"{prog} needs {' and '.join(missing)}; {hint}")
        case "UnrecognizedArgs":
            word = event.tokens[0]
            before = arguments[arguments.index(word) - 1] if word in list(arguments)[1:] else ""
            behind = f"behind {before}" if before.startswith("--") else f"for `{prog}`"
            return DecaylabError(f"{shown(word)} is one word too many {behind}; {hint}")
        case "InstantiationFailure" if event.argument is not None:
            name = event.argument.display_name()
            form = event.argument.get_invocation_text()[1].as_str_no_ansi()
            if given := _given(arguments, name):
                return DecaylabError(f"{name} cannot be {shown(given)}: expected {form}; {hint}")
            return DecaylabError(f"{name}: {event.message}; {hint}")
        case "InstantiationFailure":
            return DecaylabError(f"{event.message}; {hint}")
    return DecaylabError(f"the arguments do not fit; {hint}")


def _looks_like_option(word: str) -> bool:
    return word.startswith("--") and word[2:3].isalpha() and " " not in word


def _negation(flag: str, known: Sequence[str]) -> bool:
    """Whether a flag is ``--part.no-name`` of an option."""
    head, dot, last = flag.lstrip("-").replace("_", "-").rpartition(".")
    return last.startswith("no-") and f"--{head}{dot}{last.removeprefix('no-')}" in known


def _unknown_option(flag: str, known: Sequence[str], hint: str) -> DecaylabError:
    message = f"unknown option {shown(flag)}"
    if near := _near(flag, known):
        return DecaylabError(f"{message}; did you mean {' or '.join(near)}? {hint}")
    return DecaylabError(f"{message}; known: {', '.join(known)}" if len(known) <= _LISTED else f"{message}; {hint}")


def _near(flag: str, known: Iterable[str]) -> list[str]:
    """Return options that somebody may have meant: of the same last part, its initials, or nearly its letters."""
    names: dict[str, list[str]] = {}
    for option in known:
        names.setdefault(_last(option), []).append(option)
    wanted = _last(flag.replace("_", "-").lower())
    wanted = wanted if wanted in names else _SYNONYMS.get(wanted, wanted)
    if wanted in names:
        return names[wanted][:_NEAR]
    initials = [
        name for name in names if "-" in name and "".join(part[0] for part in name.split("-") if part) == wanted
    ]
    if initials:
        return [option for name in initials for option in names[name]][:_NEAR]
    if len(wanted) < 3:  # two letters are near to everything
        return []
    whole = difflib.get_close_matches(flag, list(known), n=_NEAR, cutoff=0.6)
    parts = difflib.get_close_matches(wanted, names, n=_NEAR, cutoff=0.6)
    return list(dict.fromkeys([*(option for part in parts for option in names[part]), *whole]))[:_NEAR]


def _last(option: str) -> str:
    return option.lstrip("-").rsplit(".", 1)[-1]


def _given(arguments: Sequence[str], flag: str) -> str:
    """Return what stands behind a flag, up to the next one."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == flag:
            rest = list(arguments[position + 1 :])
            end = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
            return " ".join(([value] if equals else []) + rest[:end])
    return ""
