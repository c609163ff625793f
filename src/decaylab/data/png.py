"""How are many small PNG files of the same size decoded at once, without an image library.

A PNG row is stored as differences to its neighbours, by one of five filters (PNG specification, section 9). Undoing
them is sequential in rows and columns, but not in images: one pass over the positions serves all images together.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SUB, _UP, _AVERAGE, _PAETH = 1, 2, 3, 4


def decode_pngs(files: Sequence[bytes]) -> NDArray[np.uint8]:
    """Decode PNG files of one size, 8 bits a channel, RGB, not interlaced.

    Returns:
        Pixels, uint8 (N, H, W, 3).

    Raises:
        ValueError: For a file that is damaged or of another kind (says which, counted from 0, and why).
    """
    size: tuple[int, int] | None = None
    rows = []
    for number, file in enumerate(files):
        try:
            found, content = _chunks(file)
        except (struct.error, zlib.error, ValueError) as error:
            raise ValueError(f"image {number}: {error}") from error
        size = size or found
        width, height = size
        if found != size or len(content) != height * (1 + 3 * width):
            raise ValueError(f"image {number}: {found[0]} x {found[1]} pixels, the first has {width} x {height}")
        rows.append(content)
    if size is None:
        raise ValueError("no images")
    width, height = size
    raw = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), height, 1 + 3 * width)
    filters, differences = raw[:, :, 0], raw[:, :, 1:].reshape(len(rows), height, width, 3)
    if filters.max() > _PAETH:
        raise ValueError(f"image {int(np.argmax(filters.max(1)))}: unknown filter {filters.max()}")
    return _undo(filters, differences)


def _undo(filters: NDArray[np.uint8], differences: NDArray[np.uint8]) -> NDArray[np.uint8]:
    number, height, width, _ = differences.shape
    # int16 holds every sum below; a border of zeros on top and at the left stands for the missing neighbours.
    pixels = np.zeros((number, height + 1, width + 1, 3), dtype=np.int16)
    for y in range(height):
        kinds = [(kind, np.flatnonzero(filters[:, y] == kind)) for kind in range(5)]
        for kind, chosen in kinds:
            if not len(chosen):
                continue
            row = differences[chosen, y].astype(np.int16)
            above = pixels[chosen, y]
            if kind == _UP:
                row = (row + above[:, 1:]) & 255
            elif kind == _SUB:
                row = np.cumsum(row, axis=1, dtype=np.int32).astype(np.int16) & 255
            elif kind:
                left = np.zeros((len(chosen), 3), dtype=np.int16)
                for x in range(width):
                    up, corner = above[:, x + 1], above[:, x]
                    guess = (left + up) >> 1 if kind == _AVERAGE else _paeth(left, up, corner)
                    left = (row[:, x] + guess) & 255
                    row[:, x] = left
            pixels[chosen, y + 1, 1:] = row
    return pixels[:, 1:, 1:].astype(np.uint8)


def _paeth(left: NDArray[np.int16], up: NDArray[np.int16], corner: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the neighbour that is nearest to left + up - corner; ties prefer left, then up."""
    to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))


def _chunks(file: bytes) -> tuple[tuple[int, int], bytes]:
    """Return width and height, and the decompressed rows."""
    if file[:8] != _SIGNATURE:
        raise ValueError("not a PNG file")
    position, data, size = 8, [], None
    while position < len(file):
        length, name = struct.unpack_from(">I4s", file, position)
        content = file[position + 8 : position + 8 + length]
        if name == b"IHDR":
            width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", content)
            if (depth, color, interlaced) != (8, 2, 0):
                raise ValueError(f"{depth} bits, colour type {color}, interlacing {interlaced}: expected 8, 2, 0")
            size = (width, height)
        elif name == b"IDAT":
            data.append(content)
        elif name == b"IEND":
            break
        position += 12 + length
    if size is None:
        raise ValueError("no header")
    return size, zlib.decompress(b"".join(data))
