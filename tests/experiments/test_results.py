import math

import pytest
from tests.support.synthetic import Row, results


def test_a_metric_carries_labels_epochs_and_fractions():
    frame = results().metric("test/error")
    assert len(frame) == 12 * 21
    assert {"run", "lr", "lr_value", "wd", "seed", "status", "step", "epoch", "fraction", "value"} <= set(frame)
    last = frame.iloc[20]
    assert (last["step"], last["epoch"], last["fraction"]) == (200, 10.0, 1.0)


def test_final_takes_only_runs_that_have_ended():
    half = lambda labels, row: Row(status="running", step=100) if labels["seed"] == 2 else row  # noqa: E731
    frame = results(change=half).final("test/error")
    assert len(frame) == 8
    assert set(frame["seed"]) == {0, 1}
    assert (frame["fraction"] == 1.0).all()


def test_at_wants_runs_that_have_come_so_far():
    half = lambda labels, row: Row(status="running", step=100) if labels["seed"] == 2 else row  # noqa: E731
    found = results(change=half)
    assert len(found.at("test/error", 0.5)) == 12
    assert len(found.at("test/error", 0.6)) == 8
    assert set(found.at("test/error", 0.52)["step"]) == {100}


def test_missing_runs_are_part_of_the_table():
    found = results(change=lambda labels, row: None if labels["wd"] == "none" else row)
    assert (found.runs["status"] == "missing").sum() == 6
    assert not found.complete
    assert len(found.metric("test/error")) == 6 * 21


def test_nothing_recorded_is_an_empty_table():
    found = results(change=lambda labels, row: None)
    assert found.metric("test/error").empty and found.final("test/error").empty
    assert found.curve(found.runs.index[0], "test/error").values == []


def test_two_keys_side_by_side():
    frame = results().table("test/error", "train/loss")
    assert len(frame) == 12 * 21
    assert frame["train/loss"].iloc[0] == 2.0


def test_runs_are_picked_by_labels():
    found = results()
    assert list(found.by_seed({"lr_value": 0.2, "wd": "none"})) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"leave \['lr', 'lr_value'\] open"):
        found.by_seed({"wd": "none"})
    with pytest.raises(ValueError, match="no label 'decay'"):
        found.by_seed({"decay": 1})
    with pytest.raises(ValueError, match="no run with wd='some'"):
        found.by_seed({"wd": "some"})


def test_a_curve_of_one_run():
    found = results()
    curve = found.curve(found.by_seed({"lr": "large", "wd": "with"})[1], "train/loss")
    assert curve.total_steps == 200
    assert curve.fractions[-1] == 1.0
    assert math.isclose(curve.values[-1], 0.8)
