"""Data parallelism on one card: two processes, sharded weights and DistributedDataParallel, against one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from decaylab import decay
from decaylab.train.distributed import Processes
from gpu_kit import rules
from gpu_kit.sections import Environment


def check(environment: Environment) -> None:
    """Check replicated and sharded training."""
    record, device = environment.record, environment.device
    with record.check("two processes on one device (gloo) train what one trains") as details:
        alone, pair = _spawn("train", device, 1), _spawn("train", device, 2)
        details.update({"loss alone": alone["loss"], "loss of two": pair["loss"]})
        assert abs(alone["loss"] - pair["loss"]) < 5e-4, f"{pair['loss']} against {alone['loss']}"
    with record.check("every rule on sharded weights (FSDP2, one process)") as details:
        found = _spawn("shard", device, 1)
        details.update(found)
        assert not found["failed"], found["failed"]
    with record.check("a rule in DistributedDataParallel (one process)") as details:
        found = _spawn("replicate", device, 1)
        details.update(found)
        assert found["error"] <= 1e-5, found


def measure(environment: Environment) -> None:
    """Measure GPT-2 small in DistributedDataParallel with a single process, over NCCL where there is a GPU."""
    from decaylab.train import fit as loop
    from gpu_kit.language import ours, shape

    record, device = environment.record, environment.device
    sizes = shape(environment, 256)
    steps = sizes.steps // 2
    with record.check("DistributedDataParallel, one process"):
        _join(0, 1, "nccl" if device == "cuda" else "gloo", _port())
        found = {}
        for name, kind in (("plain", None), ("DDP", Replicated)):
            original = loop.Processes
            if kind is not None:
                loop.Processes = kind  # type: ignore[misc]
            try:
                found[name] = ours(environment, replace(sizes, steps=steps), steps, compiled=False)
            finally:
                loop.Processes = original  # type: ignore[misc]
            rate = found[name]["tokens_per_second"]
            record.number(f"uncompiled, context {sizes.context}, {name}", rate, "tokens/s")
        dist.destroy_process_group()
        ratio = found["plain"]["tokens_per_second"] / found["DDP"]["tokens_per_second"]
        record.number("DDP's time over that without", ratio, "x")


class Replicated(Processes):
    """One process that replicates all the same, to see what that costs."""

    def replicate(self, objective: nn.Module) -> nn.Module:
        """Wrap what is trained."""
        place = torch.device(self.device)
        return nn.parallel.DistributedDataParallel(objective, device_ids=[0] if place.type == "cuda" else None)

    def syncing(self, forward: nn.Module, model: nn.Module, last: bool) -> Any:
        """Exchange gradients in the last micro-batch alone."""
        return nullcontext() if last else forward.no_sync()  # type: ignore[operator]


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _join(rank: int, size: int, backend: str, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group(backend, rank=rank, world_size=size)


def _spawn(task: str, device: str, size: int) -> dict[str, Any]:
    """Run a task in processes of its own and return what the first of them says."""
    port = _port()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "found.json")
        command = [sys.executable, "-m", "gpu_kit.parallel", task, device, str(size), str(port), str(out)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        started = [subprocess.Popen([*command, str(rank)], env=env) for rank in range(size)]
        codes = [process.wait(140) for process in started]
        if any(codes):
            raise AssertionError(f"processes ended with {codes}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def _train(device: str, rank: int, size: int) -> dict[str, Any]:
    from decaylab.train.fit import fit
    from gpu_kit.training import LANGUAGE

    config = replace(LANGUAGE, steps=12, snapshots_every=0, decay=replace(LANGUAGE.decay, rule="cautious"))
    place = "cuda:0" if device == "cuda" else device
    outcome = fit(config, lambda record: None, processes=Processes(rank, size, "ddp", place))
    return {"loss": float(outcome.summary["train/loss"])}


def _shard(device: str) -> dict[str, Any]:
    """Compare every rule on weights of FSDP2 with the same on plain ones."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (1,))
    failed, worst = {}, 0.0
    for name in rules.names():
        found = []
        for sharded in (False, True):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 8)).to(device)
            if sharded:
                fully_shard(model, mesh=mesh)
            optimizer = rules.optimizer("adamw", list(model.parameters()))
            try:
                decay.attach(optimizer, rules.rule(name))
                found.append(_steps(model, optimizer, device))
            except Exception as problem:
                if sharded and name == "max_norm" and "threshold" in str(problem):
                    found.append(found[0])  # it says itself that it needs a threshold there
                else:
                    failed[name] = str(problem)[:300]
                    break
        if name not in failed:
            error = rules.error(found[1], found[0])
            worst = max(worst, error)
            if not error <= 1e-5:
                failed[name] = f"relative error {error:g}"
    return {"failed": failed, "worst": worst}


def _replicate(device: str) -> dict[str, Any]:
    found = []
    for replicated in (False, True):
        torch.manual_seed(0)
        model: nn.Module = nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 8)).to(device)
        if replicated:
            model = nn.parallel.DistributedDataParallel(model)
        optimizer = rules.optimizer("adamw", list(model.parameters()), fused=True)
        decay.attach(optimizer, rules.rule("cautious"))
        found.append(_steps(model, optimizer, device))
    return {"error": rules.error(found[1], found[0])}


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> list[Tensor]:
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(2)).to(device)
    for _ in range(4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return rules.result(whole)


def main() -> None:
    task, device, size, port, out, rank = sys.argv[1:]
    if device == "cuda":
        torch.cuda.set_device(0)
    backend = "gloo" if device == "cpu" or int(size) > 1 else "nccl"
    _join(int(rank), int(size), backend, int(port))
    found = {"train": lambda: _train(device, int(rank), int(size)), "shard": lambda: _shard(device)}
    found["replicate"] = lambda: _replicate(device)
    result = found[task]()
    if rank == "0":
        Path(out).write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
