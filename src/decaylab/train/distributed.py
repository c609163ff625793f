"""Several processes train one run: what each one's share is, how they agree, and how sharded weights become whole.

The global batch is split by rows, so the result does not depend on the number of processes (up to the order of
additions). One process, with rank 0, leads: it alone writes, and what depends on the time is its decision.

Weights are replicated (``ddp``: DistributedDataParallel) or sharded along their first dimension (``fsdp``: FSDP2's
``fully_shard``). Collectives (``mean``, ``agree``, ``whole`` ...) have to be called by all processes in the same order;
with a single process they do nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from decaylab.config.schema import AnyRun, VisionRun
from decaylab.errors import DecaylabError
from decaylab.tensors.sharding import is_sharded, like, local

Parallel = Literal["ddp", "fsdp"]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Processes:
    """The processes that train one run together, seen from one of them.

    Attributes:
        rank: This one's number, from 0.
        size: How many there are.
        parallel: ``ddp`` keeps whole weights everywhere, ``fsdp`` a share of them.
        device: Where tensors lie that are exchanged.
    """

    rank: int = 0
    size: int = 1
    parallel: Parallel = "ddp"
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and decides."""
        return self.rank == 0

    @property
    def shards(self) -> bool:
        """Whether each process holds only a share of the weights."""
        return self.size > 1 and self.parallel == "fsdp"

    def check(self, config: AnyRun) -> None:
        """Refuse runs that these processes cannot train with the result that one process would have.

        Raises:
            DecaylabError: See the message.
        """
        if self.size == 1:
            return
        if isinstance(config, VisionRun):
            raise DecaylabError(
                "a vision run trains in one process, because BatchNorm sees the batch of its process: "
                "leave torchrun away (many runs are trained side by side by `decaylab reproduce`)"
            )
        if config.batch_size % self.size:
            raise DecaylabError(f"batch_size {config.batch_size} is not a multiple of the {self.size} processes")
        if self.shards:
            if config.weights != "float32" or config.precision == "float16":
                raise DecaylabError("fsdp keeps float32 weights and has no loss scaler: use precision bfloat16, or ddp")
            if config.probes.curvature:
                raise DecaylabError("curvature probes need whole weights: use --parallel ddp, or leave them out")

    def rows(self, batch_size: int) -> tuple[int, int]:
        """Return first and last row (exclusive) of this process's share of a batch."""
        share = batch_size // self.size
        return self.rank * share, (self.rank + 1) * share

    def num_parts(self, batch_size: int, accumulation: int) -> int:
        """Return in how many micro-batches of equal size this process takes its rows, none larger than with one."""
        rows = batch_size // self.size
        return next(n for n in count(-(-accumulation // self.size)) if rows % n == 0)

    def share(self, items: Sequence[_Item]) -> Iterator[tuple[_Item, float]]:
        """Yield this process's items, each with weight 1; as many on each process, so some come with weight 0."""
        for start in range(0, len(items), self.size):
            position = start + self.rank
            yield items[min(position, len(items) - 1)], float(position < len(items))

    def shard(self, model: nn.Module) -> None:
        """Leave this process only its share of a transformer's weights (``fsdp``); whole blocks are fetched to use."""
        if not self.shards:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(torch.device(self.device).type, (self.size,))
        transformer: Any = model.transformer
        for block in transformer["h"]:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh, reshard_after_forward=True)

    def replicate(self, objective: nn.Module) -> nn.Module:
        """Let the gradients of all processes be averaged (``ddp``); sharded weights see to it themselves."""
        if self.size == 1 or self.shards:
            return objective
        place = torch.device(self.device)
        ids = [place.index] if place.type == "cuda" else None
        replicated = nn.parallel.DistributedDataParallel(objective, device_ids=ids)
        if place.type == "cpu" and self.size > 2:
            replicated.register_comm_hook(self.size, lambda size, bucket: _mean_in_rank_order(bucket.buffer(), size))
        return replicated

    def syncing(self, forward: nn.Module, model: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Exchange gradients in this micro-step only if it is the last of its step."""
        if self.size == 1:
            return nullcontext()
        if self.shards:
            sharded: Any = model
            sharded.set_requires_gradient_sync(last)
            return nullcontext()
        replicated: Any = forward
        return nullcontext() if last else replicated.no_sync()

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over the processes."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over the processes."""
        return self.sum(value) / self.size if self.size > 1 else value

    def agree(self, *numbers: int) -> tuple[int, ...]:
        """Return the leader's numbers."""
        if self.size == 1:
            return numbers
        told = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        dist.broadcast(told, src=0)
        return tuple(int(n) for n in told.tolist())

    def all(self, value: Tensor) -> list[Tensor]:
        """Return the tensor of each process, on the CPU."""
        if self.size == 1:
            return [value]
        own = value.to(self.device)
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own)
        return [tensor.cpu() for tensor in found]


@contextmanager
def joined(device: str = "auto", parallel: Parallel = "ddp") -> Iterator[Processes]:
    """Join the processes that torchrun started, for a ``with`` block.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``; each process takes the GPU of its local rank.
        parallel: How they share the work.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device.partition(":")[0]
    place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if kind == "cuda" else kind
    if kind == "cuda":
        torch.cuda.set_device(place)
    _meet("nccl" if kind == "cuda" else "gloo")
    yield Processes(dist.get_rank(), dist.get_world_size(), parallel, place)
    # Not after an error: the others may be gone, and waiting for them would hide the message.
    dist.destroy_process_group()


def _meet(backend: str) -> None:
    """Find the other processes, whose addresses are those of this attempt.

    torchrun may keep the table of addresses when it starts its processes anew, and the dead ones are still in it. On
    one machine the attempts are counted alike everywhere, so each gets a table of its own.
    """
    attempt, local_size = os.environ.get("TORCHELASTIC_RESTART_COUNT"), os.environ.get("LOCAL_WORLD_SIZE")
    if attempt is None or local_size != os.environ.get("WORLD_SIZE"):
        dist.init_process_group(backend)
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group(backend, store=PrefixStore(f"attempt {attempt}", store), rank=rank, world_size=size)


def _mean_in_rank_order(own: Tensor, size: int) -> torch.futures.Future[Tensor]:
    """Average a bucket of gradients so that the bits do not depend on where in it they lie.

    DDP arranges its buckets anew after the first step of a process, and the order in which gloo adds three numbers or
    more hangs on their places: a resumed run would not have the bits of one that was never interrupted.
    """
    found = [torch.empty_like(own) for _ in range(size)]
    dist.all_gather(found, own)
    for gradients in found[1:]:
        found[0].add_(gradients)
    averaged: torch.futures.Future[Tensor] = torch.futures.Future()
    averaged.set_result(found[0].div_(size))
    return averaged


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the shares of all processes; the tensor itself when it is not sharded."""
    sharded: Any = tensor
    return sharded.full_tensor() if is_sharded(tensor) else tensor


def piece(pattern: Tensor, full: Tensor) -> Tensor:
    """Return this process's share of a whole tensor, cut like ``pattern``; all of it when that is not sharded."""
    if not is_sharded(pattern):
        return full
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = pattern
    full = full.to(sharded.device_mesh.device_type)
    return local(distribute_tensor(full, sharded.device_mesh, sharded.placements, src_data_rank=None))


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's ``state_dict`` with whole tensors, as a single process would have it."""
    state = optimizer.state_dict()
    tensors = {
        index: {key: whole(v) if isinstance(v, Tensor) else v for key, v in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": tensors}


def load_whole_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer back what :func:`whole_state` returned, each process its share."""
    patterns = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [index for group in state["param_groups"] for index in group["params"]]
    entries = dict(state["state"])
    for pattern, index in zip(patterns, numbers, strict=True):
        if is_sharded(pattern) and index in entries:
            entries[index] = {key: _shared(pattern, v) for key, v in entries[index].items()}
    optimizer.load_state_dict({**state, "state": entries})


def _shared(pattern: Tensor, value: Any) -> Any:
    """Cut what has the parameter's rows, such as a momentum buffer or the norms of rows; leave the rest whole."""
    if not isinstance(value, Tensor) or not value.ndim or value.shape[0] != pattern.shape[0]:
        return value
    if value.shape == pattern.shape:
        return like(pattern, piece(pattern, value))
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = pattern
    return distribute_tensor(value, sharded.device_mesh, sharded.placements, src_data_rank=None)
