"""Does training on the GPU give what it should: watched, compiled, in low precision, interrupted and resumed?"""

from __future__ import annotations

import copy
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import decaylab
from decaylab import decay, models
from decaylab.config.schema import (
    AnyRun,
    Averages,
    Decay,
    Evaluation,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
    VisionData,
    VisionRun,
)
from decaylab.schedules import Schedule
from decaylab.train.checkpoints.layout import snapshot_folder
from decaylab.train.fit import fit
from decaylab.train.outcome import Outcome
from gpu_kit.sections import Environment

LANGUAGE = LanguageRun(
    model=LanguageModel(num_layers=2, num_heads=2, width=64, context=64),
    data=LanguageData(corpus="stdlib", tokenizer="ascii"),
    optimizer=Optimizer(name="adamw", lr=3e-3, clip=1.0),
    decay=Decay(rule="decoupled", weight_decay=0.1, roles=("matrix",)),
    schedule=Schedule(kind="cosine", warmup_steps=4),
    averages=Averages(ema=(0.9,)),
    evaluation=Evaluation(every=1000, batches=2, batch_size=16),
    probes=Probes(names=("norms", "effective_lr"), every=10),
    batch_size=16,
    accumulation=2,
    steps=30,
    snapshots_every=30,
)
VISION = VisionRun(
    data=VisionData(dataset="digits", train_size=256),
    optimizer=Optimizer(name="sgd", lr=0.05, momentum=0.9),
    decay=Decay(rule="l2", weight_decay=1e-3),
    averages=Averages(ema=(0.9,)),
    evaluation=Evaluation(every=1000, batch_size=256),
    probes=Probes(names=("norms", "effective_lr"), every=8),
    batch_size=32,
    epochs=4,
    snapshots_every=4,
)


def check(environment: Environment) -> None:
    """Check all of it."""
    record, device = environment.record, environment.device
    # Fixed-order kernels: what is compared bit for bit has to be reproducible in the first place.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with deterministic():
        with record.check("watch leaves every bit alone"):
            watched(device)
        with record.check("watch and a rule beside a compiled model") as details:
            details.update(watched(device, backend="eager" if environment.smoke else "inductor"))
        if device == "cuda":
            with record.check("watch beside a CUDA graph of the whole step"):
                watched_graph()
            with record.check("watch and a rule under torch.compile(mode='reduce-overhead')") as details:
                details.update(watched(device, mode="reduce-overhead"))
        for name, run in (("language", LANGUAGE), ("vision", VISION)):
            with record.check(f"{name}: resumes bit for bit") as details:
                details.update(resumed(run, device))
    with record.check("resumes bit for bit with torch's default kernels too (tells, never fails)") as details:
        for name, run in (("language", LANGUAGE), ("vision", VISION)):
            details.update({f"{name} {k}": v for k, v in resumed(run, device, strict=False).items()})
    for name, settings in {
        "bfloat16": {"precision": "bfloat16"},
        "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
        "float16 with a loss scaler": {"precision": "float16"},
        "weights in bfloat16, rounded at random": {"weights": "bfloat16", "stochastic_rounding": True},
    }.items():
        if environment.smoke and settings.get("compile"):
            continue  # a compilation is no matter of seconds
        with record.check(f"language trains in {name}") as details:
            details.update(trains(replace(LANGUAGE, **settings), device))  # type: ignore[arg-type]
    with record.check("vision trains in float16 with a loss scaler") as details:
        details.update(trains(replace(VISION, precision="float16"), device))
    with record.check("the GPU trains what the CPU trains") as details:
        details.update(as_on_the_cpu(device))


@contextmanager
def deterministic() -> Iterator[None]:
    """Choose kernels that add in a fixed order."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def small_gpt(device: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = models.GPT(vocab_size=256, context=64, num_layers=2, num_heads=2, width=64).to(device)
    return model, torch.randint(0, 256, (8, 65), generator=torch.Generator().manual_seed(1)).to(device)


def watched(device: str, **compiling: Any) -> dict[str, Any]:
    """Train with a rule, with and without `watch`; the weights have to be equal bit for bit.

    Args:
        device: The device.
        **compiling: Of ``torch.compile``; the model is compiled where there is any.
    """
    found: list[list[Tensor]] = []
    logs = []
    for watching in (False, True):
        torch._dynamo.reset()
        model, tokens = small_gpt(device)

        def loss(x: Tensor, y: Tensor, model: nn.Module = model) -> Tensor:
            return nn.functional.cross_entropy(model(x).float().flatten(0, 1), y.flatten())

        objective = torch.compile(loss, **compiling) if compiling else loss
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
        decay.attach(optimizer, decay.build("cautious", 0.1))
        log = decaylab.watch(model, optimizer, every=2) if watching else None
        for _ in range(6):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                value = objective(tokens[:, :-1], tokens[:, 1:])
            value.backward()
            optimizer.step()
        found.append([p.detach().clone() for p in model.parameters()])
        logs.append(log)
    assert all(map(torch.equal, *found)), "watch changed the weights"
    log = logs[1]
    assert log is not None and len(log.records) == 3, f"{len(log.records) if log else 0} records instead of 3"
    lost = [key for record in log.records for key, value in record.items() if not math.isfinite(value)]
    assert not lost, f"not finite: {sorted(set(lost))}"
    return {"keys": len(log.records[-1]), "summary": log.summary()[:200]}


def watched_graph() -> None:
    """A CUDA graph of backward and step: `watch` cannot see its replays, and must not break it."""
    import warnings

    model, tokens = small_gpt("cuda")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=torch.tensor(1e-3, device="cuda"), weight_decay=0.0, capturable=True
    )
    decay.attach(optimizer, decay.build("decoupled", 0.1))
    log = decaylab.watch(model, optimizer, every=1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with torch.cuda.graph(graph):
            step()
    before = [p.detach().clone() for p in model.parameters()]
    graph.replay()
    torch.cuda.synchronize()
    assert not all(map(torch.equal, model.parameters(), before)), "the replay did nothing"
    assert len(log.records) == 3, f"{len(log.records)} records; the warm-up had 3 steps"
    assert any("CUDA graph" in str(warning.message) for warning in told), "nobody was told that replays are not seen"


class Stop(Exception):
    """Ends a run as a crash would."""


def train(
    config: AnyRun, device: str, folder: Path, stop_at: int | None = None, checkpoints: float = 1e9
) -> tuple[Outcome, list[Mapping[str, float]]]:
    """Train a run, or crash at a step."""
    records: list[Mapping[str, float]] = []

    def record(values: Mapping[str, float]) -> None:
        records.append(values)
        if stop_at is not None and values.get("checkpoint", 0) > stop_at:
            raise Stop

    return fit(config, record, folder=folder, device=device, checkpoint_seconds=checkpoints), records


def weights_after(config: AnyRun, folder: Path) -> dict[str, Tensor]:
    """Return all tensors of the snapshot at the end."""
    from safetensors.torch import load_file

    steps = config.steps if isinstance(config, LanguageRun) else config.epochs * 8
    place = snapshot_folder(folder, steps)
    return {
        f"{path.stem}/{name}": tensor
        for path in sorted(place.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def resumed(config: AnyRun, device: str, *, strict: bool = True) -> dict[str, Any]:
    """Crash half way, go on, and compare with runs that were never interrupted."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(2):
            train(config, device, Path(scratch, f"whole{number}"))
            found.append(weights_after(config, Path(scratch, f"whole{number}")))
        broken = Path(scratch, "broken")
        try:
            train(config, device, broken, stop_at=3, checkpoints=0.0)
        except Stop:
            pass
        else:
            raise AssertionError("the run was not interrupted")
        _, records = train(config, device, broken, checkpoints=1e9)
        found.append(weights_after(config, broken))
    assert records[0].get("resume") or records[1].get("resume"), f"it began anew: {records[:2]}"
    assert found[0], "no snapshot was written"
    again = all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    same = all(torch.equal(found[0][k], found[2][k]) for k in found[0])
    if strict:
        assert again, "two whole runs differ"
        assert same, "the resumed run differs from the whole one"
    return {"runs repeat": again, "resumed equal": same}


def trains(config: AnyRun, device: str) -> dict[str, Any]:
    """Train; the loss has to fall."""
    with tempfile.TemporaryDirectory() as scratch:
        outcome, records = train(config, device, Path(scratch))
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    assert outcome.status == "done", f"{outcome.status}: {outcome.reason}"
    assert losses[-1] < losses[0] and math.isfinite(losses[-1]), f"losses {losses}"
    return {"from": losses[0], "to": losses[-1]}


def as_on_the_cpu(device: str) -> dict[str, Any]:
    """Losses of the same run on both devices agree to float32 rounding, grown by training."""
    config = replace(LANGUAGE, steps=10, snapshots_every=0)
    losses: list[float] = []
    for place in ("cpu", device):
        with tempfile.TemporaryDirectory() as scratch:
            outcome, _ = train(copy.deepcopy(config), place, Path(scratch))
        losses.append(float(outcome.summary["train/loss"]))
    assert abs(losses[1] - losses[0]) < 2e-3, f"loss {losses[1]} against {losses[0]} on the CPU"
    return {"cpu": losses[0], device: losses[1]}
