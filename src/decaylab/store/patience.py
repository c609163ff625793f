"""Waiting for a store that does not answer: one policy for launchers and workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from decaylab.store.database import StoreUnreachable

PATIENCE_SECONDS = 600.0
_LOOK_SECONDS = 0.2
_Result = TypeVar("_Result")


def insist(
    action: Callable[[], _Result],
    stopping: Callable[[], bool] = lambda: False,
    say: Callable[[str], object] = lambda line: None,
) -> _Result:
    """Repeat ``action`` while the store does not answer: hours of training are worth minutes of waiting.

    Args:
        action: What to do; it must be safe to repeat.
        stopping: Whether the caller has been asked to stop; then it waits no longer.
        say: Takes one line when the waiting begins.

    Raises:
        StoreUnreachable: It did not answer for ten minutes, or the caller is stopping.
    """
    until, pause, waits = time.monotonic() + PATIENCE_SECONDS, 0.5, False
    while True:
        try:
            return action()
        except StoreUnreachable as error:
            if stopping() or time.monotonic() > until:
                raise
            if not waits:
                say(f"{error}; waiting for it, {PATIENCE_SECONDS / 60:.0f} minutes at most")
                waits = True
            again = time.monotonic() + pause
            while time.monotonic() < again and not stopping():
                time.sleep(_LOOK_SECONDS)
            pause = min(2 * pause, 30.0)
