"""How decaylab says that something cannot be done: one line that tells what to do instead."""

from __future__ import annotations

import difflib
import re
import reprlib
import unicodedata
from collections.abc import Iterable

_WHOLE_LIST, _A_FEW = 40, 6
_LONGEST, _LONGEST_WORD, _LONGEST_MESSAGE = 80, 400, 2000
_WORD = re.compile(rf"\S{{{_LONGEST_WORD},}}")
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxlong, _BRIEF.maxother = 3, _LONGEST, _LONGEST, _LONGEST


class DecaylabError(Exception):
    """A mistake that the person in front of the terminal can mend.

    The message is one line: what is wrong and what to do; of a very long one the middle is left out. The command line
    prints it without a traceback and exits with code 2; in Python it is an ordinary exception.
    """

    def __init__(self, message: str = "") -> None:
        if len(message) > _LONGEST_WORD:  # a path may have more characters than a value that is shown
            message = _WORD.sub(lambda word: shown(word[0], quoted=False), message)
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[: _LONGEST_MESSAGE // 2 - 2]} … {message[1 - _LONGEST_MESSAGE // 2 :]}"
        super().__init__(message)


def shown(value: object, *, quoted: bool = True, longest: int = _LONGEST) -> str:
    r"""Return what a message shows of something that somebody else wrote: one printable line of bounded length.

    Args:
        value: Anything: megabytes of text, numbers of thousands of digits and deep nesting are cut.
        quoted: Put text into quotes, as ``repr`` does.
        longest: Characters of the result; more for a path, which is of no use in part.

    >>> shown("a\nb"), len(shown("a" * 10**6)), shown("ok", quoted=False)
    ("'a\\nb'", 80, 'ok')
    """
    if isinstance(value, str):
        half = longest // 2
        text = repr(value if len(value) <= longest else value[:half] + value[-half:])
        text = text if quoted else text[1:-1]
        return text if len(text) <= longest else f"{text[: half - 2]}...{text[-(half - 1) :]}"
    try:
        text = _BRIEF.repr(value)
    except (ValueError, RecursionError):  # Python does not write out a number of thousands of digits
        text = type(value).__name__
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def printable(text: str) -> str:
    r"""Return text without anything that a terminal would obey: each such character in Python's spelling.

    Escape sequences, other control characters (line ends and tabs stay), marks that turn the direction of writing, and
    halves of characters that no terminal can write. What a model, a file's name or a reason says goes through this
    before it is printed.

    >>> printable("red: \x1b[31m")
    'red: \\x1b[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _acts(c) else ascii(c)[1:-1] for c in text)


def _acts(character: str) -> bool:
    # Cc: control; Cs: half of a pair; Zl and Zp: line ends of their own; Cf: formats, of which joiners are harmless.
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in "\u200c\u200d\xad")


def unknown(kind: str, name: str, choices: Iterable[str]) -> DecaylabError:
    """Build the error for a name that is not among the known ones.

    Args:
        kind: What was named, in the singular (``"experiment"``).
        name: The name as given.
        choices: Every known name.

    Returns:
        An error with up to three near matches, and the whole list while it is short, or else some of it.
    """
    known = sorted(choices)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) if len(name) <= _LONGEST else []
    message = f"unknown {kind} {shown(name)}"
    if near:
        message += f"; did you mean {' or '.join(repr(n) for n in near)}?"
    if not known:
        message += ": there is none"
    elif len(known) <= _WHOLE_LIST:
        message += f"{'' if near else ';'} known: {', '.join(known)}"
    elif not near:
        message += f"; {len(known)} are known, such as {', '.join(known[:_A_FEW])}"
    return DecaylabError(message)
