"""The fit of the optimum over the length, on losses whose optimum is known."""

import math

import numpy as np
import pytest

from decaylab.tuning import fit


def _rungs(best, *, bend=0.02, noise=0.001, shares=(1 / 16, 1 / 8, 1 / 4), seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for share in shares:
        centre = math.log(best(share))
        u = np.repeat(centre + np.log([1 / 9, 1 / 3, 1.0, 3.0, 9.0]) + rng.uniform(-0.5, 0.5), seeds)
        number = np.tile(np.arange(seeds), 5)
        level = rng.normal(0, 0.05, seeds)[number]
        y = 2 + level + bend * (u - centre) ** 2 + rng.normal(0, noise, len(u))
        found.append(fit.Rung(math.log(share), u[:, None], number, y))
    return found


@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_the_optimum_and_its_drift_are_found(drift):
    found = fit.optimum(_rungs(lambda share: 2.5 * share**drift), ("x",))
    assert found.centre[0] == pytest.approx(math.log(2.5), abs=0.25)
    assert found.low[0] < math.log(2.5) < found.high[0]
    assert found.drift[0, 0] == pytest.approx(drift, abs=0.2)
    assert found.noise == pytest.approx(0.001, rel=0.5)
    assert found.curvature[-1] == pytest.approx(0.02, rel=0.2)


def test_intervals_cover_as_often_as_they_say():
    # The scatter of a rung's vertex is part of the interval: it covers at least its level where there is none.
    inside = 0
    for seed in range(30):
        found = fit.optimum(_rungs(lambda share: 2.5, noise=0.02, seed=seed), ("x",))
        inside += found.low[0] < math.log(2.5) < found.high[0]
    assert inside >= 27


def test_a_flat_rung_says_nothing():
    sharp, flat = _rungs(lambda share: 2.5), _rungs(lambda share: 100.0, bend=0.0)
    both = fit.optimum([flat[0], *sharp[1:]], ("x",))
    assert both.centre[0] == pytest.approx(math.log(2.5), abs=0.3)
    alone = fit.optimum(flat, ("x",))
    assert alone.high[0] - alone.low[0] > math.log(20)


def test_an_optimum_beyond_the_range_piles_up_at_its_edge():
    rungs = _rungs(lambda share: 1.0)
    rising = [fit.Rung(r.log_ratio, r.u, r.seeds, 2 + 0.1 * r.u[:, 0]) for r in rungs]
    assert fit.optimum(rising, ("x",)).at_edge == (-1,)


def test_learning_rate_and_decay_together():
    rng = np.random.default_rng(0)
    rungs = []
    for share in (1 / 16, 1 / 8, 1 / 4):
        grid = np.array([(a, b) for a in np.log([1e-3, 3e-3, 1e-2]) for b in np.log([0.5, 2.0, 8.0])])
        u = np.repeat(grid, 3, axis=0)
        seeds = np.tile(np.arange(3), 9)
        v = u - np.log([4e-3, 2.0])
        y = 2 + 0.03 * v[:, 0] ** 2 + 0.02 * v[:, 1] ** 2 + 0.01 * v[:, 0] * v[:, 1] + rng.normal(0, 0.001, len(u))
        rungs.append(fit.Rung(math.log(share), u, seeds, y))
    found = fit.optimum(rungs, ("lr", "x"))
    assert np.exp(found.centre) == pytest.approx([4e-3, 2.0], rel=0.4)
    assert (found.low < np.log([4e-3, 2.0])).all() and (np.log([4e-3, 2.0]) < found.high).all()
