"""Optimizers and decays of a language run against their textbook equations, a parameter and a step at a time."""

import copy
from dataclasses import replace

import pytest
import torch

from decaylab.config.schema import (
    Decay,
    Evaluation,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
    VisionRun,
)
from decaylab.params import roles
from decaylab.schedules import Schedule
from decaylab.train.build import stepper
from decaylab.train.distributed import Processes
from decaylab.train.trainer import Training

BASE = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=2, width=16, context=16, bias=True, tied=False),
    data=LanguageData(tokenizer="ascii"),
    schedule=Schedule(kind="constant", warmup_steps=2),
    evaluation=Evaluation(every=100, batches=1, batch_size=2),
    probes=Probes(names=(), every=100),
    batch_size=4,
    accumulation=2,
    steps=6,
)
OPTIMIZERS = {
    # The gradient of the bias of the keys is zero but for rounding, which a smaller eps would blow up.
    "adamw": Optimizer(name="adamw", lr=1e-2, betas=(0.8, 0.95), eps=1e-4, clip=0.5),
    "sgd": Optimizer(name="sgd", lr=0.5),
    "sgd with momentum": Optimizer(name="sgd", lr=0.5, momentum=0.9, clip=0.5),
    "sgd with dampening": Optimizer(name="sgd", lr=0.5, momentum=0.9, dampening=0.9),
    "sign descent": Optimizer(name="signsgd", lr=1e-3),
    "sign descent with momentum": Optimizer(name="signsgd", lr=1e-3, momentum=0.9, clip=0.5),
}
DECAYS = {
    "decoupled": Decay(rule="decoupled", weight_decay=0.5, roles=("matrix", "embedding", "head")),
    "coupled": Decay(rule="l2", weight_decay=0.05, roles=("all",)),
    "in the loss": Decay(rule="loss-l2", weight_decay=0.05, roles=("embedding", "norm", "bias")),
    "half in the loss": Decay(rule="loss-l2-half", weight_decay=0.05, roles=("matrix",)),
    "none": Decay(),
}


@pytest.fixture(scope="module", autouse=True)
def _corpus(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("DECAYLAB_HOME", str(tmp_path_factory.mktemp("data")))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _home(_corpus):
    """Instead of the suite's fixture with the same name, which gives every test an empty folder."""


def _gradients(model, batches, penalised, coefficient, clip):
    """Of the mean loss plus the penalty, clipped."""
    model.zero_grad()
    loss = sum(model.loss(x, y) for x, y in batches) / len(batches)
    if penalised:
        loss = loss + coefficient * sum((w**2).sum() for w in penalised)
    loss.backward()
    norm = sum((p.grad**2).sum() for p in model.parameters()).sqrt().item()
    return {name: p.grad * (min(1.0, clip / norm) if clip else 1.0) for name, p in model.named_parameters()}


def _direction(settings, memory, name, g, t):
    """What the learning rate multiplies, at the t-th step, from 1."""
    m = memory.setdefault(name, {})
    if settings.name == "adamw":
        b1, b2 = settings.betas
        m["m"] = b1 * m.get("m", 0.0) + (1 - b1) * g
        m["v"] = b2 * m.get("v", 0.0) + (1 - b2) * g**2
        return (m["m"] / (1 - b1**t)) / ((m["v"] / (1 - b2**t)).sqrt() + settings.eps)
    if settings.name == "sgd":
        # torch's convention: the first gradient is not dampened.
        m["m"] = g if t == 1 else settings.momentum * m["m"] + (1 - settings.dampening) * g
        return m["m"] if settings.momentum else g
    m["m"] = settings.momentum * m.get("m", 0.0) + (1 - settings.momentum) * g
    return m["m"].sign()


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_follows_the_equations(optimizer, decay):
    settings, rule = OPTIMIZERS[optimizer], DECAYS[decay]
    config = replace(BASE, optimizer=settings, decay=rule)
    torch.manual_seed(config.seed)
    training = Training(config, lambda values: None, None, Processes(), None)
    model = copy.deepcopy(training.model)
    decayed = {name for name, role in roles(model).items() if role in rule.roles or "all" in rule.roles}
    memory = {}
    for step in range(config.steps):
        lr = settings.lr * min(1.0, step / 2)
        penalised = [p for name, p in model.named_parameters() if name in decayed and rule.rule.startswith("loss")]
        coefficient = rule.weight_decay / (2 if rule.rule.endswith("half") else 1)
        gradients = _gradients(model, training.task.batches(step), penalised, coefficient, settings.clip)
        with torch.no_grad():
            for name, p in model.named_parameters():
                g = gradients[name]
                if rule.rule == "l2" and name in decayed:
                    g = g + rule.weight_decay * p
                shrink = lr * rule.weight_decay if rule.rule == "decoupled" and name in decayed else 0.0
                p.copy_((1 - shrink) * p - lr * _direction(settings, memory, name, g, step + 1))
    training.run(lambda step, total: True, False, 1e9)
    pairs = zip(model.parameters(), training.model.parameters(), strict=True)
    distances = torch.cat([(a - b).abs().flatten() for a, b in pairs])
    # The sign of a gradient near zero is a matter of rounding.
    assert distances.quantile(0.995 if "sign" in optimizer else 1.0) < 2e-6


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_on_bfloat16_weights_takes_the_right_step(momentum):
    # torch's fused kernel is wrong for them on the CPU: from 16 entries on it is off by whole gradients.
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 30).to(torch.bfloat16)
    before = model.weight.detach().double()
    config = VisionRun(optimizer=Optimizer(name="sgd", lr=0.5, momentum=momentum), weights="bfloat16")
    made = stepper(config, model, scaled=False)
    model.weight.grad = torch.randn(30, 40).to(torch.bfloat16)
    model.bias.grad = torch.zeros(30, dtype=torch.bfloat16)
    made.optimizer.step()
    wanted = before - 0.5 * model.weight.grad.double()
    torch.testing.assert_close(model.weight.detach().double(), wanted, rtol=2**-8, atol=2**-9)
