"""Rules from configs: names, options, and schedules written flat."""

import subprocess
import sys

import numpy as np
import pytest

from decaylab import decay
from decaylab.errors import DecaylabError
from decaylab.schedules import DecaySchedule


def test_names_and_options():
    assert decay.build("corrected", 0.1, max_lr=0.5) == decay.Corrected(0.1, max_lr=0.5)
    assert decay.build("max-norm", every=3) == decay.MaxNorm(every=3)
    assert decay.build("decoupled") == decay.Decoupled(0.01)
    assert decay.build("decoupled", np.float64(0.1), total_steps=1e3) == decay.Decoupled(0.1, total_steps=1000)
    assert type(decay.build("max_norm", every=np.int64(3)).every) is int
    assert decay.build("sphere_projection", 0.0, joint=False) == decay.SphereProjection(joint=False)


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        ({"schedule": "with_lr"}, DecaySchedule(kind="with_lr")),
        ({"schedule": "early_only", "schedule_fraction": 0.3}, DecaySchedule(kind="early_only", fraction=0.3)),
        (
            {"schedule": "step", "schedule_drop_at": "0.5,0.75", "schedule_drop_factor": 0.2},
            DecaySchedule(kind="step", drop_at=(0.5, 0.75), drop_factor=0.2),
        ),
        ({"schedule": "step", "schedule_drop_at": 0.5}, DecaySchedule(kind="step", drop_at=(0.5,))),
        ({"schedule": {"kind": "step", "drop_at": [0.5]}}, DecaySchedule(kind="step", drop_at=(0.5,))),
        ({"schedule": DecaySchedule(kind="cosine_to_zero")}, DecaySchedule(kind="cosine_to_zero")),
    ],
)
def test_schedules(options, schedule):
    assert decay.build("l2", 0.1, total_steps=10, **options) == decay.L2(0.1, schedule=schedule, total_steps=10)


@pytest.mark.parametrize(
    ("name", "weight_decay", "options", "message"),
    [
        ("decopled", 0.1, {}, "unknown decay rule 'decopled'; did you mean 'decoupled'"),
        ("l2", None, {}, "the rule l2 needs weight_decay"),
        ("l2", -1, {}, "at least 0"),
        ("l2", 0.1, {"max_lr": 1}, "unknown option of the decay rule 'l2' 'max_lr'"),
        ("max_norm", 0.1, {}, "the rule max_norm has no weight_decay"),
        ("max_norm", None, {"schedule": "with_lr"}, "unknown option"),
        ("max_norm", None, {"every": 0}, "every must be at least 1"),
        ("tau_normalize", None, {}, r"not attached to an optimizer \(function\)"),
        ("l2", 0.1, {"schedule": "cosine_to_zero"}, "needs total_steps"),
        ("l2", 0.1, {"schedule": "cosine"}, "unknown decay schedule 'cosine'"),
        ("l2", 0.1, {"schedule": "step", "schedule_at": 1}, "unknown field of a decay schedule 'at'"),
        ("l2", 0.1, {"total_steps": 0}, "total_steps must be at least 1"),
        ("rotational", 0.0, {}, "must be above 0"),
        ("rotational", 0.1, {"kind": "adam"}, "unknown kind of Rotational 'adam'; did you mean 'adamw'"),
        ("constrained", None, {"bound": "warm"}, "unknown bound of Constrained"),
        ("constrained", None, {"kappa": 0}, "kappa above 0"),
        ("selective_projection", 0.1, {"anchor": "first"}, "unknown anchor"),
        ("hyperball", None, {"radius": -1.0}, "radius must be a finite number above 0"),
        ("sphere_projection", None, {"radius": 0}, "radius must be a finite number above 0"),
        ("weight_norm_control", 0.1, {"ratio": -1}, "must not be negative"),
        ("independent", 0.1, {"max_lr": 0}, "max_lr must be above 0"),
        ("max_norm", None, {"fraction": 2}, "fraction must be between 0 and 1"),
        ("max_norm", None, {"every": 2.5}, "every of the decay rule max_norm must be a whole number, not 2.5"),
        ("fixed_norm", None, {"cap": "False"}, "cap of the decay rule fixed_norm must be True or False, not 'False'"),
        ("fixed_norm", None, {"every": True}, "every of the decay rule fixed_norm must be a whole number, not True"),
        ("corrected", 0.1, {"max_lr": "0.1"}, "max_lr of the decay rule corrected must be a number, not '0.1'"),
        ("constrained", None, {"bound": 1}, "bound of the decay rule constrained must be a name, not 1"),
        ("decoupled", "a", {}, "weight_decay of the decay rule decoupled must be a number, not 'a'"),
        ("decoupled", 0.1, {"total_steps": "9"}, "total_steps of the decay rule decoupled must be a whole number"),
    ],
)
def test_mistakes_are_named(name, weight_decay, options, message):
    with pytest.raises(DecaylabError, match=message):
        decay.build(name, weight_decay, **options)


def test_the_table_is_read_without_torch():
    code = "import sys, decaylab.decay.registry, decaylab.decay.docs_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("rule", "counts"),
    [
        (decay.Decoupled(0.1), False),
        (decay.Decoupled(0.1, schedule=DecaySchedule(kind="with_lr")), False),
        (decay.Decoupled(0.1, schedule=DecaySchedule(kind="early_only"), total_steps=4), True),
        (decay.SphereProjection(), False),
        (decay.SphereProjection(every=2), True),
        (decay.Constrained(), False),
        (decay.Constrained(bound="warm_start"), True),
    ],
    ids=str,
)
def test_which_rules_count_steps(rule, counts):
    # A CUDA graph would replay the step that it recorded; these rules are refused there.
    assert rule.counts_steps is counts
