"""Settings that cannot be trained are missed before anything is built, in one line."""

from dataclasses import replace

import pytest

from decaylab.config.component_checks import check_optimizer
from decaylab.config.schema import Decay, LanguageRun, Optimizer, VisionRun
from decaylab.config.validation import check
from decaylab.decay import TABLE
from decaylab.errors import DecaylabError
from decaylab.experiments.spec import with_settings
from decaylab.train.preflight.components import require_names

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


def test_what_a_rule_does_not_take_is_missed_up_front():
    with pytest.raises(DecaylabError, match="weight_decay, which must be above 0"):
        _ask(_run("rotational", weight_decay=0.0))


def test_at_zero_decay_nothing_is_refused():
    _ask(replace(LanguageRun(), decay=Decay(rule="decoupled")))


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("vision", {"optimizer.momentum": 1.0}, "optimizer.momentum is a share"),
        ("vision", {"optimizer.clip": 0.0}, "optimizer.clip must be positive"),
        ("vision", {"optimizer.clip": float("nan")}, "optimizer.clip must be positive"),
        ("language", {"optimizer.betas": (0.9, float("nan"))}, "optimizer.betas is a share"),
        ("language", {"optimizer.eps": -1.0}, "optimizer.eps must be finite and not negative"),
        ("vision", {"optimizer.dampening": float("inf")}, "optimizer.dampening must be finite"),
        ("vision", {"decay.roles": (), "decay.weight_decay": 0.1}, "decay.roles is empty"),
        ("vision", {"averages.uniform_from": float("nan")}, "averages.uniform_from is a share"),
        ("language", {"evaluation.batches": 0}, "evaluation.batches must be positive"),
        ("language", {"evaluation.top_k": 0}, "evaluation.top_k must be positive"),
        ("language", {"evaluation.prompt": "\udce9"}, "evaluation.prompt is not text in UTF-8"),
        ("vision", {"probes.curvature_every": 0}, "probes.curvature_every must be positive"),
        ("vision", {"probes.curvature_points": -1}, "probes.curvature_points must be positive"),
        (
            "vision",
            {"probes.curvature": ("hessian_trace",), "probes.curvature_at": ("ema0.9",)},
            "unknown place in probes.curvature_at 'ema0.9'; known: iterate",
        ),
        ("vision", {"probes.names": ("hessian_trace",)}, "'hessian_trace' runs the model: it belongs into probes.curv"),
        (
            "vision",
            {"probes.curvature": ("rotation",)},
            "'rotation' reads a training step: it belongs into probes.names",
        ),
        (
            "vision",
            {"decay.rule": "rotational", "decay.weight_decay": 0.1, "decay.roles": ("norm", "bias")},
            "Rotational has no parameter to act on",
        ),
        ("vision", {"divergence.rise": float("nan")}, "divergence.rise must be finite"),
        ("vision", {"weights": "bfloat16"}, "needs precision = bfloat16 too"),
        ("language", {"weights": "bfloat16", "precision": "float16"}, "not with float16"),
        ("vision", {"seed": 2**63}, r"seed must be below 2\^63"),
        ("vision", {"data.seed": -1}, "data.seed must be finite and not negative"),
        ("vision", {"snapshots_every": -1}, "snapshots_every must be finite and not negative"),
        ("vision", {"snapshots_at": (101,)}, "snapshots_at 101 lies outside of the run, which goes from 0 to 100"),
        ("vision", {"model.width": 0}, "model.width must be positive"),
        ("vision", {"model.blocks": -1}, "model.blocks must be positive"),
        ("vision", {"model.architecture": "vgg16"}, "32 x 32 pixels, those of digits have 8 x 8"),
        ("vision", {"model.architecture": "vgg_small", "data.dataset": "cifar10"}, "use vgg16"),
        ("language", {"model.num_heads": 0}, "model.num_heads must be positive"),
        ("language", {"model.num_layers": 0}, "model.num_layers must be positive"),
        ("language", {"model.context": -1}, "model.context must be positive"),
        ("language", {"model.vocab_size": 0}, "model.vocab_size must be positive"),
        ("language", {"model.dropout": 1.0}, "model.dropout is a share"),
        ("language", {"model.init_std": float("nan")}, "model.init_std must be finite"),
        ("language", {"data.train_tokens": 0}, "data.train_tokens must be positive"),
    ],
)
def test_impossible_settings_are_named(kind, changes, said):
    config = {"vision": VisionRun, "language": LanguageRun}[kind]()
    with pytest.raises(DecaylabError, match=said) as caught:
        _ask(with_settings(config, changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.clip": float("inf")},  # only measures
        {"weights": "bfloat16", "precision": "bfloat16"},
        {"snapshots_at": (0, 100)},
        {"averages.ema": (0.9,), "probes.curvature": ("hessian_trace",), "probes.curvature_at": ("iterate", "ema0.9")},
        {"probes.curvature_at": ("ema0.9",)},  # of no curvature
    ],
)
def test_settings_at_the_edge_are_let_through(changes):
    _ask(with_settings(VisionRun(), changes))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("adamw", {"momentum": 0.9}, "optimizer.momentum is for sgd and signsgd; adamw has none"),
        ("adamw", {"dampening": 0.9}, "optimizer.dampening is for sgd; adamw has none"),
        ("signsgd", {"dampening": 0.9, "momentum": 0.9}, "optimizer.dampening is for sgd; signsgd has none"),
        ("sgd", {"betas": (0.9, 0.99)}, "optimizer.betas is for adamw; sgd has none"),
        ("signsgd", {"eps": 1e-6}, "optimizer.eps is for adamw; signsgd has none"),
        ("sgd", {"dampening": 0.9}, "dampening acts on the momentum, which is 0"),
    ],
)
def test_a_setting_that_an_optimizer_has_not_is_refused(name, settings, said):
    with pytest.raises(DecaylabError, match=said):
        check_optimizer(VisionRun(optimizer=Optimizer(name=name, **settings)))


def test_the_settings_that_an_optimizer_has_are_taken():
    for name, settings in (
        ("sgd", {"momentum": 0.9, "dampening": 0.5}),
        ("signsgd", {"momentum": 0.9}),
        ("adamw", {"betas": (0.8, 0.99), "eps": 1e-6}),
    ):
        check_optimizer(VisionRun(optimizer=Optimizer(name=name, **settings)))
