"""Whole advice: what is recommended from what, the mean learning rate, carried-over runs, and refusals."""

import dataclasses
import json
import math

import pytest

from decaylab.advice import Reference, advise
from decaylab.conventions import explain
from decaylab.conventions.reading import reading
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
    assert advice.weight_decays_to_try == (0.01, 0.023, 0.1, 0.17)
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
    assert {4.8e-5, 1.8e-4, 6.8e-4} < set(advice.weight_decays_to_try) and advice.measured is None


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
    assert _find(advice, "weight_decay", "Power Lines, same model").value == pytest.approx(0.4 * 3.26025216**-0.473)
    assert advice.weight_decays_to_try == (0.12, 0.23)


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
    assert advice.recommendations == ()
    # three timescales would be a timescale of 65 updates here: too strong
    assert [one.timescales for one in advice.to_try] == pytest.approx([0.3, 1], rel=0.05)
    assert len(advice.notes) == 1 and "0.5 of an epoch" in advice.notes[0]
    reference = Reference(weight_decay=0.1, lr=0.2)
    advice = advise(dataset_size=50_000, epochs=0.5, batch_size=128, lr=0.1, reference=reference)
    assert 0.2 in advice.weight_decays_to_try and len(advice.weight_decays_to_try) > 1
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


# Runs of every kind: what is tried there has to be what `explain` says of it.
RUNS = {
    "gpt2": {**BLOG, "lr": 4e-4},
    "cosine": {**BLOG, "lr": 6e-4, "schedule": Schedule(kind="cosine", warmup_steps=300)},
    "wsd": {**BLOG, "lr": 6e-4, "schedule": Schedule(kind="wsd", warmup_steps=300)},
    "short": {"params": 1_000_000, "tokens": 20_000_000, "seq_len": 128, "batch_size": 32, "lr": 1e-3},
    "lion": {**BLOG, "lr": 1e-4, "optimizer": "lion"},
    "sgd": {"dataset_size": 50_000, "epochs": 200, "batch_size": 128, "lr": 0.1, "optimizer": "sgd", "momentum": 0.9},
    "one epoch": {"dataset_size": 1_000_000, "epochs": 1, "batch_size": 100, "lr": 1e-3},
    "fine-tuning": {"params": 1_100_000_000, "tokens": 10_000_000, "seq_len": 2048, "batch_size": 8, "lr": 2e-5},
    "high lr": {"dataset_size": 5_000, "epochs": 5, "batch_size": 50, "lr": 0.5},
}


@pytest.mark.parametrize("name", RUNS)
def test_values_to_try_are_what_explain_says_of_them(name):
    """The share removed, the timescales and the mark come out as `explain` has them for the same settings."""
    advice = advise(**RUNS[name])
    assert len(advice.to_try) >= 2
    for one in advice.to_try:
        run = explain(
            optimizer=advice.optimizer,
            lr=advice.lr,
            weight_decay=one.weight_decay,
            schedule=RUNS[name].get("schedule"),
            steps=advice.size.steps,
            momentum=RUNS[name].get("momentum", 0.0),
        )
        assert one.timescales == pytest.approx(run.timescales_in_run, rel=1e-12)
        assert one.removed == pytest.approx(1 - run.total_shrinkage, abs=1e-12)
        said = " ".join(reading(run))
        assert (one.verdict == "close to idle") == ("close to idle" in said)
        assert (one.verdict == "too strong") == ("too strong" in said)
        assert (one.verdict == "none") == ("No decay" in said)
    if advice.stage != "fine-tuning":
        acting = [one for one in advice.to_try if one.verdict == "acts"]
        assert acting, "some value acts in this very run"
        assert max(one.timescales for one in acting) / min(one.timescales for one in acting) > 4, "and they span it"


def test_fine_tuning():
    advice = advise(**RUNS["fine-tuning"])
    assert advice.stage == "fine-tuning" and advice.weight_decays_to_try == (0.0, 0.1)
    (one,) = advice.recommendations
    assert "removes 0.122 %" in one.worked and "L2-SP" in one.notes[1] and "SPD" in one.notes[1]
    assert "next to nothing" in one.notes[0] and any("--stage pre-training" in note for note in advice.notes)
    scratch = advise(**RUNS["fine-tuning"], stage="pre-training")
    assert scratch.stage == "pre-training" and _find(scratch, "weight_decay", "Power Lines")
    # a large learning rate over many steps takes the pre-trained weights away
    strong = advise(steps=20_000, lr=1e-3, stage="fine-tuning")
    assert "keep it small" in strong.recommendations[0].notes[0] and "86.5 %" in strong.recommendations[0].worked
    with pytest.raises(DecaylabError, match="in fine-tuning it decides"):
        advise(steps=100, stage="fine-tuning")
    with pytest.raises(DecaylabError, match="did you mean 'fine-tuning'"):
        advise(steps=100, lr=1e-5, stage="finetuning")


def test_both_laws_of_carrying_over():
    """Ten times the tokens: 0.10 of lambda at a constant share of the run, 0.34 by Power Lines."""
    run = {"params": 10**8, "tokens": 2 * 10**10, "seq_len": 1000, "batch_size": 100, "lr": 1e-3}
    advice = advise(**run, reference=Reference(weight_decay=0.1, tokens=2 * 10**9))
    assert _find(advice, "weight_decay", "constant timescale").value == pytest.approx(0.01)
    law = _find(advice, "weight_decay", "Power Lines, same model").value
    assert law == pytest.approx(0.1 * 10**-0.473)
    # the law itself, asked twice, says the same ratio
    here, there = (advise(**run | {"tokens": tokens}) for tokens in (2 * 10**10, 2 * 10**9))
    ratio = _find(here, "weight_decay", "Power Lines").value / _find(there, "weight_decay", "Power Lines").value
    assert law / 0.1 == pytest.approx(ratio)
    for other in ({"optimizer": "lion"}, {"lr": 2e-3}):  # not fitted there; nothing but the learning rate differs
        settings = run | other
        was = {"tokens": 2 * 10**9} if "optimizer" in other else {"lr": 1e-3}
        old = Reference(weight_decay=0.1, **was)
        methods = [one.method for one in advise(**settings, reference=old).recommendations]
        assert "Power Lines, same model" not in methods and "constant timescale" in methods


def test_several_epochs_are_outside_of_power_lines():
    sizes = {"params": 10**8, "tokens": 4 * 10**9, "seq_len": 1000, "batch_size": 100, "lr": 1e-3}
    several = advise(**sizes, dataset_size=10**6)
    assert any("4 times" in warning for warning in _find(several, "weight_decay", "Power Lines").warnings)
    once = advise(**sizes, dataset_size=4 * 10**6)
    assert not any("times" in warning for warning in _find(once, "weight_decay", "Power Lines").warnings)


def test_parameters_from_the_shape():
    sizes = {"tokens": 3_260_252_160, "seq_len": 1024, "batch_size": 96, "lr": 4e-4}
    advice = advise(**sizes, layers=12, width=768)
    assert advice.params == 84_934_656 and any("without embeddings" in note for note in advice.notes)
    same = advise(**sizes, layers=12, width=768, params=84_934_656)
    assert same.recommendations == advice.recommendations
