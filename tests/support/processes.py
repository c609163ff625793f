"""Processes that talk to each other: copies of one that has imported PyTorch, which each would do for seconds."""

import multiprocessing
import os

import torch


def start(target, arguments, size):
    """Run ``target(rank, *arguments)`` in so many processes, and wait; what one raises is raised here."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["torch._dynamo", "torch.distributed.fsdp", "decaylab.train.fit", "decaylab.probes", "decaylab.decay"]
    )
    torch.multiprocessing.start_processes(
        _enter, (target, dict(os.environ), *arguments), nprocs=size, start_method="forkserver"
    )


def _enter(rank, target, environment, *arguments):
    os.environ.update(environment)  # the copied process has the environment that it was started with
    target(rank, *arguments)
