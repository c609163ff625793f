"""A carried-over weight decay keeps the timescale, measured on `explain`, and the named special cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaylab.advice import timescale
from decaylab.conventions import explain
from decaylab.errors import DecaylabError

RATIO = st.floats(0.05, 20)


def _share(lr, weight_decay, batch, data):
    """Timescale over the length of a run, from its definition: steps to forget over steps."""
    return 1 / (lr * weight_decay) / (data / batch)


@given(weight_decay=st.floats(1e-5, 1), lr_ratio=RATIO, batch_ratio=RATIO, data_ratio=RATIO)
def test_the_share_of_the_run_stays(weight_decay, lr_ratio, batch_ratio, data_ratio):
    new = timescale.constant_timescale(weight_decay, lr_ratio=lr_ratio, batch_ratio=batch_ratio, data_ratio=data_ratio)
    before = _share(1e-3, weight_decay, 64, 1e6)
    assert _share(1e-3 * lr_ratio, new, 64 * batch_ratio, 1e6 * data_ratio) == pytest.approx(before, rel=1e-12)


def test_explain_agrees():
    old = explain(lr=1e-3, weight_decay=0.1, steps=1000, batch_size=64)
    new_decay = timescale.constant_timescale(0.1, lr_ratio=0.5, batch_ratio=4.0, data_ratio=8.0)
    new = explain(lr=5e-4, weight_decay=new_decay, steps=2000, batch_size=256)
    assert new.peak.timescale_share_of_run == pytest.approx(old.peak.timescale_share_of_run)


def test_named_cases():
    assert timescale.constant_timescale(0.1, lr_ratio=1 / 4) == pytest.approx(0.4)  # muP: four times the width
    nanochat = 0.2 * (512 / 128) ** 0.5 * (1e9 / 5e9)
    assert timescale.constant_timescale(0.2, lr_ratio=2.0, batch_ratio=4.0, data_ratio=5.0) == pytest.approx(nanochat)


@pytest.mark.parametrize("epochs", [0.5, -1.0, float("nan")])
def test_no_range_below_one_epoch(epochs):
    with pytest.raises(DecaylabError, match="at least one epoch"):
        timescale.weight_decay_range(0.1, steps_per_epoch=400, epochs=epochs)


def test_range_is_one_epoch_to_all():
    low, high = timescale.weight_decay_range(0.1, steps_per_epoch=400, epochs=200, gain=10)
    for weight_decay, epochs in ((high, 1), (low, 200)):
        run = explain(
            optimizer="sgd",
            momentum=0.9,
            lr=0.1,
            weight_decay=weight_decay,
            batch_size=125,
            dataset_size=50_000,
            epochs=200,
        )
        assert run.peak.timescale_epochs == pytest.approx(epochs)
    one = timescale.recommend_range(lr=0.1, steps_per_epoch=400, epochs=200, gain=10, optimizer="sgd")
    assert (one.low, one.high) == (low, high) and one.value**2 == pytest.approx(low * high)
    assert one.warnings
