"""Settings that cannot be trained are missed before anything is built, in one line."""

from dataclasses import replace

import pytest

from decaylab.decay import TABLE
from decaylab.errors import DecaylabError
from decaylab.train.config import Decay, LanguageRun, Optimizer, VisionRun, check
from decaylab.train.names import require_names

# What a rule takes of each weight in a step at the peak, at lr 0.5 and weight decay 2.5, under plain SGD; in the table
# of rules but not here: those that have no such share.
TAKEN = {
    "l2": 1.25,
    "decoupled": 1.25,
    "cautious": 1.25,
    "l2_to_anchor": 1.25,
    "independent": 2.5,
    "constant": 2.5,
    "corrected": 1.25,
    "scheduled": 1.25,
    "quadratic_lr": 0.625,
    "loss-l2": 2.5,
    "loss-l2-half": 1.25,
}


def _run(rule, weight_decay=2.5, name="sgd", lr=0.5, **settings):
    return VisionRun(
        optimizer=Optimizer(name=name, lr=lr, **settings), decay=Decay(rule=rule, weight_decay=weight_decay)
    )


def _ask(config):
    check(config)
    require_names(config)


@pytest.mark.parametrize("rule", TAKEN)
def test_a_decay_that_takes_a_whole_weight_in_a_step_is_refused(rule):
    edge = 2.5 / TAKEN[rule]  # the weight decay that takes all of it
    _ask(_run(rule, 0.999 * edge))
    with pytest.raises(DecaylabError, match=r"(flip|erase)") as caught:
        _ask(_run(rule, 1.001 * edge))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ["weight_norm_control", "rotational", "selective_projection"])
def test_a_rule_without_such_a_share_is_not(rule):
    _ask(_run(rule, 2.5, name="adamw"))


def test_every_rule_with_a_weight_decay_is_one_or_the_other():
    known = {*TAKEN, "weight_norm_control", "rotational", "selective_projection"}
    assert {name for name, entry in TABLE.items() if entry.scheduled} <= known


@pytest.mark.parametrize("rule", ["l2", "l2_to_anchor", "loss-l2", "loss-l2-half"])
@pytest.mark.parametrize("name", ["adamw", "signsgd"])
def test_an_optimizer_of_bounded_steps_erases_nothing_by_a_penalty(rule, name):
    _ask(_run(rule, 100.0, name=name))


def test_clipping_bounds_a_penalty_in_the_loss():
    _ask(_run("loss-l2", clip=1.0))
    with pytest.raises(DecaylabError, match="flip"):
        _ask(_run("l2", clip=1.0))  # added after the clipping


def test_momentum_counts_where_the_rule_has_it():
    _ask(_run("scheduled", 0.1, momentum=0.9))
    with pytest.raises(DecaylabError, match="Scheduled would take"):
        _ask(_run("scheduled", 0.3, momentum=0.9))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (_run("rotational", weight_decay=0.0), "weight_decay, which must be above 0"),
        (LanguageRun(optimizer=Optimizer(name="adamw", betas=(0.9, 1.5))), "optimizer adamw cannot be made: .*1.5"),
        (VisionRun(optimizer=Optimizer(momentum=-1.0)), "optimizer sgd cannot be made: .*-1.0"),
    ],
)
def test_what_the_optimizer_does_not_take_is_missed_up_front(config, said):
    with pytest.raises(DecaylabError, match=said):
        _ask(config)


def test_at_zero_decay_nothing_is_refused():
    _ask(replace(LanguageRun(), decay=Decay(rule="decoupled")))
