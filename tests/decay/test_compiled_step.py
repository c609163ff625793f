"""In a compiled step the rule runs eagerly between the compiled parts, with the result of the eager step."""

import pytest
import torch
from rule_cases import CASES, gradients, learning_rates, optimizer, weights

from decaylab import decay

QUICK = ("l2", "decoupled", "cautious", "sphere_projection")


def run(case, compiled):
    torch._dynamo.reset()
    params = weights(torch.float32)
    opt = optimizer("adam", params)
    decay.attach(opt, case.rule())
    step = torch.compile(opt.step, backend="eager") if compiled else opt.step
    for grads, lr in zip(gradients(4), learning_rates(4), strict=True):
        opt.param_groups[0]["lr"] = lr
        for p, g in zip(params, grads, strict=True):
            p.grad = g.float()
        step()
    return [p.detach().clone() for p in params], decay.handles(opt)[0].steps


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.name in QUICK else pytest.mark.slow, id=case.name) for case in CASES],
)
def test_compiled_is_eager(case):
    expected, steps = run(case, False)
    got, compiled_steps = run(case, True)
    assert steps == compiled_steps == 4
    for a, b in zip(got, expected, strict=True):
        # torch's own compiled Adam differs from the eager one by about this much.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
