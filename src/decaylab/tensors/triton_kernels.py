"""Triton kernels over many tensors at once: each program has one block, or one row, of one of them.

Tensors are given as tables of addresses, so that a launch serves all of them and passes over memory once. All float32;
sums within a block are float32 too. Imported only where Triton is.
"""

import triton
import triton.language as tl


@triton.jit
def _block(sizes, blocks, which, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """Return the offsets of this program's block in its tensor, and which of them exist."""
    number = tl.load(blocks + 2 * tl.program_id(0) + 1)
    offsets = number.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    size = tl.load(sizes + which)
    if ALIGNED:
        size = tl.multiple_of(size, 16)
    return offsets, offsets < size


@triton.jit
def _at(addresses, which, ALIGNED: tl.constexpr):
    """Return where a tensor begins. Aligned ones, of a size that 16 divides, are read four numbers at a time."""
    begin = tl.load(addresses + which).to(tl.pointer_type(tl.float32))
    return tl.multiple_of(begin, 16) if ALIGNED else begin


@triton.jit
def scale(weights, sizes, blocks, factors, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """``w <- factor_i w``."""
    which = tl.load(blocks + 2 * tl.program_id(0))
    offsets, there = _block(sizes, blocks, which, ALIGNED, BLOCK)
    place = _at(weights, which, ALIGNED) + offsets
    tl.store(place, tl.load(place, mask=there) * tl.load(factors + which), mask=there)


@triton.jit
def sums(weights, origins, others, sizes, blocks, out, width, second, ORIGIN: tl.constexpr, OTHER: tl.constexpr,
         SQUARE: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Partial sums of each block: of ``(w - o)^2`` or ``w - o``, and ``second`` numbers behind them ``g (w - o)``."""
    which = tl.load(blocks + 2 * tl.program_id(0))
    number = tl.load(blocks + 2 * tl.program_id(0) + 1)
    offsets, there = _block(sizes, blocks, which, ALIGNED, BLOCK)
    w = tl.load(_at(weights, which, ALIGNED) + offsets, mask=there, other=0.0)
    if ORIGIN:
        w = w - tl.load(_at(origins, which, ALIGNED) + offsets, mask=there, other=0.0)
    place = out + which.to(tl.int64) * width + number
    if OTHER:
        g = tl.load(_at(others, which, ALIGNED) + offsets, mask=there, other=0.0)
        tl.store(place + second, tl.sum(g * w))
    if SQUARE:
        w = w * w
    tl.store(place, tl.sum(w))


@triton.jit
def cautious(
    weights, olds, sizes, blocks, coefficient, number, TENSOR: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr
):
    """``w <- w - c o`` where ``(o - w) o >= 0``, by signs: the product may round to zero."""
    which = tl.load(blocks + 2 * tl.program_id(0))
    offsets, there = _block(sizes, blocks, which, ALIGNED, BLOCK)
    c = tl.load(coefficient) if TENSOR else number
    place = _at(weights, which, ALIGNED) + offsets
    w = tl.load(place, mask=there)
    o = tl.load(_at(olds, which, ALIGNED) + offsets, mask=there)
    agree = tl.where(o > 0, w <= o, w >= o)
    tl.store(place, tl.where(agree, w - c * o, w), mask=there)


@triton.jit
def combine(weights, olds, sizes, blocks, pulls, factors, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """``w <- factor_i (o + pull_i (w - o))``."""
    which = tl.load(blocks + 2 * tl.program_id(0))
    offsets, there = _block(sizes, blocks, which, ALIGNED, BLOCK)
    place = _at(weights, which, ALIGNED) + offsets
    w = tl.load(place, mask=there)
    o = tl.load(_at(olds, which, ALIGNED) + offsets, mask=there)
    tl.store(place, tl.load(factors + which) * (o + tl.load(pulls + which) * (w - o)), mask=there)


@triton.jit
def pull(weights, origins, sizes, blocks, shares, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """``w <- w - share_i (w - o)``; tensors whose share is 0 are not touched."""
    which = tl.load(blocks + 2 * tl.program_id(0))
    share = tl.load(shares + which)
    if share != 0:
        offsets, there = _block(sizes, blocks, which, ALIGNED, BLOCK)
        place = _at(weights, which, ALIGNED) + offsets
        w = tl.load(place, mask=there)
        o = tl.load(_at(origins, which, ALIGNED) + offsets, mask=there)
        tl.store(place, w - share * (w - o), mask=there)


@triton.jit
def add_scaled(
    outs,
    bases,
    directions,
    origins,
    sizes,
    blocks,
    factor,
    ORIGIN: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``out <- base + factor (direction - origin)``."""
    which = tl.load(blocks + 2 * tl.program_id(0))
    offsets, there = _block(sizes, blocks, which, ALIGNED, BLOCK)
    along = tl.load(_at(directions, which, ALIGNED) + offsets, mask=there)
    if ORIGIN:
        along = along - tl.load(_at(origins, which, ALIGNED) + offsets, mask=there)
    tl.store(
        _at(outs, which, ALIGNED) + offsets,
        tl.load(_at(bases, which, ALIGNED) + offsets, mask=there) + factor * along,
        mask=there,
    )


@triton.jit
def rotate(weights, olds, norms, squares, lengths, rows, started, scalars, lr, eta, average, eps,
           TENSOR: tl.constexpr, CENTRE: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Turn a row of the old weights, see `decaylab.decay.rules.rotational.Rotational`."""
    which = tl.load(rows + 2 * tl.program_id(0))
    row = tl.load(rows + 2 * tl.program_id(0) + 1).to(tl.int64)
    length = tl.load(lengths + which)
    if ALIGNED:
        length = tl.multiple_of(length, 16)
    if TENSOR:
        lr = tl.load(scalars)
        eta = tl.load(scalars + 1)
    offsets = tl.arange(0, BLOCK)
    there = offsets < length
    place = _at(weights, which, ALIGNED) + row * length + offsets
    o = tl.load(_at(olds, which, ALIGNED) + row * length + offsets, mask=there, other=0.0)
    u = (o - tl.load(place, mask=there, other=0.0)) / lr
    if CENTRE:
        u = tl.where(there, u - tl.sum(u) / length, 0.0)
    norm = tl.load(_at(norms, which, False) + row)
    u = u - o * (tl.sum(u * o) / tl.where(norm > 0, norm * norm, 1.0))
    place_of_square = _at(squares, which, False) + row
    square = average * tl.load(place_of_square) + (1 - average) * tl.sum(u * u)
    tl.store(place_of_square, square)
    w = o - u * (eta * norm / (tl.sqrt(square / tl.load(started + which)) + eps))
    found = tl.sqrt(tl.sum(w * w))
    w = w * tl.where(found > 0, norm / tl.where(found > 0, found, 1.0), 1.0)
    if norm > 0:
        tl.store(place, w, mask=there)


@triton.jit
def cap_rows(weights, lengths, rows, ceilings, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """Shrink a row whose norm is above the ceiling of its tensor to that norm."""
    which = tl.load(rows + 2 * tl.program_id(0))
    row = tl.load(rows + 2 * tl.program_id(0) + 1).to(tl.int64)
    length = tl.load(lengths + which)
    if ALIGNED:
        length = tl.multiple_of(length, 16)
    offsets = tl.arange(0, BLOCK)
    there = offsets < length
    place = _at(weights, which, ALIGNED) + row * length + offsets
    w = tl.load(place, mask=there, other=0.0)
    norm = tl.sqrt(tl.sum(w * w))
    ceiling = tl.load(ceilings + which)
    if norm > ceiling:
        tl.store(place, w * (ceiling / norm), mask=there)
