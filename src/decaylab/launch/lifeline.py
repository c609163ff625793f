"""Standard input of a worker process: the queue that its launcher holds, and the end that means stop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class Lifeline:
    """The standard input, whose lines are queues (see `Queue.to_json`), each in place of the one before.

    It closes when the launcher wants the worker to stop, and also when the launcher dies, however it dies: nothing has
    to lie on disk for a worker to know its queue, so nothing is left there.

    Args:
        descriptor: Where to read.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def line(self) -> str | None:
        """Return the next line, when it has come; ``None`` at the end."""
        while b"\n" not in self._rest:
            more = os.read(self._descriptor, 1 << 16)
            if not more:
                return None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def watch(self, heard: Callable[[str], None], ended: Callable[[], None]) -> None:
        """Call ``heard`` with every further line and ``ended`` at the end, from a thread of its own."""

        def listen() -> None:
            while (line := self.line()) is not None:
                heard(line)
            ended()

        threading.Thread(target=listen, name="lifeline", daemon=True).start()
