"""Which run is meant by the first characters of its id? As in git, they do where no other id begins with them."""

from __future__ import annotations

from collections.abc import Iterable

from decaylab.errors import DecaylabError, unknown

_SHOWN = 4


def whole_id(name: str, known: Iterable[str], *, kind: str = "run") -> str:
    """Return the id that is meant.

    Args:
        name: An id, or the first characters of one.
        known: Every id there is.
        kind: What a message calls it.

    Raises:
        DecaylabError: None begins with it, or several do; the message has them.
    """
    known = list(known)
    matches = [name] if name in known else [one for one in known if one.startswith(name)]
    if not matches:
        raise unknown(kind, name, known)
    if len(matches) > 1:
        more = f" and {len(matches) - _SHOWN} more" if len(matches) > _SHOWN else ""
        shown = ", ".join(matches[:_SHOWN])
        raise DecaylabError(f"{name!r} is the beginning of {len(matches)} runs: {shown}{more}; say more of the id")
    return matches[0]
