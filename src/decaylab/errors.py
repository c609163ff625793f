"""How decaylab says that something cannot be done: one line that tells what to do instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_WHOLE_LIST, _A_FEW = 40, 6


class DecaylabError(Exception):
    """A mistake that the person in front of the terminal can mend.

    The message is one line: what is wrong and what to do. The command line prints it without a traceback and exits
    with code 2; in Python it is an ordinary exception.
    """


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
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    message = f"unknown {kind} {name!r}"
    if near:
        message += f"; did you mean {' or '.join(repr(n) for n in near)}?"
    if not known:
        message += ": there is none"
    elif len(known) <= _WHOLE_LIST:
        message += f"{'' if near else ';'} known: {', '.join(known)}"
    elif not near:
        message += f"; {len(known)} are known, such as {', '.join(known[:_A_FEW])}"
    return DecaylabError(message)
