import math

import pytest

from decaylab.config.schema import Divergence
from decaylab.train.divergence import DivergenceWatch


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_not_a_number_always_counts(loss):
    assert "step 7" in DivergenceWatch(Divergence()).see(7, loss)


def _feed(losses, config):
    watch = DivergenceWatch(config)
    for step, loss in enumerate(losses):
        if reason := watch.see(step, loss):
            return step, reason, watch
    return None, None, watch


def test_a_spike_that_comes_back_is_only_counted():
    losses = [3.0] * 20 + [9.0] * 5 + [3.0] * 60
    step, _, watch = _feed(losses, Divergence(rise=1.0, patience=50))
    assert step is None
    assert watch.spikes == 1


def test_a_spike_that_stays_is_a_divergence():
    step, reason, _ = _feed([3.0] * 20 + [9.0] * 100, Divergence(rise=1.0, patience=50))
    # The smoothed loss is 6 (1 - 0.9^n) above 3 after n high losses: beyond 1 from the second on, which is step 21.
    assert step == 71
    height = 6 * (1 - 0.9**52)
    assert reason == (
        "the smoothed loss rose by more than 1 at step 21 and did not come back: "
        f"{height:.3g} above its best 50 steps later"
    )


def test_without_a_rise_only_nan_counts():
    assert _feed([3.0] * 5 + [1e9] * 200, Divergence())[0] is None


def test_state_goes_round():
    config = Divergence(rise=1.0, patience=30)
    losses = [3.0] * 20 + [9.0] * 60
    one, two = DivergenceWatch(config), None
    for step, loss in enumerate(losses):
        if step == 25:
            two = DivergenceWatch(config)
            two.load_state_dict(one.state_dict())
        first = one.see(step, loss)
        if two is not None:
            assert two.see(step, loss) == first
