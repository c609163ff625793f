"""How the words of a command line become a call: tyro reads them, and what it objects to is said in one line."""

from __future__ import annotations

import ast
import difflib
import functools
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from decaylab.errors import DecaylabError, unknown

_FLAG = re.compile(r"(?<![\w-])--[a-z](?:[\w.-]*\w)?")
_BORDER = re.compile(r"^[│|]|[\s│|]*$|\x1b\[[0-9;]*m")
_RULE = re.compile(r"[\s╭╰+]*[─-]{3,}[\s╮╯+]*")
_LISTED = 12  # options that one line has room for


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

    reads = functools.partial(tyro.cli, _deferred(target), prog=prog, **options)
    heard = io.StringIO()
    try:
        with redirect_stderr(heard):
            parsed = reads(args=list(arguments))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise _complaint(reads, arguments, prog) from None
    sys.stderr.write(heard.getvalue())  # a warning, if anything
    return parsed


def _deferred(target: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function give its call instead of its result, so that what it prints is not taken for an objection."""
    if isinstance(target, type):
        return target

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(target, *args, **kwargs)

    return call


def _complaint(reads: Callable[..., Any], arguments: Sequence[str], prog: str) -> DecaylabError:
    """Say in one line why arguments were refused. They are read once more, with room for lines of any length."""
    hint = f"`{prog} --help` lists what it takes"
    with _unfolded() as (out, err):
        _read(reads, ["--help"])
        known = list(dict.fromkeys(_FLAG.findall(out.getvalue())))
        _read(reads, arguments)
        box = err.getvalue()
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if _FLAG.fullmatch(flag) and flag not in known:
            return _unknown_option(argument.partition("=")[0], known, hint)
    sections = _sections(box)
    first = sections[0] if sections else []
    text = " ".join(line.strip() for line in first)
    if match := re.match(r"invalid choice '(.*)' for argument '(.*)'. Expected one of (\(.*\))\.$", text):
        return unknown(f"value for {match[2]}", match[1], [str(choice) for choice in ast.literal_eval(match[3])])
    if match := re.match(r"Missing value for argument '(.*)'. Expected (\d+) values", text):
        return DecaylabError(f"{match[1]} needs {'a value' if match[2] == '1' else f'{match[2]} values'}; {hint}")
    if match := re.match(r"Missing from .*:", text):
        missing = [line.strip() for line in first[1:] if len(line) - len(line.lstrip()) == 4]
        return DecaylabError(f"{prog} needs {' and '.join(missing)}; {hint}")
    if match := re.match(r"Unrecognized options: (.*)", text):
        word = match[1].split(", ")[0]
        before = arguments[arguments.index(word) - 1] if word in list(arguments)[1:] else ""
        behind = f"behind {before}" if before.startswith("--") else f"for `{prog}`"
        return DecaylabError(f"{word!r} is one word too many {behind}; {hint}")
    if (match := re.match(r"Error parsing (--[\w.-]+)", text)) and len(sections) > 1:
        form = next((line.strip() for line in sections[1] if line.strip().startswith(match[1])), match[1])
        if given := _given(arguments, match[1]):
            return DecaylabError(f"{match[1]} cannot be {given!r}: expected {form}; {hint}")
    return DecaylabError(f"{text or 'the arguments do not fit'}; {hint}")


def _read(reads: Callable[..., Any], arguments: Sequence[str]) -> None:
    try:
        reads(args=list(arguments))
    except SystemExit:
        return


@contextmanager
def _unfolded() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Collect what is printed, on lines of any length."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "4000"
    try:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            yield out, err
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _sections(box: str) -> list[list[str]]:
    """Return the lines between the rules of a box, without its border; within one they are indented as in the box."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:
        inner = _BORDER.sub("", line)
        if _RULE.fullmatch(inner):
            sections.append([])
        elif inner:
            sections[-1].append(inner)
    return [textwrap.dedent("\n".join(section)).splitlines() for section in sections if section]


def _unknown_option(flag: str, known: Sequence[str], hint: str) -> DecaylabError:
    def last(name: str) -> str:
        return name.lstrip("-").rsplit(".", 1)[-1]

    same = [name for name in known if last(name) == last(flag.replace("_", "-"))]
    near = same[:3] or difflib.get_close_matches(flag, known, n=3, cutoff=0.6)
    message = f"unknown option {flag!r}"
    if near:
        return DecaylabError(f"{message}; did you mean {' or '.join(near)}? {hint}")
    return DecaylabError(f"{message}; known: {', '.join(known)}" if len(known) <= _LISTED else f"{message}; {hint}")


def _given(arguments: Sequence[str], flag: str) -> str:
    """Return what stands behind a flag, up to the next one."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == flag:
            rest = list(arguments[position + 1 :])
            end = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
            return " ".join(([value] if equals else []) + rest[:end])
    return ""
