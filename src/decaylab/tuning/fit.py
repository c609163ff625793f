r"""Where the optimum of a full run lies, from complete shorter runs, with a predictive interval.

On each rung r (schedules of :math:`T_r` steps) the loss of seed s at log-coordinates u is taken as

.. math:: y_{rsi} = \mu_{rs} + (u_i - v_r)^\top K_r (u_i - v_r) + \epsilon, \qquad
          v_r = c + a \ln(T_r / T) + \delta_r

with the seed's own level :math:`\mu_{rs}` (that is what pairing by seed removes), a curvature :math:`K_r \ge 0` of the
rung's own, the optimum c of the full run, the drift a of the optimum with the length, and a scatter :math:`\delta_r` of
a rung's vertex that stands for what a quadratic in the logarithm leaves out. u is ln x (timescales of decay), or
(ln lr, ln x).

The drift has a normal prior. In timescales, a constant share of the run means a = 0 and Power Lines (lambda ~ D^-0.47
at a fixed model, batch and learning rate; 2505.13738) a = 0.53. The likelihood of a vertex is profiled over levels and
curvature and has a Student form, because the noise is estimated from the same few runs; a rung on which nothing matters
has a flat likelihood and says nothing, without being left out by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DRIFT_MEAN, DRIFT_SD = {"x": 0.2, "lr": 0.0}, {"x": 0.2, "lr": 0.25}
SCATTER = 0.2  # of a rung's vertex, in ln x: the planning runs' vertices scattered by that much around a line
WINDOW = math.log(5)  # points count less the farther they lie from the best one: standard deviation of their weight
_GRID = {1: 241, 2: 41}
_DRAWS = 40_000
_BAND = 17  # lengths at which the predictive band is drawn


@dataclass(frozen=True)
class Rung:
    """The trials of one length that ended with a finite metric.

    Attributes:
        log_ratio: ln(T_r / T), at most 0.
        u: Log-coordinates, shape (n, d).
        seeds: Number of the seed of each trial, shape (n,).
        y: Metric, lower is better, shape (n,).
    """

    log_ratio: float
    u: Array
    seeds: npt.NDArray[np.int64]
    y: Array


@dataclass(frozen=True)
class Optimum:
    """Posterior of the full run's optimum.

    Attributes:
        centre: Median of each coordinate.
        low: Lower end of the 95 % predictive interval.
        high: Upper end.
        drift: Median, low and high of the drift of each coordinate.
        curvature: Curvature of each rung at its vertex along the last coordinate (x); 0 where it saw none.
        noise: Standard deviation of the residuals.
        vertices: Median, low and high of each rung's vertex along the last coordinate, for the chart.
        log_ratios: ln(T_r / T) of each of these rungs.
        band: Length as ln(T_r / T), with median, low and high of the optimum along the last coordinate: what is
            predicted between the shortest rung and the full run.
        at_edge: For each coordinate -1 or 1 where the optimum piles up at an end of what was searched, else 0.
    """

    centre: Array
    low: Array
    high: Array
    drift: Array
    curvature: tuple[float, ...]
    noise: float
    vertices: tuple[tuple[float, float, float], ...]
    log_ratios: tuple[float, ...]
    band: tuple[tuple[float, float, float, float], ...]
    at_edge: tuple[int, ...]


def optimum(rungs: Sequence[Rung], names: Sequence[str], *, confidence: float = 0.95) -> Optimum:
    """Fit all rungs together.

    Args:
        rungs: The trials by length, at least one rung with three different settings.
        names: Of the coordinates: ``("x",)``, ``("lr",)`` or ``("lr", "x")``.
        confidence: Of the intervals.

    Returns:
        The posterior of the optimum at the full length.
    """
    d = len(names)
    low = np.min([r.u.min(axis=0) for r in rungs], axis=0) - math.log(3)
    high = np.max([r.u.max(axis=0) for r in rungs], axis=0) + math.log(3)
    axes = [np.linspace(low[i], high[i], _GRID[d]) for i in range(d)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    profiles = [_profile(rung, grid) for rung in rungs]
    freedom = max(1, sum(p.freedom for p in profiles))
    least = sum(float(p.squares.min()) for p in profiles)
    variance = max(least / freedom, 1e-30)
    shape = (_GRID[d],) * d
    likelihoods = [
        _blurred((1 + (p.squares - p.squares.min()) / (freedom * variance)).reshape(shape), freedom, axes)
        for p in profiles
    ]
    drift_mean, drift_sd = np.array([DRIFT_MEAN[n] for n in names]), np.array([DRIFT_SD[n] for n in names])
    rng = np.random.default_rng(0)
    c = rng.uniform(low, high, size=(_DRAWS, d))
    a = rng.normal(drift_mean, drift_sd, size=(_DRAWS, d))
    weight = np.ones(_DRAWS)
    for rung, likelihood in zip(rungs, likelihoods, strict=True):
        weight *= _at(likelihood, c + a * rung.log_ratio, axes)
    if not weight.sum() > 0:
        weight[:] = 1.0
    weight /= weight.sum()
    kept = rng.choice(_DRAWS, size=_DRAWS, p=weight)
    future = c[kept] + rng.normal(0, SCATTER, size=(_DRAWS, d))
    tail = (1 - confidence) / 2
    ends = np.quantile(future, [tail, 0.5, 1 - tail], axis=0)
    margin = math.log(3)
    edge = tuple(
        -1
        if np.mean(c[kept][:, i] < low[i] + margin) > 0.5
        else 1
        if np.mean(c[kept][:, i] > high[i] - margin) > 0.5
        else 0
        for i in range(d)
    )
    vertices = tuple(_summary(lik.sum(axis=0) if d == 2 else lik, axes[-1], tail) for lik in likelihoods)
    band = []
    for ratio in np.linspace(min(r.log_ratio for r in rungs), 0.0, _BAND):
        at = c[kept][:, -1] + a[kept][:, -1] * ratio + (future - c[kept])[:, -1]
        down, middle, up = np.quantile(at, [tail, 0.5, 1 - tail])
        band.append((float(ratio), float(middle), float(down), float(up)))
    return Optimum(
        centre=np.median(c[kept], axis=0),
        low=ends[0],
        high=ends[2],
        drift=np.quantile(a[kept], [0.5, tail, 1 - tail], axis=0).T,
        curvature=tuple(p.curvature for p in profiles),
        noise=math.sqrt(variance),
        vertices=vertices,
        log_ratios=tuple(r.log_ratio for r in rungs),
        band=tuple(band),
        at_edge=edge,
    )


@dataclass(frozen=True)
class _Profile:
    squares: Array
    freedom: int
    curvature: float


def _profile(rung: Rung, grid: Array) -> _Profile:
    """Return the weighted sum of squares for each place of the vertex, least over levels and curvature."""
    d = grid.shape[1]
    settings, where = np.unique(rung.u, axis=0, return_inverse=True)
    where = where.reshape(-1)
    levels = _centred(rung.y, rung.seeds, np.ones_like(rung.y))
    means = np.array([levels[where == i].mean() for i in range(len(settings))])
    best = settings[int(np.argmin(means))]
    # Far trials say little of the place of the minimum: a loss is no parabola in the logarithm there.
    w = np.exp(-0.5 * np.sum((rung.u - best) ** 2, axis=1) / WINDOW**2)
    if len(rung.y) <= d:
        return _Profile(np.zeros(len(grid)), 0, 0.0)
    y = _centred(rung.y, rung.seeds, w)
    squares = np.empty(len(grid))
    bends = np.empty(len(grid))
    for i, vertex in enumerate(grid):
        distance = rung.u - vertex
        columns = [distance[:, k] ** 2 for k in range(d)]
        if d == 2:
            columns.append(2 * distance[:, 0] * distance[:, 1])
        squares[i], bends[i] = _least(np.stack([_centred(q, rung.seeds, w) for q in columns], axis=1), y, w)
    freedom = round(float(w.sum()) / max(float(w.max()), 1e-12)) - len(np.unique(rung.seeds)) - 2 * d
    return _Profile(squares, max(freedom, 1), float(bends[int(np.argmin(squares))]))


def _least(q: Array, y: Array, w: Array) -> tuple[float, float]:
    """Return the least sum of squares with a curvature that bends upwards, and that curvature along the last axis."""
    d = 1 if q.shape[1] == 1 else 2
    sets = [tuple(range(q.shape[1])), *((k,) for k in range(d))]
    if d == 2:
        sets.insert(1, (0, 1))
    best, bend = float(np.sum(w * y**2)), 0.0
    for chosen in sets:
        part = q[:, list(chosen)] * np.sqrt(w)[:, None]
        k, *_ = np.linalg.lstsq(part, np.sqrt(w) * y, rcond=None)
        full = np.zeros(q.shape[1])
        full[list(chosen)] = k
        upward = full[0] >= 0 if d == 1 else full[0] >= 0 and full[1] >= 0 and full[2] ** 2 <= full[0] * full[1]
        if upward:
            found = float(np.sum((np.sqrt(w) * y - part @ k) ** 2))
            if found < best:
                best, bend = found, float(full[d - 1])
    return best, bend


def _centred(values: Array, seeds: npt.NDArray[np.int64], w: Array) -> Array:
    """Return values less the weighted mean of their seed."""
    found = np.empty_like(values)
    for seed in np.unique(seeds):
        mine = seeds == seed
        found[mine] = values[mine] - np.average(values[mine], weights=w[mine])
    return found


def _blurred(ratio: Array, freedom: int, axes: Sequence[Array]) -> Array:
    """Return the Student likelihood of a vertex, blurred by the scatter of a rung, with maximum 1."""
    found = ratio ** (-(freedom + 1) / 2)
    for axis, places in enumerate(axes):
        kernel = np.exp(-0.5 * ((places[:, None] - places[None, :]) / SCATTER) ** 2)
        kernel /= kernel.sum(axis=1, keepdims=True)
        found = np.moveaxis(np.tensordot(kernel, found, axes=([1], [axis])), 0, axis)
    return np.asarray(found / found.max())


def _at(likelihood: Array, places: Array, axes: Sequence[Array]) -> Array:
    """Return a likelihood at places off its grid (the nearest one's); what lies outside takes the edge's."""
    indices = [
        np.clip(np.rint((places[:, i] - axis[0]) / (axis[1] - axis[0])), 0, len(axis) - 1).astype(int)
        for i, axis in enumerate(axes)
    ]
    return np.asarray(likelihood[tuple(indices)])


def _summary(likelihood: Array, places: Array, tail: float) -> tuple[float, float, float]:
    total = np.cumsum(likelihood) / likelihood.sum()
    low, middle, high = (
        float(places[min(int(np.searchsorted(total, p)), len(places) - 1)]) for p in (tail, 0.5, 1 - tail)
    )
    return middle, low, high
