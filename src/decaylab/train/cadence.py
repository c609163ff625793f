"""When is it time for a sign of life, a checkpoint, or the end? The leader's clock says so for all processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum

from decaylab.errors import DecaylabError
from decaylab.train.distributed import Processes

Heartbeat = Callable[[int, int], bool]
_MOST_STEPS = 1000


class Order(IntEnum):
    """What to do after a step."""

    GO = 0
    SAVE = 1
    STOP = 2
    GIVE_UP = 3


class Agenda:
    """Says after every step whether to go on, to write a checkpoint, or to stop.

    Several processes talk about it only about once a second, at steps that all of them know beforehand.

    Args:
        processes: Those who train; the leader's answer counts.
        heartbeat: Called about once a second with (steps done, total), by the leader; False means stop.
        checkpoint_seconds: Time between checkpoints.
        start: Steps done before.
    """

    def __init__(self, processes: Processes, heartbeat: Heartbeat, checkpoint_seconds: float, start: int) -> None:
        self._processes, self._heartbeat, self._checkpoint_seconds = processes, heartbeat, checkpoint_seconds
        self.began = self._beat = self._saved = self._talked = time.monotonic()
        self._last_talk, self._next_talk = start, start + 1

    def after(self, done: int, total: int) -> Order:
        """Return what to do after ``done`` steps of ``total``.

        Raises:
            DecaylabError: The leader has given up, for a reason that it tells itself.
        """
        now = time.monotonic()
        if done == total:
            return Order.GO
        if self._processes.size == 1:
            return self._decide(now, done, total)
        if done < self._next_talk:
            return Order.GO
        order, steps = Order.GO, 1
        if self._processes.leads:
            steps = max(1, min(_MOST_STEPS, int((done - self._last_talk) / max(now - self._talked, 1e-3))))
            try:
                order = self._decide(now, done, total)
            except BaseException:
                self._processes.agree(Order.GIVE_UP, steps)  # the others would wait for it until they are killed
                raise
        number, steps = self._processes.agree(order, steps)
        if number == Order.GIVE_UP:
            raise DecaylabError("the first process gave up; its message says why")
        self._last_talk, self._next_talk, self._talked = done, done + steps, now
        return Order(number)

    def _decide(self, now: float, done: int, total: int) -> Order:
        if now - self._beat >= 1.0:
            self._beat = now
            if not self._heartbeat(done, total):
                return Order.STOP
        if now - self._saved >= self._checkpoint_seconds:
            self._saved = now
            return Order.SAVE
        return Order.GO
