"""In a compiled step the rule runs eagerly between the compiled parts, with the result of the eager step."""

import pytest
import torch
from tests.support.rule_cases import CASES, gradients, learning_rates, optimizer, weights

from decaylab import decay

# Tracing Adam takes a second a rule, so for most of them SGD has to do, at a constant learning rate.
ON_ADAM = ("l2", "decoupled", "scheduled")


def run(case, compiled):
    torch._dynamo.reset()
    params = weights(torch.float32)
    on_adam = case.name in ON_ADAM
    opt = optimizer("adam", params) if on_adam else torch.optim.SGD(params, lr=0.1)
    decay.attach(opt, case.rule())
    step = torch.compile(opt.step, backend="eager") if compiled else opt.step
    for grads, lr in zip(gradients(3), learning_rates(3) if on_adam else [0.1] * 3, strict=True):
        opt.param_groups[0]["lr"] = lr
        for p, g in zip(params, grads, strict=True):
            p.grad = g.float()
        step()
    return [p.detach().clone() for p in params], decay.handles(opt)[0].steps


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compiled_is_eager(case):
    expected, steps = run(case, False)
    got, compiled_steps = run(case, True)
    assert steps == compiled_steps == 3
    for a, b in zip(got, expected, strict=True):
        # torch's own compiled Adam differs from the eager one by about this much.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
