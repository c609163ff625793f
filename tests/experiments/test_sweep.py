"""What a sweep varies: values of any type, by their paths, with lines that say what does not fit."""

import pytest

from decaylab.config.schema import LanguageRun, VisionRun
from decaylab.errors import DecaylabError
from decaylab.experiments.sweep import axes, plan, settings


def test_values_have_the_type_of_their_setting():
    base = LanguageRun()
    assert axes(base, ["decay.weight_decay=0,0.1,1"]) == {"decay.weight_decay": (0.0, 0.1, 1.0)}
    assert axes(base, ["--decay.weight-decay=0, 1e-2"]) == {"decay.weight_decay": (0.0, 0.01)}
    assert axes(base, ["weight_decay=0,1", "lr=1e-3,3e-3"]) == {
        "decay.weight_decay": (0.0, 1.0), "optimizer.lr": (1e-3, 3e-3)
    }  # fmt: skip
    assert axes(base, ["optimizer.betas=[0.9,0.95],[0.9,0.99]"])["optimizer.betas"] == ((0.9, 0.95), (0.9, 0.99))
    assert axes(base, ["optimizer.clip=none,1"])["optimizer.clip"] == (None, 1.0)
    assert axes(base, ["model.qk_norm=true,no"])["model.qk_norm"] == (True, False)
    assert axes(base, ["rule=decoupled,cautious"])["decay.rule"] == ("decoupled", "cautious")
    assert axes(base, ["steps=100,200"])["steps"] == (100, 200)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "what is varied"),
        (["decay.weight_decay"], "expected KEY=VALUE"),
        (["decay.weight_decy=0,1"], "did you mean 'decay.weight_decay'"),
        (["decay.weight_decay=0"], "has one value"),
        (["decay.weight_decay=0,0.0"], "a value twice"),
        (["decay.weight_decay=0,much"], "must be float"),
        (["steps=1.5,2"], "must be int"),
        (["seed=0,1"], "--seeds N"),
        (["lr=1,2", "optimizer.lr=1,2"], "there twice"),
        (["every=1,2"], "may mean"),
        (["precision=floot16,float32"], "did you mean"),
        (["lr=" + "x" * 3_000_000], "must be float"),
        (["lr=" + "[" * 100_000], "must be float"),
        (["steps=1," + "9" * 5000], "must be int"),
    ],
)
def test_what_does_not_fit_is_said(texts, said):
    with pytest.raises(DecaylabError, match=said):
        axes(LanguageRun(), texts)


def test_every_combination_with_every_seed():
    base = VisionRun(seed=5)
    varied = axes(base, ["decay.weight_decay=0,0.01", "optimizer.betas=[0.9,0.95],[0.9,0.99]"])
    with pytest.raises(DecaylabError, match="betas is for adamw"):  # each combination is checked
        plan(base, varied, 2)
    varied = axes(base, ["decay.weight_decay=0,0.01", "optimizer.lr=0.1,0.2"])
    specs = plan(base, varied, 2)
    assert len(specs) == 8 and len({spec.id for spec in specs}) == 8
    assert {spec.config.seed for spec in specs} == {5, 6}
    names = [setting.name for setting in settings(specs, varied)]
    assert names[0] == "weight_decay 0 with lr 0.1" and len(names) == 4
    assert all(list(setting.runs) == [5, 6] for setting in settings(specs, varied))


def test_too_much_or_nothing():
    varied = axes(VisionRun(), ["lr=0.1,0.2"])
    with pytest.raises(DecaylabError, match="at least 1"):
        plan(VisionRun(), varied, 0)
    with pytest.raises(DecaylabError, match="20,000 runs"):
        plan(VisionRun(), varied, 10_000)
    with pytest.raises(DecaylabError, match="lr x weight decay"):
        plan(VisionRun(), axes(VisionRun(), ["weight_decay=0,100"]), 1)
