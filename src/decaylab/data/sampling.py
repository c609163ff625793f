"""Which tokens or images come at a step: a pure function of a seed and the step, so that any run can start anywhere.

Positions come from the raw output of numpy's Philox generator, which is a counter: block number in, random bits out.
The raw bits are part of numpy's stable interface, so a seed means the same batches on every version and every machine.

Shapes: B sequences, T tokens, N examples.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decaylab.errors import DecaylabError

# Random positions are drawn for so many steps at once; part of what a seed means, never to be changed.
_STEPS_PER_DRAW = 256
# Sequences are gathered for as many steps at once as fit into this many tokens: a step then costs two slices.
_TOKENS_PER_GATHER = 2**18
# Streams up to this many tokens lie on the device; longer ones stay in the file, and a thread reads ahead.
_RESIDENT_TOKENS = 2**28
_MASK = 2**64 - 1


def _draw(seed: int, purpose: int, block: int, size: int, below: int) -> NDArray[np.int64]:
    """Return ``size`` integers from 0 to ``below``, exclusive; their distribution is uniform up to below / 2**64."""
    return (_bits(seed, purpose, block).random_raw(size) % np.uint64(below)).astype(np.int64)


def _bits(seed: int, purpose: int, block: int) -> np.random.Philox:
    """Return the random bits of one block; purposes and blocks of a seed never share bits."""
    # A list of large integers would pass through float64 and lose its last bits.
    key = np.array([seed & _MASK, purpose], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, block, 0], dtype=np.uint64))


class Sequences:
    """Draws sequences of T tokens, each with the tokens that follow, from a stream; with replacement.

    Args:
        tokens: uint16 ids, a memory map or an array.
        context: Tokens in a sequence, T.
        device: Where the batches are wanted.
        limit: Use only the first so many tokens.
        resident: Hold the stream in the device's memory (on the CPU: in the file's pages); None: when it is small.
            Otherwise it stays in its file and a thread reads ahead.

    Raises:
        DecaylabError: When the stream is not longer than one sequence.
    """

    def __init__(
        self,
        tokens: NDArray[np.uint16],
        context: int,
        device: torch.device | str = "cpu",
        *,
        limit: int | None = None,
        resident: bool | None = None,
    ) -> None:
        tokens = tokens if limit is None else tokens[:limit]
        self.context = context
        self.num_tokens = len(tokens)
        self._device = torch.device(device)
        self._starts = len(tokens) - context
        if self._starts < 1:
            raise DecaylabError(f"{len(tokens)} tokens are too few for sequences of {context} and the token after them")
        self._resident = len(tokens) <= _RESIDENT_TOKENS if resident is None else resident
        # torch has no arithmetic for uint16: the bits are read as int16 and the sign is taken off after the gather.
        signed = torch.from_numpy(np.ascontiguousarray(tokens).view(np.int16))
        # On the CPU the file's pages are the copy: reading them twice would cost twice the memory.
        source = signed.to(self._device) if self._resident else signed
        self._windows = source.unfold(0, context + 1, 1)  # a view: row i holds the tokens i to i + T
        self._positions: tuple[tuple[int, int, int], NDArray[np.int64]] = ((0, 0, -1), np.empty((0, 0), dtype=np.int64))
        self._ready: dict[tuple[int, int, int, int, int], Future[Tensor] | Tensor] = {}
        self._reader: ThreadPoolExecutor | None = None

    def batch(self, size: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Return the batch of a seed: tokens and the tokens that follow, int64 (B, T) each."""
        starts = _draw(seed, 0, 0, size, self._starts)
        window = self._gather(starts)
        return window[:, :-1], window[:, 1:]

    def step(self, size: int, step: int, *, seed: int, rows: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Return the batch of a training step: tokens and the tokens that follow, int64 (B, T) each.

        Steps in order are nearly free, because sequences are gathered for many steps at once (by a thread that reads
        ahead, for a stream that stays in its file); any other order gives the same batches.

        Args:
            size: Sequences in the whole batch, on all processes together.
            step: Number of the step, from 0.
            seed: Decides the order of the data.
            rows: First and last row (exclusive) of the batch that this process wants; None: all.
        """
        first, last = rows or (0, size)
        rows_per_step = last - first
        steps = max(1, min(_STEPS_PER_DRAW, _TOKENS_PER_GATHER // (rows_per_step * (self.context + 1))))
        steps = 1 << (steps.bit_length() - 1)  # a power of two divides the steps of a draw
        block, within = divmod(step, steps)
        key = (seed, size, first, last, block)
        found = self._ready.pop(key, None)
        if found is None:
            self._ready.clear()
            found = self._gather_steps(size, block * steps, steps, seed, first, last)
        windows = found.result() if isinstance(found, Future) else found
        self._ready[key] = windows
        if within == 0 and not self._resident:
            self._read_ahead((seed, size, first, last, block + 1), steps)
        window = windows[within * rows_per_step : (within + 1) * rows_per_step]
        return window[:, :-1], window[:, 1:]

    def _read_ahead(self, key: tuple[int, int, int, int, int], steps: int) -> None:
        if self._reader is None:
            self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokens")
        seed, size, first, last, block = key
        self._ready = {k: v for k, v in self._ready.items() if k[4] == block - 1}
        self._ready[key] = self._reader.submit(self._gather_steps, size, block * steps, steps, seed, first, last)

    def _gather_steps(self, size: int, start: int, steps: int, seed: int, first: int, last: int) -> Tensor:
        draw, within = divmod(start, _STEPS_PER_DRAW)
        known, positions = self._positions
        if known != (seed, size, draw):
            positions = _draw(seed, 1, draw, _STEPS_PER_DRAW * size, self._starts).reshape(_STEPS_PER_DRAW, size)
            self._positions = ((seed, size, draw), positions)
        return self._gather(positions[within : within + steps, first:last].reshape(-1))

    def _gather(self, starts: NDArray[np.int64]) -> Tensor:
        index = torch.from_numpy(starts)
        if self._resident:
            index = index.to(self._device)
        windows = self._windows.index_select(0, index)
        if not self._resident and self._device.type == "cuda":
            windows = windows.pin_memory().to(self._device, non_blocking=True)
        return windows.to(self._device).long().bitwise_and_(0xFFFF)


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> Tensor:
    """Return the order of the examples in one epoch: a random permutation of 0 to N - 1, int64 (N,)."""
    return torch.from_numpy(np.argsort(_bits(seed, 2, epoch).random_raw(num_examples), kind="stable"))


def balanced_subset(labels: Tensor, size: int) -> Tensor:
    """Return the positions of up to ``size`` examples, the first of each class in equal numbers, in data order.

    Classes with too few examples leave their places to the others. Curvature is measured on such a subset (5,000
    training images, 500 a class, in the paper).

    Args:
        labels: Class of each example, int64 (N,).
        size: How many examples.
    """
    y = labels.cpu().numpy()
    rank = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        rank[members] = np.arange(len(members))
    chosen = np.lexsort((np.arange(len(y)), y, rank))[:size]
    return torch.from_numpy(np.sort(chosen))
