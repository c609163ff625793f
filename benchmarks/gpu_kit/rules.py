"""Is every decay rule right on the GPU? Against the same rule on the CPU in float64, whatever the step is made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decaylab import decay
from decaylab.errors import DecaylabError
from decaylab.tensors import multi_tensor
from gpu_kit.sections import Environment

# One tensor is larger than the pieces that rules work in, and none is a multiple of anything.
SHAPES = ((64, 48), (33, 7, 5), (131,), (1001, 130))
STEPS = 5
LR = 0.1
# Where a rule needs more than its defaults to do something in five steps.
OPTIONS: dict[str, dict[str, Any]] = {
    "sphere_projection": {"radius": 2.0},
    "normalize_and_project": {"every": 2},
    "weight_norm_control": {"ratio": 0.8},
    "max_norm": {"fraction": 0.3},
    "constrained": {"kappa": 0.9},
    "follow_norms": {"norms": 2 + torch.arange(40.0, dtype=torch.float64).view(10, 4).cos()},
}
EDITORS = ("l2", "l2_to_anchor")


def names() -> list[str]:
    """Return the rules that attach to an optimizer."""
    return [name for name, entry in decay.TABLE.items() if entry.use == "attach"]


def rule(name: str, **more: Any) -> decay.Rule:
    """Build a rule of the table with the options above."""
    strength = 0.05 if decay.TABLE[name].scheduled else None
    return decay.build(name, strength, **OPTIONS.get(name, {}), **more)


def weights(device: str, dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """Return the same random weights for every device and dtype, up to rounding."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    return [torch.nn.Parameter(w.to(device=device, dtype=dtype)) for w in drawn]


def gradients(steps: int = STEPS) -> list[list[Tensor]]:
    """Return the same random gradients of every step, float64 on the CPU."""
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES] for _ in range(steps)]


def rates(steps: int = STEPS) -> list[float]:
    """Return a falling learning rate."""
    return [LR * (1 - step / (steps + 1)) for step in range(steps)]


def optimizer(kind: str, params: Sequence[Tensor], **options: Any) -> torch.optim.Optimizer:
    """Build an optimizer without decay of its own."""
    options = {"lr": LR} | options
    if kind == "sgd":
        return torch.optim.SGD(params, momentum=0.9, **options)
    made: dict[str, Any] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    return made[kind](params, weight_decay=0.0, **options)


def train(made: torch.optim.Optimizer, grads: Sequence[Sequence[Tensor]], lrs: Sequence[float] | None) -> list[Tensor]:
    """Step through gradients; return the weights as float64 on the CPU."""
    params = [p for group in made.param_groups for p in group["params"]]
    for number, given in enumerate(grads):
        for group in made.param_groups:
            if lrs is None:
                continue
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lrs[number])
            else:
                group["lr"] = lrs[number]
        for p, g in zip(params, given, strict=True):
            p.grad = g.to(device=p.device, dtype=p.dtype)
        made.step()
    return result(params)


def result(params: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors as float64 on the CPU."""
    return [p.detach().double().cpu() for p in params]


def reference(
    name: str, kind: str, start: Sequence[Tensor], grads: Sequence[Sequence[Tensor]], lrs: Sequence[float] | None
) -> list[Tensor]:
    """Return what float64 on the CPU gives, a tensor at a time, with the rule's own arithmetic and none of torch's."""
    params = [torch.nn.Parameter(p.detach().double().cpu().clone()) for p in start]
    made = optimizer(kind, params, foreach=False)
    decay.attach(made, rule(name), native=False)
    return train(made, grads, lrs)


def error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the largest relative error ``||found - wanted|| / ||wanted||`` of any tensor; NaN where there is one."""
    worst = [float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]
    return float("nan") if any(w != w for w in worst) else max(worst)


@dataclass(frozen=True)
class Variant:
    """One way to make a step.

    Attributes:
        name: What a failure calls it.
        kind: ``adamw``, ``adam`` or ``sgd``.
        options: Of the optimizer.
        native: Whether torch's kernel may do the decay.
    """

    name: str
    kind: str
    options: dict[str, Any]
    native: bool


def variants(device: str, dtype: torch.dtype) -> Iterator[Variant]:
    """Yield every way to make a step that a device has for weights of a dtype."""
    ways = {"fused": {"fused": True}, "foreach": {"foreach": True}, "single": {"foreach": False}}
    for kind, (way, options), native in itertools.product(("adamw", "adam", "sgd"), ways.items(), (True, False)):
        if kind == "sgd" and way == "fused" and device == "cpu" and dtype.itemsize < 4:
            continue  # torch's own kernel is wrong there, with and without a rule
        yield Variant(f"{kind} {way}{'' if native else ', own arithmetic'}", kind, options, native)
    if device == "cuda":
        for native in (True, False):
            lr = torch.tensor(LR, device=device)
            options = {"capturable": True, "lr": lr}
            yield Variant(f"adamw capturable{'' if native else ', own arithmetic'}", "adamw", options, native)


def check(environment: Environment) -> None:
    """Check the first half of the rules; both halves run at the same time."""
    chosen = names()
    _check(environment, ["decoupled", "cautious"] if environment.smoke else chosen[: len(chosen) // 2])


def check_more(environment: Environment) -> None:
    """Check the other half."""
    chosen = names()
    _check(environment, ["fixed_norm"] if environment.smoke else chosen[len(chosen) // 2 :])


def _check(environment: Environment, chosen: Sequence[str]) -> None:
    """Check rules in every circumstance."""
    record, device = environment.record, environment.device
    grads, lrs = gradients(), rates()
    backend = "eager" if environment.smoke else "inductor"
    for name in chosen:
        with record.check(f"{name}: float32 is float64 up to rounding") as details:
            details.update(agreement(name, device, torch.float32, grads, lrs, limit=1e-4))
        with record.check(f"{name}: bfloat16 weights") as details:
            details.update(agreement(name, device, torch.bfloat16, grads, lrs, limit=0.03))
        with record.check(f"{name}: gradient scaler") as details:
            scaled(name, device)
        if device == "cuda":
            with record.check(f"{name}: CUDA graph") as details:
                details.update(captured(name))
        with record.check(f"{name}: compiled step") as details:
            details.update(compiled(name, device, backend))
        with record.check(f"{name}: resumes bit for bit"):
            resumed(name, device)
        if device == "cuda":
            with record.check(f"{name}: one launch for all tensors") as details, of_any_size():
                assert multi_tensor.usable(weights(device, torch.float32)), "Triton does not work here"
                details.update(agreement(name, device, torch.float32, grads, lrs, limit=1e-4))
                captured(name)
                resumed(name, device)


@contextmanager
def of_any_size() -> Iterator[None]:
    """Let kernels work on few weights too, where compiling them would not pay."""
    before, multi_tensor._WORTH_IT = multi_tensor._WORTH_IT, 0
    try:
        yield
    finally:
        multi_tensor._WORTH_IT = before


def agreement(
    name: str, device: str, dtype: torch.dtype, grads: list[list[Tensor]], lrs: list[float], limit: float
) -> dict[str, Any]:
    """Compare every variant of a rule with float64; raise where one is off by more than ``limit``."""
    grads = [[g.to(dtype).double() for g in given] for given in grads]
    wanted: dict[str, list[Tensor]] = {}
    errors: dict[str, float] = {}
    for variant in variants(device, dtype):
        start = weights(device, dtype)
        if variant.kind not in wanted:
            wanted[variant.kind] = reference(name, variant.kind, start, grads, lrs)
        options = {k: v.clone() if isinstance(v, Tensor) else v for k, v in variant.options.items()}
        made = optimizer(variant.kind, start, **options)
        decay.attach(made, rule(name), native=variant.native)
        errors[variant.name] = error(train(made, grads, lrs), wanted[variant.kind])
    bad = {variant: found for variant, found in errors.items() if not found <= limit}
    if bad:
        raise AssertionError(f"relative errors above {limit:g}: {bad}")
    return {"variants": len(errors), "worst": max(errors.values())}


def scaled(name: str, device: str) -> None:
    """A step under a gradient scaler is the step; one that overflows changes nothing; editors refuse scaled ones."""

    def build() -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer, Any]:
        params = weights(device, torch.float32)
        made = optimizer("adamw", params, fused=True)
        decay.attach(made, rule(name), native=name not in EDITORS)
        return params, made, torch.amp.GradScaler(device, init_scale=1024.0)

    def step(params: Any, made: Any, scaler: Any, value: float = 1.0, unscale: bool = False) -> None:
        made.zero_grad()
        scaler.scale(sum((value * p).sum() for p in params)).backward()
        if unscale:
            scaler.unscale_(made)
        scaler.step(made)
        scaler.update()

    if name in EDITORS:
        try:
            step(*build())
        except DecaylabError as refusal:
            assert "unscale_" in str(refusal), refusal
        else:
            raise AssertionError("a rule that edits gradients took scaled ones")
    params, made, scaler = build()
    twins, twin, _ = build()
    for _ in range(3):
        step(params, made, scaler, unscale=name in EDITORS)
        twin.zero_grad()
        sum(p.sum() for p in twins).backward()
        twin.step()
    found = error(result(params), result(twins))
    assert found <= 1e-5, f"scaled steps differ by {found:g}"
    before, steps = [p.detach().clone() for p in params], decay.handles(made)[0].steps
    step(params, made, scaler, value=float("inf"), unscale=name in EDITORS)
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True)), "an overflow moved the weights"
    assert decay.handles(made)[0].steps == steps, "an overflow was counted as a step"


def captured(name: str) -> dict[str, Any]:
    """Replays of a CUDA graph of the step give what eager steps give; rules that count steps refuse to be captured."""
    grads = gradients(1) * 6
    params = weights("cuda", torch.float32)
    made = optimizer("adamw", params, capturable=True, lr=torch.tensor(LR, device="cuda"))
    chosen = rule(name)
    decay.attach(made, chosen)
    for p, g in zip(params, grads[0], strict=True):
        p.grad = g.to(device="cuda", dtype=torch.float32)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            made.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    if chosen.counts_steps:
        try:
            with torch.cuda.graph(graph):
                made.step()
        except DecaylabError as refusal:
            assert "CUDA graph" in str(refusal), refusal
            return {"refused": True}
        raise AssertionError("a rule that counts steps was captured")
    with torch.cuda.graph(graph):
        made.step()
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    found = error(result(params), reference(name, "adamw", weights("cpu", torch.float64), grads, None))
    assert found <= 1e-4, f"replays differ from eager steps by {found:g}"
    return {"worst": found}


def compiled(name: str, device: str, backend: str) -> dict[str, Any]:
    """A compiled step gives what the eager step gives; for most rules with SGD, whose tracing is short."""
    kind = "adamw" if name in ("decoupled", "cautious", "scheduled") else "sgd"
    grads = gradients(3)

    def steps(wrap: Callable[[Callable[[], Any]], Callable[[], Any]]) -> list[Tensor]:
        params = weights(device, torch.float32)
        made = optimizer(kind, params, foreach=True)
        decay.attach(made, rule(name))
        step = wrap(made.step)
        for given in grads:
            for p, g in zip(params, given, strict=True):
                p.grad = g.to(device=device, dtype=torch.float32)
            step()
        return result(params)

    torch._dynamo.reset()
    found = error(steps(lambda step: torch.compile(step, backend=backend)), steps(lambda step: step))
    assert found <= 1e-4, f"the compiled step differs from the eager one by {found:g}"
    return {"optimizer": kind, "worst": found}


def resumed(name: str, device: str) -> None:
    """What ``state_dict`` carries to a new optimizer gives the bits that an unbroken training has."""
    import io

    grads, lrs = gradients(), rates()
    first = weights(device, torch.float32)
    whole = optimizer("adamw", first, fused=True)
    decay.attach(whole, rule(name))
    train(whole, grads[:2], lrs[:2])
    file = io.BytesIO()
    torch.save({"weights": [p.detach() for p in first], "optimizer": whole.state_dict()}, file)
    expected = train(whole, grads[2:], lrs[2:])
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = weights(device, torch.float32)
    other = optimizer("adamw", second, fused=True)
    decay.attach(other, rule(name))
    with torch.no_grad():
        for p, w in zip(second, saved["weights"], strict=True):
            p.copy_(w)
    other.load_state_dict(saved["optimizer"])
    got = train(other, grads[2:], lrs[2:])
    assert all(map(torch.equal, got, expected)), f"the weights differ by {error(got, expected):g}"
