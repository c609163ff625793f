"""A rule's state and its members on every way on which an optimizer's state is saved and loaded."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn

from decaylab import decay, params
from decaylab.errors import DecaylabError

TOTAL = 8


def net(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)).to(dtype)


def rule():
    """Keeps a norm for every tensor, and counts the steps of its schedule."""
    return decay.WeightNormControl(
        0.2, ratio=0.5, schedule=decay.DecaySchedule(kind="cosine_to_zero"), total_steps=TOTAL
    )


def make(kind, model):
    groups = params.decay_groups(model)
    if kind == "adam":
        return torch.optim.AdamW(groups, lr=0.05, weight_decay=0.0)
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9 if kind == "sgdm" else 0.0)


def train(model, optimizer, steps):
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        tokens = torch.randint(0, 5, (7,), generator=generator)
        optimizer.zero_grad()
        model(tokens).float().square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def whole(kind, dtype=torch.float32):
    model = net(dtype)
    optimizer = make(kind, model)
    decay.attach(optimizer, rule())
    return train(model, optimizer, range(TOTAL))


def half(kind, dtype=torch.float32):
    model = net(dtype)
    optimizer = make(kind, model)
    decay.attach(optimizer, rule())
    train(model, optimizer, range(4))
    return model, optimizer


def fresh(kind, saved_model, dtype=torch.float32):
    model = net(dtype)
    model.load_state_dict(saved_model.state_dict())
    return model, make(kind, model)


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("order", ["attach, load", "load, attach"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["adam", "sgd", "sgdm"])
def test_torch(kind, dtype, order):
    model, optimizer = half(kind, dtype)
    state = through_a_file(optimizer.state_dict())
    model, optimizer = fresh(kind, model, dtype)
    if order == "attach, load":
        handle = decay.attach(optimizer, rule())
        optimizer.load_state_dict(state)
    else:
        optimizer.load_state_dict(state)
        handle = decay.attach(optimizer, rule())
    assert handle.steps == 4 and handle.restored
    found = train(model, optimizer, range(4, TOTAL))
    assert all(map(torch.equal, found, whole(kind, dtype)))
    assert not [key for group in optimizer.param_groups for key in group if "/" in key]
    live = [value for entry in optimizer.state.values() for key, value in entry.items() if "/" in key]
    assert all(value == -1 for value in live)  # names for torch.distributed.checkpoint, where that is imported


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flattened"])
@pytest.mark.parametrize("kind", ["adam", "sgd", "sgdm"])
@pytest.mark.filterwarnings("ignore")
def test_distributed_checkpoint(kind, flat, tmp_path):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = half(kind)
    dcp.save({"optimizer": get_optimizer_state_dict(model, optimizer, options=options)}, checkpoint_id=tmp_path)
    model, optimizer = fresh(kind, model)
    start = [p.detach().clone() for p in model.parameters()]
    handle = decay.attach(optimizer, rule())
    state = {"optimizer": get_optimizer_state_dict(model, optimizer, options=options)}
    # torch takes a step to create the optimizer's state; it is none of the rule's
    assert handle.steps == 0 and all(map(torch.equal, model.parameters(), start))
    dcp.load(state, checkpoint_id=tmp_path)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)
    assert handle.steps == 4 and handle.restored
    assert all(map(torch.equal, train(model, optimizer, range(4, TOTAL)), whole(kind)))


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@pytest.mark.filterwarnings("ignore")
def test_a_flattened_state_can_be_rolled_back_to(kind):
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(flatten_optimizer_state_dict=True)
    model, optimizer = half(kind)
    (handle,) = decay.handles(optimizer)
    weights = copy.deepcopy(model.state_dict())
    state = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    train(model, optimizer, range(20, 23))
    model.load_state_dict(weights)
    set_optimizer_state_dict(model, optimizer, state, options=options)
    assert handle.steps == 4 and handle.restored
    assert all(map(torch.equal, train(model, optimizer, range(4, TOTAL)), whole(kind)))
    handle.remove()
    assert not [key for entry in optimizer.state.values() for key in entry if "/" in str(key)]


@pytest.mark.parametrize("rule", [decay.Constant(0.1), decay.SphereProjection(), decay.Decoupled(0.1)], ids=repr)
@pytest.mark.filterwarnings("ignore")
def test_saving_before_the_first_step_is_no_step(rule):
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = net()
    optimizer = make("sgd", model)
    handle = decay.attach(optimizer, rule)
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(3):
        get_optimizer_state_dict(model, optimizer)
    assert handle.steps == 0 and all(map(torch.equal, model.parameters(), start))


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_deep_copy_carries_the_state_and_says_that_the_rule_is_gone(kind):
    model, optimizer = half(kind)
    with pytest.warns(UserWarning, match="has no WeightNormControl: copies take no hooks along; attach the rule"):
        model, twin = copy.deepcopy((model, optimizer))
    assert not decay.handles(twin)
    handle = decay.attach(twin, rule())
    assert handle.steps == 4
    assert all(map(torch.equal, train(model, twin, range(4, TOTAL)), whole(kind)))


def test_pickle_carries_the_state_and_says_that_the_rule_is_gone():
    model, optimizer = half("adam")
    with pytest.warns(UserWarning, match="the copy of AdamW has no WeightNormControl"):
        model, twin = pickle.loads(pickle.dumps((model, optimizer)))
    assert decay.attach(twin, rule()).steps == 4
    assert all(map(torch.equal, train(model, twin, range(4, TOTAL)), whole("adam")))


def test_an_optimizer_whose_rule_was_removed_is_copied_in_silence():
    _, optimizer = half("adam")
    before = set(optimizer.__dict__)
    for handle in decay.handles(optimizer):
        handle.remove()
    copy.deepcopy(optimizer)
    left = set(optimizer.__dict__)
    assert not [name for name in left if "decaylab" in name] and not left & {"step", "__getstate__"}
    assert before - left == {"_decaylab_handles", "_decaylab_step_guard", "step", "__getstate__"}
    assert not [key for group in optimizer.state_dict()["param_groups"] for key in group if "decaylab" in key]


def test_what_is_saved_after_a_stopped_rule_has_its_state():
    model, optimizer = half("adam")
    (handle,) = decay.handles(optimizer)
    handle.stop()
    assert not decay.handles(optimizer)
    weights = [p.detach().clone() for p in model.parameters()]
    state = optimizer.state_dict()
    model, optimizer = fresh("adam", model)
    optimizer.load_state_dict(state)
    assert decay.attach(optimizer, rule()).steps == 4
    assert all(map(torch.equal, model.parameters(), weights))


# ------------------------------------------------------------------- members


def stranger(model, weight_decay=0.0, reverse=False):
    """The state of an optimizer of somebody else with two groups and no mark of ours."""
    groups = [{k: v for k, v in group.items() if k == "params"} for group in params.decay_groups(model)]
    groups = groups[::-1] if reverse else groups
    optimizer = torch.optim.AdamW(groups, lr=0.05, weight_decay=weight_decay)
    train(model, optimizer, range(2))
    return optimizer.state_dict()


def shrinking(model, optimizer):
    """Names of the parameters that a step without gradients shrinks."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for group in optimizer.param_groups:
        group["betas"] = (0.0, 0.0)  # no update but decay
    optimizer.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


DECAYING = {"0.weight", "1.weight", "3.weight"}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("native", [True, False])
def test_a_strangers_state_loaded_after_attaching(weight_decay, native):
    model = net()
    state = stranger(model, weight_decay)
    optimizer = make("adam", model)
    decay.attach(optimizer, decay.Decoupled(0.1), native=native)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        optimizer.load_state_dict(state)
    told = [str(warning.message) for warning in said]
    assert any("holds nothing of the attached rule" in text for text in told)
    assert len([text for text in told if "has weight_decay=0.1 in group" in text]) == (2 if weight_decay else 0)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0]
    assert [group["decay"] for group in optimizer.param_groups] == [True, False]
    assert shrinking(model, optimizer) == DECAYING
    weight = model[1].weight.detach().clone()
    shrinking(model, optimizer)
    torch.testing.assert_close(model[1].weight.detach(), weight * (1 - 0.05 * 0.1))  # once, not twice


def test_a_strangers_state_loaded_before_attaching():
    model = net()
    state = stranger(model)
    optimizer = make("adam", model)
    optimizer.load_state_dict(state)
    assert not any("decay" in group for group in optimizer.param_groups)
    decay.attach(optimizer, decay.Decoupled(0.1))
    assert shrinking(model, optimizer) == DECAYING


def test_the_message_blames_the_loaded_state_not_the_user():
    model = net()
    optimizer = make("adam", model)
    optimizer.load_state_dict(stranger(model, 0.1))
    with pytest.raises(DecaylabError, match=r"was made with weight_decay=0, .*a loaded state brings"):
        decay.attach(optimizer, decay.Decoupled(0.1))


def test_groups_whose_keys_were_replaced_without_loading():
    model = net()
    optimizer = make("adam", model)
    decay.attach(optimizer, decay.Decoupled(0.1))
    for group in optimizer.param_groups:
        del group["decay"]
    assert shrinking(model, optimizer) == DECAYING


def test_a_state_of_ours_with_other_marks_changes_no_members():
    model = net()
    other = torch.optim.AdamW(params.decay_groups(model, decay=("norm", "bias"), include=("0.weight",)), lr=0.05)
    sizes = [len(group["params"]) for group in other.param_groups]
    state = other.state_dict()
    groups = params.decay_groups(model)
    assert sorted(sizes) == sorted(len(group["params"]) for group in groups) or sizes
    optimizer = torch.optim.AdamW(
        [{"params": list(model.parameters())[: sizes[0]]}, {"params": list(model.parameters())[sizes[0] :]}],
        lr=0.05,
        weight_decay=0.0,
    )
    for group in state["param_groups"]:
        group["weight_decay"] = 0.0
    handle = decay.attach(optimizer, decay.Decoupled(0.1), params=list(model.parameters()))
    with pytest.warns(UserWarning, match="holds nothing"):
        optimizer.load_state_dict(state)
    assert all(handle.covers(group, p) for group in optimizer.param_groups for p in group["params"])
    assert not any("decay" in group for group in optimizer.param_groups)


def test_a_number_called_decay_is_no_mark():
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([{"params": [weight], "decay": 0.0}], lr=0.5)  # an average's decay, say
    decay.attach(optimizer, decay.Decoupled(0.2))
    weight.grad = torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.9))
