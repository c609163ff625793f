"""Which optimizer moves the weights, behind wrappers and in methods that step another one."""

import pytest
import torch
from torch import nn

from decaylab import attach, decay, watch
from decaylab.errors import DecaylabError
from decaylab.params.inner_optimizer import inner_optimizer


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimisation as people write it: ascend, take a gradient there, step the base from here."""

    def __init__(self, params, base, rho=0.05, **options):
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    @torch.no_grad()
    def first_step(self, zero_grad=False):
        norm = torch.stack([p.grad.norm() for g in self.param_groups for p in g["params"]]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.data.clone()
                p.add_(p.grad, alpha=float(group["rho"] / norm))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old"]
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure=None):
        closure = torch.enable_grad()(closure)
        self.first_step(zero_grad=True)
        closure()
        self.second_step()


class SamAlone(torch.optim.Optimizer):
    """The same without an optimizer inside."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def first_step(self):
        pass

    def second_step(self):
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(p.grad, alpha=group["lr"])


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def _backward(net, t):
    net(torch.randn(8, 4, generator=torch.Generator().manual_seed(t))).square().mean().backward()


def _by_hand(net, sam, steps=4):
    for t in range(steps):
        _backward(net, t)
        sam.first_step(zero_grad=True)
        _backward(net, t)
        sam.second_step(zero_grad=True)


def _by_closure(net, sam, steps=4):
    for t in range(steps):
        _backward(net, t)
        sam.step(lambda t=t: _backward(net, t))
        sam.zero_grad()


@pytest.mark.parametrize("drive", [_by_hand, _by_closure])
def test_a_rule_on_sam_is_the_base_optimizers_decay(drive):
    expected, found = _net(), _net()
    drive(expected, Sam(expected.parameters(), torch.optim.AdamW, lr=0.1, weight_decay=0.3))
    sam = Sam(found.parameters(), torch.optim.AdamW, lr=0.1, weight_decay=0.0)
    handle = attach(sam, decay.Decoupled(0.3))
    log = watch(found, sam, every=1)
    drive(found, sam)
    assert handle.steps == 4 and decay.handles(sam) == (handle,) and len(log.records) == 4
    assert all(map(torch.equal, found.parameters(), expected.parameters()))


def test_the_state_of_a_rule_on_sam_is_in_sams_own_state():
    net = _net()
    sam = Sam(net.parameters(), torch.optim.AdamW, lr=0.1, weight_decay=0.0)
    attach(sam, decay.Constrained(kappa=0.9))
    _by_hand(net, sam)
    state = sam.state_dict()
    again = Sam(net.parameters(), torch.optim.AdamW, lr=0.1, weight_decay=0.0)
    handle = attach(again, decay.Constrained(kappa=0.9))
    again.load_state_dict(state)
    assert handle.steps == 4


def test_an_optimizer_stepped_by_other_methods_is_refused_with_the_reason():
    with pytest.raises(DecaylabError, match="SamAlone moves the weights by first_step and second_step too, where"):
        attach(SamAlone(_net().parameters(), lr=0.1), decay.Decoupled(0.1))


def test_an_optimizer_stepped_by_a_method_that_nobody_knows_is_said():
    class Odd(torch.optim.SGD):
        @torch.no_grad()
        def advance(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.add_(p.grad, alpha=-group["lr"])

    net = _net()
    optimizer = Odd(net.parameters(), lr=0.1)
    handle = attach(optimizer, decay.Decoupled(0.1))
    with pytest.warns(UserWarning, match=r"Decoupled on Odd has not acted: the weights moved 3 times") as said:
        for t in range(8):
            optimizer.zero_grad()
            _backward(net, t)
            optimizer.advance()
    assert len(said) == 1 and handle.steps == 0
    assert not net[2].bias._post_accumulate_grad_hooks


def test_nothing_is_said_while_gradients_are_accumulated():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    attach(optimizer, decay.Decoupled(0.1))
    for t in range(6):
        _backward(net, t)
    optimizer.step()
    _backward(net, 7)
    assert not net[2].bias._post_accumulate_grad_hooks


def test_accelerates_wrapper_is_taken_off():
    accelerate = pytest.importorskip("accelerate")
    net = _net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    wrapped = accelerate.Accelerator(cpu=True).prepare(inner)
    handle = attach(wrapped, decay.Decoupled(0.1))
    assert decay.handles(wrapped) == decay.handles(inner) == (handle,)
    _backward(net, 0)
    wrapped.step()
    assert handle.steps == 1


def test_an_optimizer_that_was_not_initialised():
    class Forgetful(torch.optim.Optimizer):
        def __init__(self, params):
            self.param_groups = [{"params": list(params), "lr": 0.1}]
            self.state = {}

    with pytest.raises(DecaylabError, match=r"Forgetful has no step hooks: its __init__ does not call super"):
        attach(Forgetful(_net().parameters()), decay.Decoupled(0.1))


def test_what_is_no_optimizer():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(DecaylabError, match="expected one torch optimizer, got a list: give them one at a time"):
        inner_optimizer([optimizer])
    with pytest.raises(DecaylabError, match="expected a torch optimizer, got Linear"):
        inner_optimizer(net[0])
