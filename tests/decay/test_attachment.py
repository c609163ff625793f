"""Installing a rule: who belongs, what is refused and in which words, and what a step leaves behind."""

import math

import pytest
import torch
from tests.support.rule_cases import gradients, optimizer, train, weights

from decaylab import decay
from decaylab.errors import DecaylabError


def step(opt, params, value=0.0):
    for p in params:
        p.grad = torch.full_like(p, value)
    opt.step()


def test_an_optimizer_that_already_decays_is_refused():
    with pytest.raises(
        DecaylabError, match=r"already has weight_decay=0.01 in group 0.*give the optimizer weight_decay=0"
    ):
        decay.attach(torch.optim.AdamW(weights()), decay.Decoupled(0.1))


@pytest.mark.parametrize("native", [True, False])
def test_decay_that_is_switched_on_later_does_not_act_beside_the_rule(native):
    def run(own):
        params = weights()
        opt = torch.optim.AdamW(params, lr=0.1, weight_decay=0.0)
        decay.attach(opt, decay.Decoupled(0.2), native=native)
        for t in range(3):
            opt.param_groups[0]["weight_decay"] = own * t  # as a schedule of the weight decay writes it
            step(opt, params, 1.0)
            assert opt.param_groups[0]["weight_decay"] == own * t
        return params

    with pytest.warns(UserWarning, match=r"was given weight_decay=0.5 .*left out while Decoupled decays") as said:
        found = run(0.5)
    assert len(said) == 1
    assert all(map(torch.equal, found, run(0.0)))


def test_a_rule_stands_back_where_a_group_that_it_has_a_part_of_decays_itself():
    params = weights()
    opt = torch.optim.AdamW(params, lr=0.1, weight_decay=0.0)
    decay.attach(opt, decay.Decoupled(0.2), params=params[:1])
    opt.param_groups[0]["weight_decay"] = 0.3
    start = [p.detach().clone() for p in params]
    with pytest.warns(UserWarning, match="Decoupled stands back there"):
        step(opt, params)
    for p, old in zip(params, start, strict=True):
        torch.testing.assert_close(p.detach(), old * (1 - 0.1 * 0.3))


def test_a_group_that_joins_with_decay_decays_by_the_rule_alone():
    opt = torch.optim.AdamW(weights()[:1], lr=0.1, weight_decay=0.0)
    decay.attach(opt, decay.Decoupled(0.2))
    late = weights()[1:]
    start = [p.detach().clone() for p in late]
    opt.add_param_group({"params": late, "weight_decay": 0.1})
    with pytest.warns(UserWarning, match=r"group 1 of AdamW was given weight_decay=0.1"):
        step(opt, late)
    for p, old in zip(late, start, strict=True):
        torch.testing.assert_close(p.detach(), old * (1 - 0.1 * 0.2))


def test_two_decays_of_one_parameter_are_refused():
    params = weights()
    opt = optimizer("sgd", params)
    decay.attach(opt, decay.L2(0.1), params=params[:2])
    with pytest.raises(DecaylabError, match="1 parameters already decay by L2"):
        decay.attach(opt, decay.Decoupled(0.1), params=params[1:])
    decay.attach(opt, decay.Decoupled(0.1), params=params[2:])
    assert [type(handle.rule).__name__ for handle in decay.handles(opt)] == ["L2", "Decoupled"]


def test_a_refused_rule_leaves_nothing_behind():
    params = weights()
    opt = optimizer("sgd", params)
    decay.attach(opt, decay.L2(0.1))
    hooks = dict(opt._optimizer_step_pre_hooks)
    with pytest.raises(DecaylabError):
        decay.attach(opt, decay.Decoupled(0.1))
    assert dict(opt._optimizer_step_pre_hooks) == hooks and len(decay.handles(opt)) == 1


def test_a_projection_may_follow_a_decay():
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
    opt = torch.optim.SGD([weight], lr=0.5)
    decay.attach(opt, decay.L2(0.2))
    decay.attach(opt, decay.MaxNorm(threshold=2.0))
    step(opt, [weight])
    torch.testing.assert_close(weight.detach(), torch.tensor([[1.2, 1.6], [0.54, 0.72]]))


def test_rules_for_different_parameters_keep_their_own_state():
    def build():
        params = weights()
        opt = optimizer("adam", params)
        decay.attach(opt, decay.L2ToAnchor(0.1), params=params[:1])
        decay.attach(opt, decay.L2ToAnchor(0.3), params=params[1:2])
        decay.attach(opt, decay.Independent(0.1, schedule=decay.DecaySchedule(kind="with_lr")), params=params[2:])
        return params, opt

    grads = gradients(5)
    _, whole = build()
    expected = train(whole, grads, [0.1, 0.08, 0.06, 0.04, 0.02])
    _, first = build()
    middle = train(first, grads[:2], [0.1, 0.08])
    state = first.state_dict()
    assert {key for group in state["param_groups"] for key in group if "decaylab" in key} == {
        f"decaylab/{slot}/{name}"
        for slot in ("l2toanchor", "l2toanchor-2", "independent")
        for name in ("steps", "max_lr")
    }
    params, second = build()
    for p, value in zip(params, middle, strict=True):
        p.data.copy_(value)
    second.load_state_dict(state)
    assert all(map(torch.equal, train(second, grads[2:], [0.06, 0.04, 0.02]), expected))


def test_a_state_without_the_rule_is_loaded_with_a_warning():
    opt = optimizer("adam", weights())
    state = opt.state_dict()
    decay.attach(opt, decay.FixedNorm())
    with pytest.warns(UserWarning, match="holds nothing of the attached rule FixedNorm"):
        opt.load_state_dict(state)


def test_a_state_with_a_rule_is_loaded_without_it():
    params = weights()
    opt = optimizer("adam", params)
    decay.attach(opt, decay.L2ToAnchor(0.1))
    step(opt, params)
    plain = optimizer("adam", weights())
    plain.load_state_dict(opt.state_dict())
    train(plain, gradients(1))


def test_none_takes_all_but_groups_that_say_no():
    params = weights()
    opt = torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "decay": False}], lr=0.5)
    decay.attach(opt, decay.Decoupled(0.2))
    start = [p.detach().clone() for p in params]
    step(opt, params)
    torch.testing.assert_close(params[0].detach(), 0.9 * start[0])
    assert torch.equal(params[1].detach(), start[1])


def test_given_parameters_win_over_the_groups_word():
    params = weights()
    opt = torch.optim.SGD([{"params": params, "decay": False}], lr=0.5)
    decay.attach(opt, decay.Decoupled(0.2), params=params[:1])
    start = params[0].detach().clone()
    step(opt, params)
    torch.testing.assert_close(params[0].detach(), 0.9 * start)


def test_a_rule_without_any_parameter_is_refused():
    with pytest.raises(DecaylabError, match="no parameter to act on"):
        decay.attach(torch.optim.SGD([{"params": weights(), "decay": False}], lr=0.1), decay.L2(0.1))
    with pytest.raises(DecaylabError, match="no parameter to act on"):
        decay.attach(torch.optim.SGD(weights(shapes=((3,),)), lr=0.1), decay.Hyperball())


def test_a_parameter_that_takes_the_place_of_another_is_met():
    params = weights()
    opt = optimizer("sgd", params)
    decay.attach(opt, decay.FixedNorm())
    train(opt, gradients(1))
    fresh = weights(seed=8)[1]
    norm = fresh.detach().norm().item()
    opt.param_groups[0]["params"][1] = fresh
    train(opt, gradients(2))
    assert fresh.detach().norm().item() == pytest.approx(norm, rel=1e-12)


def test_wrong_arguments_are_named():
    opt = torch.optim.SGD(weights(), lr=0.1)
    with pytest.raises(DecaylabError, match="takes a decay rule, got float"):
        decay.attach(opt, 0.1)
    with pytest.raises(DecaylabError, match=r"expected a torch optimizer, got str"):
        decay.attach("adam", decay.L2(0.1))
    with pytest.raises(DecaylabError, match="1 of the given parameters are not in the optimizer"):
        decay.attach(opt, decay.L2(0.1), params=weights()[:1])
    with pytest.raises(DecaylabError, match="a parameter is complex"):
        decay.attach(torch.optim.SGD([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))], lr=0.1), decay.L2(0.1))


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_an_impossible_lambda_is_refused(wrong):
    with pytest.raises(DecaylabError, match="weight_decay must be a finite number of at least 0"):
        decay.Decoupled(wrong)


def test_a_decay_that_would_flip_weights_is_refused():
    with pytest.raises(DecaylabError, match=r"would take 1.5 times the weight away in one step"):
        decay.attach(torch.optim.SGD(weights(), lr=0.5), decay.Decoupled(3.0))
    params = weights()
    opt = torch.optim.SGD(params, lr=0.1)
    decay.attach(opt, decay.Decoupled(3.0))
    opt.param_groups[0]["lr"] = 0.5
    with pytest.raises(DecaylabError, match="lower weight_decay or the learning rate"):
        step(opt, params)


def test_where_the_peak_learning_rate_comes_from():
    params = weights()
    opt = torch.optim.SGD(params, lr=0.2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.4, total_steps=10)
    handle = decay.attach(opt, decay.Independent(0.5))
    start = params[0].detach().clone()
    step(opt, params)
    scheduler.step()
    torch.testing.assert_close(params[0].detach(), start * (1 - 0.5 * opt.param_groups[0]["initial_lr"] / 0.4))
    handle.remove()

    opt = torch.optim.SGD(params, lr=0.2)
    torch.optim.lr_scheduler.LinearLR(opt, start_factor=0.1)
    decay.attach(opt, decay.Independent(0.5))
    start = params[0].detach().clone()
    step(opt, params)
    torch.testing.assert_close(params[0].detach(), start * (1 - 0.05))


@pytest.mark.parametrize(
    "rule", [decay.Independent(0.1), decay.Corrected(0.1), decay.WeightNormControl(0.1, target=1.0)]
)
def test_a_peak_of_zero_is_said_once_the_learning_rate_is_not(rule):
    params = weights()
    opt = torch.optim.SGD(params, lr=0.0)
    decay.attach(opt, rule)
    step(opt, params, 1.0)
    assert all(map(torch.equal, params, weights()))
    opt.param_groups[0]["lr"] = 0.1
    with pytest.warns(UserWarning, match=r"above max_lr 0, .*give the rule max_lr"):
        step(opt, params, 1.0)
    with pytest.raises(DecaylabError, match="is 0 when the rule is attached: give the rule max_lr"):
        opt = torch.optim.SGD(params, lr=torch.tensor(0.0), foreach=True)
        decay.attach(opt, rule)
        step(opt, params, 1.0)


def test_a_learning_rate_above_its_peak_is_refused_or_becomes_the_peak():
    params = weights()
    opt = torch.optim.SGD(params, lr=0.2)
    with pytest.raises(DecaylabError, match=r"learning rate 0.2 is above max_lr 0.1.*give the rule max_lr"):
        decay.attach(opt, decay.Corrected(0.1, max_lr=0.1))
    opt.param_groups[0]["lr"] = 0.1
    decay.attach(opt, decay.Independent(0.1))
    factors = []
    with pytest.warns(UserWarning, match=r"learning rate 0.2 is above max_lr 0.1.*give the rule max_lr") as said:
        for lr in (0.1, 0.2, 0.1, 0.2):
            opt.param_groups[0]["lr"] = lr
            old = params[0].detach().clone()
            step(opt, params)
            factors.append((params[0].detach() / old).mean().item())
    assert len(said) == 1
    assert factors == pytest.approx([0.9, 0.9, 0.95, 0.9])


def test_a_step_that_fails_leaves_the_settings_as_they_were():
    params = weights()
    opt = optimizer("adam", params)
    decay.attach(opt, decay.Decoupled(0.1))
    step(opt, params)
    with pytest.raises(ZeroDivisionError):
        opt.step(lambda: 1 / 0)
    assert opt.state_dict()["param_groups"][0]["weight_decay"] == 0
    assert opt.param_groups[0]["weight_decay"] == 0


class Deaf(torch.optim.Optimizer):
    """An optimizer that forgets to call its closure."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self, closure=None):
        return None


def test_a_closure_that_is_never_called_is_reported():
    params = weights()
    opt = Deaf(params)
    decay.attach(opt, decay.L2(0.1))
    with pytest.raises(DecaylabError, match="Deaf did not call its closure"):
        opt.step(lambda: 0.0)


def test_lbfgs_minimises_the_penalised_loss():
    # L2 beside LBFGS with a line search is LBFGS on the loss with the penalty written in it.
    def run(penalty):
        weight = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
        opt = torch.optim.LBFGS([weight], lr=1.0, max_iter=5, line_search_fn="strong_wolfe")
        if penalty == 0:
            decay.attach(opt, decay.L2(0.3))

        def closure():
            opt.zero_grad()
            loss = ((weight - 1) ** 4).sum() + penalty / 2 * (weight**2).sum()
            loss.backward()
            return loss

        for _ in range(6):
            opt.step(closure)
        return weight.detach()

    torch.testing.assert_close(run(0), run(0.3), rtol=1e-9, atol=1e-9)


def test_a_group_that_has_just_joined_is_in_the_state():
    opt = optimizer("sgd", weights())
    decay.attach(opt, decay.Independent(0.1))
    opt.add_param_group({"params": weights(seed=9)[:1], "lr": 0.2})
    groups = opt.state_dict()["param_groups"]
    assert [group["decaylab/independent/max_lr"] for group in groups] == [0.1, 0.2]


def test_a_bound_after_a_warm_start_is_set_when_its_tensor_has_a_gradient():
    params = weights()
    opt = torch.optim.SGD(params, lr=0.1)
    handle = decay.attach(opt, decay.Constrained(bound="warm_start", steps=2))
    for t, g in enumerate(gradients(4)):
        for i, (p, x) in enumerate(zip(params, g, strict=True)):
            p.grad = None if i == 1 and t in (1, 2) else x
        opt.step()
    bounds = [handle._members.state[p]["kappa"].item() for p in params]
    assert all(map(math.isfinite, bounds))


def test_rules_are_data():
    assert decay.Decoupled(0.1) == decay.build("decoupled", 0.1)
    assert hash(decay.Decoupled(0.1)) == hash(decay.Decoupled(0.1))
    assert repr(decay.MaxNorm()) == "MaxNorm(threshold=None, fraction=0.1, every=1)"


@pytest.mark.parametrize("chosen", ["all", "list", "function"])
def test_the_same_rule_is_attached_once(chosen):
    params = weights()
    given = {"all": None, "list": params[:2], "function": dict.fromkeys(params[:2]).__contains__}[chosen]
    opt = optimizer("sgd", params)
    handle = decay.attach(opt, decay.Decoupled(0.2), params=given)
    hooks = dict(opt._optimizer_step_pre_hooks)
    assert decay.attach(opt, decay.Decoupled(0.2), params=list(given) if chosen == "list" else given) is handle
    assert dict(opt._optimizer_step_pre_hooks) == hooks and decay.handles(opt) == (handle,)
    with pytest.raises(DecaylabError, match=r"already decay by Decoupled: remove that rule first \(decay.handles"):
        decay.attach(opt, decay.Decoupled(0.3), params=given)


def test_a_function_chooses_parameters_that_join_later():
    params = weights()
    chosen = {id(params[0]), id(params[2])}
    opt = torch.optim.SGD(params[:2], lr=0.5)
    decay.attach(opt, decay.Decoupled(0.2), params=lambda p: id(p) in chosen)
    opt.add_param_group({"params": params[2:]})
    start = [p.detach().clone() for p in params]
    step(opt, params)
    for p, old, factor in zip(params, start, (0.9, 1.0, 0.9), strict=True):
        torch.testing.assert_close(p.detach(), factor * old)


def test_what_joins_later_and_does_not_fit_is_left_alone_and_said():
    params = weights()
    opt = torch.optim.SGD(params[:1], lr=0.5)
    handle = decay.attach(opt, decay.Decoupled(0.2))
    odd = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    opt.add_param_group({"params": [odd]})
    with pytest.warns(
        UserWarning, match="Decoupled leaves 1 parameters alone that joined group 1 later: .*complex"
    ) as said:
        for _ in range(3):
            step(opt, [params[0], odd])
    assert len(said) == 1 and not handle.covers(opt.param_groups[1], odd)
    assert torch.equal(odd.detach(), torch.ones(2, dtype=torch.complex64))


def test_a_rule_in_a_with_block_goes_on_exceptions():
    params = weights()
    opt = optimizer("sgd", params)
    with pytest.raises(KeyboardInterrupt), decay.attach(opt, decay.Decoupled(0.2)):
        step(opt, params)
        raise KeyboardInterrupt
    assert not decay.handles(opt) and not opt._optimizer_step_pre_hooks
