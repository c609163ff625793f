"""Weights as other programs save them: every wrapper, container and tie comes back with the values that were saved."""

import collections

import pytest
import torch
from torch import nn

from decaylab.errors import DecaylabError
from decaylab.tensors.state_dicts import match, weights_inside
from decaylab.train.checkpoints.files import load_model_tensors


class Tied(nn.Module):
    """An embedding whose weights are the head's too."""

    def __init__(self):
        super().__init__()
        self.wte, self.body, self.norm = nn.Embedding(7, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.lm_head = nn.Linear(4, 7, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, x):
        return self.lm_head(self.norm(self.body(self.wte(x))))


class Plain(Tied):
    def __init__(self):
        super().__init__()
        self.lm_head.weight = nn.Parameter(torch.randn(7, 4))


class Lightning(nn.Module):
    """What a Lightning module's state dict looks like: the model below an attribute, and others beside it."""

    def __init__(self, model, **others):
        super().__init__()
        self.model = model
        for name, module in others.items():
            setattr(self, name, module)


SAVED = {
    "plain": lambda m: m.state_dict(),
    "compiled": lambda m: torch.compile(m).state_dict(),
    "data parallel": lambda m: nn.DataParallel(m).state_dict(),
    "compiled and parallel": lambda m: nn.DataParallel(torch.compile(m)).state_dict(),
    "parallel and compiled": lambda m: torch.compile(nn.DataParallel(m)).state_dict(),
    "a part compiled": lambda m: {name.replace("body.", "body._orig_mod."): t for name, t in m.state_dict().items()},
    "model_state_dict": lambda m: {"epoch": 3, "model_state_dict": m.state_dict(), "optimizer_state_dict": {}},
    "state_dict": lambda m: {"pytorch-lightning_version": "2", "state_dict": Lightning(m).state_dict()},
    "beside a metric": lambda m: {"state_dict": Lightning(m, loss=nn.Linear(2, 2)).state_dict()},
    "deep": lambda m: {"model": {"module": nn.DataParallel(m).state_dict()}},
    "other attribute": lambda m: {f"student.net.{name}": t for name, t in m.state_dict().items()},
    "ordered": lambda m: collections.OrderedDict(reversed(m.state_dict().items())),
}


@pytest.mark.parametrize("kind", [Tied, Plain])
@pytest.mark.parametrize("saved", SAVED)
def test_what_was_saved_comes_back(kind, saved, tmp_path):
    torch.manual_seed(0)
    source, target = kind(), kind()
    torch.save(SAVED[saved](source), tmp_path / "w.pt")
    content = torch.load(tmp_path / "w.pt", weights_only=True)
    load_model_tensors(target, match(target, weights_inside(content, "w.pt"), "w.pt"), "w.pt")
    for (name, ours), theirs in zip(target.state_dict().items(), source.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda m: torch.compile(nn.DataParallel(m))])
def test_a_wrapped_model_takes_plain_weights(wrap):
    source, target = Tied(), Tied()
    wrapped = wrap(target)
    load_model_tensors(wrapped, match(wrapped, source.state_dict(), "w.pt"), "w.pt")
    assert torch.equal(target.body.weight, source.body.weight)


def test_any_one_name_of_a_tied_tensor_will_do():
    source, target = Tied(), Tied()
    for left_out in ("wte.weight", "lm_head.weight"):
        tensors = {name: t for name, t in source.state_dict().items() if name != left_out}
        load_model_tensors(target, match(target, tensors, "w.pt"), "w.pt")
        assert torch.equal(target.wte.weight, source.wte.weight)
    with pytest.raises(DecaylabError, match=r"different values for 'wte.weight' and 'lm_head.weight', which .* ties"):
        match(target, Plain().state_dict(), "w.pt")


def test_several_sets_of_weights_are_not_guessed_at():
    twice = {"state_dict": Lightning(Tied(), ema=Tied()).state_dict()}
    with pytest.raises(DecaylabError, match=r"2 times, below 'model\.' and 'ema\.'"):
        match(Tied(), weights_inside(twice, "w.ckpt"), "w.ckpt")


def test_what_does_not_fit_names_what_is_missing_or_strange():
    tensors = Tied().state_dict()
    with pytest.raises(DecaylabError, match="has 'more', which this model has not"):
        match(Tied(), {**tensors, "more": torch.zeros(1)}, "w.pt")
    with pytest.raises(DecaylabError, match=r"has 'model\.more', which this model has not"):
        match(Tied(), {f"model.{name}": t for name, t in {**tensors, "more": torch.zeros(1)}.items()}, "w.pt")
    del tensors["body.bias"]
    with pytest.raises(DecaylabError, match=r"has no 'body\.bias'"):
        match(Tied(), tensors, "w.pt")
    with pytest.raises(DecaylabError, match=r"has no 'wte\.weight' and has 'x' instead"):
        match(Tied(), {"x": torch.zeros(1)}, "w.pt")


@pytest.mark.parametrize(
    "content", [7, [], {}, {"a": 1}, {"state_dict": {}}, {1: torch.zeros(1)}, {"model": {"a": "b"}}]
)
def test_what_holds_no_weights(content):
    with pytest.raises(DecaylabError, match="does not hold a state dict"):
        weights_inside(content, "w.pt")
