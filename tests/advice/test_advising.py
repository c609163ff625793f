"""Whole advice: what is recommended from what, the mean learning rate, carried-over runs, and refusals."""

import dataclasses
import json
import math

import pytest

from decaylab.advice import Reference, advise
from decaylab.errors import DecaylabError
from decaylab.schedules import Schedule

BLOG = {"params": 163_000_000, "tokens": 3_260_252_160, "seq_len": 1024, "batch_size": 96}

VISION = {"dataset_size": 50_000, "epochs": 10, "batch_size": 125, "lr": 0.1}


def _find(advice, quantity, method):
    found = [one for one in advice.recommendations if one.quantity == quantity and one.method == method]
    assert len(found) == 1
    return found[0]


def test_the_blogs_run():
    advice = advise(**BLOG, lr=4e-4)
    assert _find(advice, "weight_decay", "Power Lines").value == pytest.approx(0.3372, rel=1e-3)
    assert _find(advise(**BLOG, lr=1.4e-3), "weight_decay", "Power Lines").value == pytest.approx(0.0963, rel=2e-3)
    assert advice.size.steps == 33_165
    assert "0.01 was better" in advice.measured
    assert advice.weight_decays_to_try == (0.01, 0.1, 0.17)
    assert [one.quantity for one in advice.recommendations] == sorted(
        (one.quantity for one in advice.recommendations), key=["weight_decay", "learning_rate", "batch_size"].index
    )


def test_every_recommendation_says_where_it_is_from():
    advice = advise(**BLOG, lr=4e-4, layers=12, width=768, reference=Reference(weight_decay=0.1, tokens=10**9))
    for one in advice.recommendations:
        assert one.formula and one.worked and one.source and one.fitted_on
        assert math.isfinite(one.value) and one.value > 0
        assert (one.unit == "sequences of 1,024 tokens") == (one.quantity == "batch_size")
    json.dumps(dataclasses.asdict(advice), allow_nan=False)


def test_laws_take_the_tokens_as_given():
    run = {"params": 124_000_000, "lr": 4e-4, "steps": 33_165, "batch_size": 96, "tokens": 3_300_000_000}
    advice = advise(**run, tokens_rounding=0.015)
    assert (advice.size.seq_len, advice.size.tokens) == (1024, 3_300_000_000)
    assert advice.recommendations == advise(**run, seq_len=1024, tokens_rounding=0.015).recommendations
    assert "D = 3.3B tokens" in _find(advice, "learning_rate", "Step Law").worked


def test_mean_learning_rate_of_the_schedule():
    linear = Schedule(kind="linear", warmup_steps=3316)
    assert advise(**BLOG, lr=4e-4, schedule=linear).mean_lr_ratio == pytest.approx(0.5, abs=1e-3)
    assert _find(advise(**BLOG, lr=4e-4, schedule=linear), "weight_decay", "Power Lines").warnings == ()
    two_phase = Schedule(kind="two_phase", drop_at=(0.5,), final_lr=4e-5)
    assert advise(**BLOG, lr=4e-4, schedule=two_phase).mean_lr_ratio == pytest.approx(0.55, abs=1e-3)


def test_without_a_learning_rate_deepseeks_is_taken():
    advice = advise(**BLOG)
    assert advice.lr_from == "DeepSeek" and advice.lr == _find(advice, "learning_rate", "DeepSeek").value


def test_other_optimizers_get_no_law():
    advice = advise(**BLOG, lr=1e-4, optimizer="lion")
    assert advice.recommendations == () and "fitted with AdamW" in advice.notes[0] and advice.measured is None


def test_units_that_look_wrong_are_pointed_out():
    advice = advise(**BLOG | {"tokens": 3_183_840}, lr=4e-4)
    assert "fewer than" in advice.notes[0] and "3.26B" in advice.notes[0]
    assert "32 steps" in advise(**BLOG | {"batch_size": 98_304}, lr=4e-4).notes[0]


def test_vision():
    advice = advise(dataset_size=50_000, epochs=200, batch_size=128, lr=0.1, optimizer="sgd", momentum=0.9)
    one = _find(advice, "weight_decay", "timescale")
    assert one.high == pytest.approx(1 / (0.1 * 10 * 391)) and one.high / one.low == pytest.approx(200)
    assert one.low < 5e-4 < one.high  # the usual setting for this run
    assert len(advice.weight_decays_to_try) == 3 and advice.measured is None


def test_carried_over():
    advice = advise(
        dataset_size=50_000,
        epochs=100,
        batch_size=256,
        lr=1e-3,
        reference=Reference(weight_decay=0.05, dataset_size=10_000),
    )
    assert _find(advice, "weight_decay", "constant timescale").value == pytest.approx(0.01)
    advice = advise(**BLOG, lr=4e-4, reference=Reference(weight_decay=0.1, lr=8e-4, batch_size=48, tokens=10**9))
    assert _find(advice, "weight_decay", "constant timescale").value == pytest.approx(0.1 * 2 * 2 / 3.26025216)
    assert advice.weight_decays_to_try == (0.12,)


def test_carried_over_to_another_width_as_mup():
    advice = advise(**BLOG, lr=4e-3, width=768, layers=12, reference=Reference(weight_decay=0.02, width=192))
    assert _find(advice, "weight_decay", "constant timescale, muP").value == pytest.approx(0.08)
    assert _find(advice, "learning_rate", "muP").value == pytest.approx(1e-3)


def test_the_rest_is_for_the_learning_rate_that_mup_recommends():
    run = {"dataset_size": 50_000, "epochs": 100, "batch_size": 250, "width": 1024}
    advice = advise(**run, lr=4e-3, reference=Reference(weight_decay=0.02, width=256))
    one = _find(advice, "weight_decay", "timescale")
    assert _find(advice, "learning_rate", "muP").value == pytest.approx(1e-3)
    assert (one.low, one.high) == pytest.approx((1 / (1e-3 * 200 * 100), 1 / (1e-3 * 200)))
    assert "at lr 0.001" in one.worked
    law = _find(advise(**BLOG, lr=4e-4), "weight_decay", "Power Lines").value
    wider = advise(**BLOG, lr=1.6e-3, width=768, reference=Reference(weight_decay=0.02, width=192))
    assert _find(wider, "weight_decay", "Power Lines").value == pytest.approx(law)


def test_data_given_twice_count_once():
    """Tokens, and examples x epochs, measure the same data."""
    run = {"params": 10**8, "tokens": 2 * 10**9, "seq_len": 1000, "batch_size": 100, "lr": 1e-3}
    for sizes, was in (
        ({"dataset_size": 2_000_000}, {"tokens": 10**9, "dataset_size": 1_000_000}),
        ({"dataset_size": 1_000_000}, {"tokens": 10**9, "dataset_size": 1_000_000, "epochs": 1}),
        ({"dataset_size": 1_000_000}, {"tokens": 10**9, "epochs": 1}),
        ({"dataset_size": 2_000_000}, {"dataset_size": 1_000_000}),
        ({}, {"tokens": 10**9}),
    ):
        advice = advise(**run, **sizes, reference=Reference(weight_decay=0.1, **was))
        assert _find(advice, "weight_decay", "constant timescale").value == pytest.approx(0.05)
    advice = advise(**run, dataset_size=2_000_000, reference=Reference(weight_decay=0.1, tokens=2 * 10**9, lr=2e-3))
    assert _find(advice, "weight_decay", "constant timescale").value == pytest.approx(0.2)


def test_below_one_epoch_there_is_no_range():
    advice = advise(dataset_size=50_000, epochs=0.5, batch_size=128, lr=0.1)
    assert advice.recommendations == () and advice.weight_decays_to_try == ()
    assert len(advice.notes) == 1 and "0.5 of an epoch" in advice.notes[0]
    reference = Reference(weight_decay=0.1, lr=0.2)
    advice = advise(dataset_size=50_000, epochs=0.5, batch_size=128, lr=0.1, reference=reference)
    assert advice.weight_decays_to_try == (0.2,)
    advice = advise(dataset_size=1_000_000, steps=9_999, batch_size=100, lr=0.1)  # one epoch, but for a last batch
    assert advice.recommendations[0].low == advice.recommendations[0].high


def test_carried_over_to_another_batch_also_with_the_square_root():
    advice = advise(**BLOG, lr=4e-4, reference=Reference(weight_decay=0.1, batch_size=24))
    assert _find(advice, "weight_decay", "constant timescale").value == pytest.approx(0.4)
    assert _find(advice, "weight_decay", "constant timescale, lr ~ √batch").value == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 1e-3}, "how long is the run"),
        ({"lr": 1e-3, "steps": 100}, "too little"),
        ({"params": 10**8, "lr": 1e-3, "steps": 100}, "for a language model give"),
        ({"tokens": 10**9, "seq_len": 1024, "batch_size": 8, "lr": 1e-3}, "for a language model give"),
        ({"dataset_size": 100, "epochs": 2, "batch_size": 10}, "--lr"),
        ({**BLOG, "lr": 0.0}, "learning rate"),
        ({**BLOG, "lr": 1e-3, "optimizer": "adam"}, "unknown optimizer"),
        ({**BLOG, "lr": 1e-3, "momentum": 0.9}, "momentum is SGD's"),
        ({**BLOG, "lr": 1e-3, "optimizer": "sgd", "momentum": 1.0}, "below 1"),
        ({**BLOG, "lr": 1e-3, "params": 0}, "at least 1"),
        ({**BLOG, "lr": 1e-3, "schedule": Schedule(kind="linear", final_lr=1.0)}, "rises above its peak"),
        ({**BLOG, "lr": 1e-3, "schedule": Schedule(warmup_steps=1), "tokens": 98_304}, "0 at every step"),
        ({**BLOG, "lr": 1e-3, "schedule": Schedule(warmup_steps=10), "tokens": 98_304}, "longer than the run"),
        ({**BLOG, "lr": 1e-3, "layers": 48, "width": 4096}, "check --params"),
        ({**BLOG, "lr": 1e-3, "steps": 10}, "would fit"),
        ({**BLOG, "lr": 1e-3, "reference": Reference(weight_decay=0.1)}, "no different"),
        ({**BLOG, "lr": 1e-3, "reference": Reference(weight_decay=-0.1, tokens=5)}, "above 0"),
        ({**BLOG, "lr": 1e-3, "reference": Reference(weight_decay=0.0, tokens=5)}, "weight-decay must be .* above 0"),
        ({**BLOG, "lr": 1e-3, "reference": Reference(weight_decay=0.1, tokens=0)}, "--from-tokens must .* above 0"),
        ({**BLOG, "lr": 1e-3, "reference": Reference(weight_decay=0.1, lr=math.nan)}, "--from-lr must .* above 0"),
        ({**BLOG, "lr": 1e-3, "reference": Reference(weight_decay=0.1, width=8)}, "the new run's --width"),
        ({**BLOG, "lr": 1e-3, "reference": Reference(weight_decay=0.1, epochs=2)}, "--epochs and --dataset-size"),
        ({**BLOG, "lr": 1e-3, "reference": Reference(weight_decay=0.1, dataset_size=9)}, "run's --dataset-size"),
        ({**VISION, "reference": Reference(weight_decay=0.1, tokens=10**9)}, "run's --tokens"),
        ({**VISION, "reference": Reference(weight_decay=0.1, epochs=-5.0)}, "--from-epochs must .* above 0, got -5"),
        ({**VISION, "reference": Reference(weight_decay=0.1, epochs=1e300, lr=1e300)}, "no weight decay follows"),
        ({"lr": 1e-3, "steps": 9, "reference": Reference(weight_decay=0.1, batch_size=2)}, "run's --batch-size"),
        (
            {**BLOG, "dataset_size": 3_183_840, "lr": 1e-3}
            | {"reference": Reference(weight_decay=0.1, tokens=10**9, dataset_size=3_183_840)},
            "leave one of the two out",
        ),
        ({**BLOG, "width": 768, "reference": Reference(weight_decay=0.1, width=192)}, "give it with --lr"),
        ({**BLOG, "tokens": 1000, "lr": 1e-3}, "counts sequences"),
    ],
    ids=str,
)
def test_refusals(settings, words):
    with pytest.raises(DecaylabError, match=words) as error:
        advise(**settings)
    assert "\n" not in str(error.value)
