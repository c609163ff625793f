"""A training that follows the norms of another one has them, by name, in whatever order the optimizer holds them."""

import copy

import pytest
import torch
from torch import nn

from decaylab import decay
from decaylab.errors import DecaylabError
from decaylab.probes import record_norms


def _model(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model


def _train(model, optimizer, seeds):
    for seed in seeds:
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()


@pytest.fixture
def recorded():
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.0)
    decay.attach(optimizer, decay.Decoupled(2.0))
    recorder = record_norms(optimizer, model)
    _train(model, optimizer, range(6))
    return recorder.trajectory()


@pytest.mark.parametrize("order", [1, -1], ids=["same order", "reversed"])
def test_norms_are_those_of_the_other_training(recorded, order):
    model = _model(scale=3.0)
    optimizer = torch.optim.AdamW([{"params": [p]} for p in list(model.parameters())[::order]], lr=0.05, weight_decay=0)
    decay.follow_norms(optimizer, model, recorded)
    own = record_norms(optimizer, model)
    _train(model, optimizer, range(8))  # two steps longer: the last norms hold
    expected = torch.cat([recorded.norms, recorded.norms[-1:].expand(2, -1)])
    torch.testing.assert_close(own.trajectory().norms, expected, rtol=1e-12, atol=0)


def test_a_run_that_follows_its_own_norms_is_unchanged(recorded):
    """Rescaling by the factor 1 leaves every weight where it is, so the rule adds nothing of its own."""
    model, plain = _model(), _model()
    first = torch.optim.AdamW(plain.parameters(), lr=0.05, weight_decay=0.0)
    own = record_norms(first, plain)
    _train(plain, first, range(5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.0)
    decay.follow_norms(optimizer, model, own.trajectory())
    _train(model, optimizer, range(5))
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_scale_free_loss_gives_the_weights_of_the_decayed_training():
    """With SGD and a loss that only reads directions, lr / norm^2 is all that decay changes: the turns are the same.

    One step of decay c and gradient g on w: (1 - c) w - lr g. Following the norms without decay has to make up for the
    factor 1 - c in the step's length, so lr is divided by it.
    """

    def turn(weight, optimizer, steps):
        target = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
        for _ in range(steps):
            optimizer.zero_grad()
            (weight / weight.norm() - target / target.norm()).square().sum().backward()
            optimizer.step()
        return (weight / weight.norm()).detach()

    start = torch.tensor([2.0, -0.5, 1.0], dtype=torch.float64)
    share, lr = 0.05, 0.3
    weight = nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([weight], lr=lr)
    decay.attach(optimizer, decay.Constant(share))
    holder = nn.ParameterDict({"w": weight})
    recorder = record_norms(optimizer, holder)
    decayed = turn(weight, optimizer, 20)
    other = nn.ParameterDict({"w": nn.Parameter(start.clone())})
    optimizer = torch.optim.SGD(other.parameters(), lr=lr / (1 - share))
    decay.follow_norms(optimizer, other, recorder.trajectory())
    torch.testing.assert_close(turn(other["w"], optimizer, 20), decayed, rtol=0, atol=1e-12)


def test_a_resumed_training_goes_on_at_its_step(recorded):
    whole = _model()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.05, weight_decay=0.0)
    decay.follow_norms(optimizer, whole, recorded)
    _train(whole, optimizer, range(3))
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(whole.state_dict())
    _train(whole, optimizer, range(3, 6))
    again = _model(scale=0.1)
    resumed = torch.optim.AdamW(again.parameters(), lr=0.05, weight_decay=0.0)
    decay.follow_norms(resumed, again, recorded)
    again.load_state_dict(weights)
    resumed.load_state_dict(saved)
    _train(again, resumed, range(3, 6))
    for p, q in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_what_does_not_fit_is_refused(recorded):
    model = _model()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(DecaylabError, match=r"2\.weight is not in the optimizer"):
        decay.follow_norms(optimizer, model, recorded)
    decay.follow_norms(optimizer, model, recorded, names=["0.weight"]).remove()
    with pytest.raises(DecaylabError, match="tensor with recorded norms"):
        decay.follow_norms(optimizer, model, recorded, names=["0.wait"])
    other = nn.Sequential(nn.Linear(3, 5))
    with pytest.raises(DecaylabError, match="shape"):
        decay.follow_norms(torch.optim.SGD(other.parameters(), lr=0.1), other, recorded, names=["0.weight"])
    with pytest.raises(DecaylabError, match=r"no parameter 2\.weight"):
        decay.follow_norms(torch.optim.SGD(other.parameters(), lr=0.1), other, recorded, names=["2.weight"])
    with pytest.raises(DecaylabError, match="1 tensors and was given 2"):
        decay.attach(optimizer, decay.FollowNorms(torch.ones(2, 1)))
    with pytest.raises(DecaylabError, match="steps, tensors"):
        decay.FollowNorms(torch.ones(2))
    with pytest.raises(DecaylabError, match="needs norms"):
        decay.build("follow_norms")
