"""The computed valley: its derivatives against finite differences, its processes against what theory says of them."""

import numpy as np
import pytest

from decaylab.studies.why_weight_decay import fig10

POINTS = np.array([[1.3, 0.4], [-0.7, 0.9], [0.1, -0.3]])


def _loss(w):
    return fig10.residual(w)[0] ** 2 / 2


def _shifted(axis, width):
    shift = np.zeros(2)
    shift[axis] = width
    return shift


def test_gradient_equals_finite_differences():
    _, gradient = fig10.residual(POINTS)
    for axis in range(2):
        shift = _shifted(axis, 1e-6)
        slope = (fig10.residual(POINTS + shift)[0] - fig10.residual(POINTS - shift)[0]) / 2e-6
        np.testing.assert_allclose(gradient[:, axis], slope, rtol=1e-7, atol=1e-9)


def test_trace_equals_finite_differences():
    second = sum(
        (_loss(POINTS + _shifted(axis, 1e-4)) - 2 * _loss(POINTS) + _loss(POINTS - _shifted(axis, 1e-4))) / 1e-8
        for axis in range(2)
    )
    np.testing.assert_allclose(fig10.trace(POINTS), second, rtol=1e-5)


def test_projection_ends_on_the_floor():
    w = fig10.project(POINTS)
    np.testing.assert_allclose(w[:, 1], fig10.BEND * w[:, 0] ** 2, atol=1e-2)


def test_the_floor_is_stationary_for_the_flow_but_not_for_the_regularised_path():
    floor = np.array([[1.0, fig10.BEND]])
    np.testing.assert_allclose(fig10.project(floor), floor, atol=1e-12)
    moved = fig10._regularised_step(floor, fig10.LR)
    assert fig10.trace(moved) < fig10.trace(floor)


@pytest.mark.parametrize("name", [fig10.ITERATE, fig10.PROJECTION, fig10.REGULARISED])
def test_the_same_seeds_give_the_same_points(name):
    once = fig10.simulate((3,))[name]
    again = fig10.simulate((3, 4))[name]
    assert once.shape == (fig10.STEPS // fig10.EVERY + 1, 1, 2)
    np.testing.assert_allclose(once[:, 0], again[:, 0], rtol=1e-9)
