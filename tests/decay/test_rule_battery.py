"""Every rule of the table against the slow oracle, and in every circumstance that a rule must stand."""

import copy
import dataclasses
import io

import pytest
import torch
from tests.support.rule_cases import (
    CASES,
    LAMBDA,
    NORMS,
    SHAPES,
    gradients,
    learning_rates,
    optimizer,
    oracle,
    train,
    weights,
)
from torch.utils._python_dispatch import TorchDispatchMode

from decaylab import decay

PAIRS = [(case, kind) for case in CASES for kind in case.optimizers]


def each(cases=CASES):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


each_pair = pytest.mark.parametrize(("case", "kind"), PAIRS, ids=[f"{case.name}-{kind}" for case, kind in PAIRS])


def test_every_rule_has_a_case():
    assert [case.name for case in CASES] == [name for name, entry in decay.TABLE.items() if entry.use == "attach"]


@pytest.mark.parametrize("entry", decay.TABLE.values(), ids=lambda entry: entry.name)
def test_the_table_tells_the_truth(entry):
    thing = entry.load()
    assert thing.__name__.replace("_", "").lower() == entry.name.replace("_", "")
    if entry.use == "attach":
        told = {option.name: option.default for option in entry.options}
        fields = [f for f in dataclasses.fields(thing) if f.name not in ("schedule", "total_steps")]
        true = {f.name: "required" if f.default is dataclasses.MISSING else repr(f.default) for f in fields}
        assert told == true
        assert all(f"{option.name}:" in _docs(thing) for option in entry.options)


def _docs(thing):
    return "".join(base.__doc__ or "" for base in thing.__mro__)


@pytest.mark.parametrize("native", [True, False], ids=["native", "own"])
@each_pair
def test_agrees_with_the_oracle(case, kind, native):
    start, grads, lrs = weights(), gradients(6), learning_rates(6)
    expected = oracle(case.name, kind, start, grads, lrs, 0.1, LAMBDA)
    opt = optimizer(kind, start)
    decay.attach(opt, case.rule(), native=native)
    for got, want in zip(train(opt, grads, lrs), expected, strict=True):
        torch.testing.assert_close(got, torch.from_numpy(want), rtol=0, atol=2e-12)


@pytest.mark.parametrize("native", [True, False], ids=["native", "own"])
@each([case for case in CASES if case.has_lambda and case.name != "rotational"])
def test_zero_decay_is_a_no_op(case, native):
    for kind in case.optimizers:
        plain, ruled = optimizer(kind, weights()), optimizer(kind, weights())
        decay.attach(ruled, case.rule(0.0), native=native)
        grads, lrs = gradients(3), learning_rates(3)
        assert all(map(torch.equal, train(plain, grads, lrs), train(ruled, grads, lrs)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@each_pair
def test_lower_precision(case, kind, dtype):
    start = weights(dtype)
    grads, lrs = gradients(5), learning_rates(5)
    grads = [[g.to(dtype).double() for g in step] for step in grads]
    expected = oracle(case.name, kind, start, grads, lrs, 0.1, LAMBDA)
    opt = optimizer(kind, start)
    decay.attach(opt, case.rule())
    tolerance = 3e-5 if dtype == torch.float32 else 0.08
    for got, want in zip(train(opt, grads, lrs), expected, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), torch.from_numpy(want), rtol=tolerance, atol=tolerance)


@each()
def test_a_tensor_learning_rate(case):
    for kind in case.optimizers:
        grads, lrs = gradients(4), learning_rates(4)
        number, tensor = optimizer(kind, weights()), optimizer(kind, weights(), torch.tensor(0.1, dtype=torch.float64))
        for opt in (number, tensor):
            decay.attach(opt, case.rule())
        for a, b in zip(train(number, grads, lrs), train(tensor, grads, lrs), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


class Count(TorchDispatchMode):
    """Counts what reaches the dispatcher."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


@each([case for case in CASES if not case.per_row])
def test_the_number_of_calls_does_not_grow_with_the_number_of_tensors(case):
    counts = []
    for copies in (2, 9):
        extra = []
        for attached in (False, True):
            shapes = SHAPES * copies
            # foreach, so that the optimizer's own calls are few; the first step, which makes state, is not counted
            opt = optimizer("adam", weights(torch.float32, shapes=shapes), foreach=True)
            if attached:
                decay.attach(opt, case.rule(), native=False)
            train(opt, gradients(2, shapes=shapes))
            grads = gradients(1, shapes=shapes)
            with Count() as count:
                train(opt, grads)
            extra.append(count.calls)
        counts.append(extra[1] - extra[0])
    # stack and unbind of one number a tensor are the views that one call returns
    assert counts[0] == counts[1]


@each()
def test_resumes_from_the_optimizers_own_state(case):
    grads, lrs = gradients(7), learning_rates(7)
    more = {"schedule": "cosine_to_zero", "total_steps": 9} if case.has_lambda else {}
    kind = case.optimizers[0]
    whole = optimizer(kind, weights())
    decay.attach(whole, case.rule(**more))
    expected = train(whole, grads, lrs)

    first = optimizer(kind, weights())
    decay.attach(first, case.rule(**more))
    saved_weights = train(first, grads[:3], lrs[:3])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    before = {key: set(value) for key, value in state["state"].items()}

    params = weights(seed=5)
    second = optimizer(kind, params)
    handle = decay.attach(second, case.rule(**more))
    with torch.no_grad():
        for p, saved in zip(params, saved_weights, strict=True):
            p.copy_(saved)
    second.load_state_dict(state)
    assert handle.steps == 3
    assert {key: set(value) for key, value in state["state"].items()} == before  # the caller's dictionary is his
    assert not any("decaylab" in str(key) for group in second.param_groups for key in group)
    assert not any("decaylab" in str(key) for entry in second.state.values() for key in entry)
    assert all(map(torch.equal, train(second, grads[3:], lrs[3:]), expected))


@each()
def test_groups_added_later(case):
    for kind in case.optimizers:
        params, grads, lrs = weights(), gradients(4), learning_rates(4)
        opt = optimizer(kind, params[:2])
        decay.attach(opt, case.rule())
        train(opt, [g[:2] for g in grads[:2]], lrs[:2])
        opt.add_param_group({"params": params[2:] + weights(seed=9)[:1], "lr": 0.1, "weight_decay": 0.0})
        alone = opt.param_groups[1]["params"][1].detach().clone().requires_grad_()
        other = optimizer(kind, [alone])
        plain = other if case.name == "sphere_projection" else None
        if plain is None:
            decay.attach(other, case.rule())
        late = [[*g, g[0]] for g in gradients(2, seed=3)]
        got = train(opt, late)
        if case.name in ("sphere_projection",):
            assert sum(p.square().sum() for p in got).sqrt().item() == pytest.approx(2.0, abs=1e-12)
        elif case.name == "follow_norms":
            assert got[3].norm().item() == pytest.approx(NORMS[3, 3].item())
        elif case.name == "normalize_and_project":
            assert got[3].norm().item() == pytest.approx(alone.norm().item())
        elif case.name == "scheduled" and kind == "adam":
            assert got[3].isfinite().all()  # its decay depends on every parameter of the optimizer
        else:
            torch.testing.assert_close(got[3], train(other, [[g[3]] for g in late])[0], rtol=0, atol=1e-12)


# Columns of follow_norms go by the order of the groups, which this test changes.
@pytest.mark.parametrize(
    ("case", "kind"), [pytest.param(c, k, id=f"{c.name}-{k}") for c, k in PAIRS if c.name != "follow_norms"]
)
def test_a_group_of_two_number_types_is_as_two_groups(case, kind):
    results = []
    for together in (True, False):
        params = weights()
        params[1] = torch.nn.Parameter(params[1].detach().float())
        grads = [[g[0], g[1].float(), g[2]] for g in gradients(4)]
        groups = [[0, 1, 2]] if together else [[0, 2], [1]]
        opt = optimizer(kind, [{"params": [params[i] for i in group]} for group in groups])
        decay.attach(opt, case.rule())
        train(opt, [[g[i] for group in groups for i in group] for g in grads], learning_rates(4))
        results.append(params)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("native", [True, False], ids=["native", "own"])
@each_pair
def test_climbing_is_descending_along_turned_gradients(case, kind, native):
    results = []
    for sign in (1.0, -1.0):
        opt = optimizer(kind, weights(), maximize=sign < 0)
        decay.attach(opt, case.rule(), native=native)
        results.append(train(opt, [[sign * g for g in step] for step in gradients(5)], learning_rates(5)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@each()
def test_no_gradient_no_touch(case):
    for kind in case.optimizers:
        params = weights()
        opt = optimizer(kind, params)
        decay.attach(opt, case.rule())
        still = params[1].detach().clone()
        for step in gradients(3):
            params[0].grad, params[1].grad, params[2].grad = step[0], None, step[2]
            opt.step()
        assert torch.equal(params[1], still)
        assert not opt.state.get(params[1])
        if case.name == "sphere_projection":
            assert sum(p.detach().square().sum() for p in params).sqrt().item() == pytest.approx(2.0, abs=1e-12)


@each()
def test_zero_gradient(case):
    params = weights()
    opt = torch.optim.SGD(params, lr=0.1)
    decay.attach(opt, case.rule())
    start = [p.detach().clone() for p in params]
    end = train(opt, [[torch.zeros_like(p) for p in params]] * 4)
    for number, (before, after) in enumerate(zip(start, end, strict=True)):
        if case.name == "follow_norms":
            torch.testing.assert_close(after, before * NORMS[3, number] / before.norm(), rtol=0, atol=1e-12)
        elif case.zero_grad == "stays":
            torch.testing.assert_close(before, after, rtol=0, atol=1e-12)
        elif before.dim() > 1 or case.name != "max_norm":
            assert after.norm() < before.norm()


@each()
def test_with_a_closure(case):
    for kind in case.optimizers:
        results = []
        for with_closure in (False, True):
            params = weights()
            opt = optimizer(kind, params)
            decay.attach(opt, case.rule())

            def closure(params=params, opt=opt):
                opt.zero_grad()
                loss = sum((p**4).sum() for p in params)
                loss.backward()
                return loss

            for _ in range(3):
                if with_closure:
                    opt.step(closure)
                else:
                    closure()
                    opt.step()
            results.append([p.detach().clone() for p in params])
        assert all(map(torch.equal, *results))


@each([case for case in CASES if case.name not in ("rotational", "scheduled")])
def test_lbfgs_evaluates_its_closure_many_times(case):
    params = weights()
    opt = torch.optim.LBFGS(params, lr=0.1, max_iter=4)
    decay.attach(opt, case.rule())
    target = [torch.ones_like(p) for p in params]

    def closure():
        opt.zero_grad()
        loss = sum(((p - t) ** 2).sum() for p, t in zip(params, target, strict=True))
        loss.backward()
        return loss

    first = opt.step(closure)
    for _ in range(4):
        last = opt.step(closure)
    assert all(p.isfinite().all() for p in params)
    assert last < first


@each()
def test_removed_without_a_trace(case):
    for kind in case.optimizers:
        params = weights()
        opt = optimizer(kind, params)
        handle = decay.attach(opt, case.rule())
        train(opt, gradients(2))
        handle.remove()
        handle.remove()
        assert not opt._optimizer_step_pre_hooks and not opt._optimizer_step_post_hooks
        assert not any("decaylab" in str(key) for group in opt.state_dict()["param_groups"] for key in group)
        assert decay.handles(opt) == ()
        copies = [p.detach().clone().requires_grad_() for p in params]
        plain = optimizer(kind, copies)
        plain.load_state_dict(copy.deepcopy(opt.state_dict()))
        assert all(map(torch.equal, train(opt, gradients(2, seed=4)), train(plain, gradients(2, seed=4))))
