"""How fast does GPT-2 small train, against the paper authors' script on the same card?

Both sides train the same network on the same tokens with compiled bfloat16 arithmetic, fused AdamW, clipping and one
moving average of the weights. The speed is that of the steps after the warm-up; peak memory is that of all tensors in
the life of the process. The share of peak counts the operations of the matrix products as is usual (6 for each weight
and token, embeddings of positions left out, and 12 L T D for attention) over the data sheet's rate and over what large
products of random matrices reach on the card.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from decaylab.config.schema import (
    Averages,
    Decay,
    Evaluation,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
)
from decaylab.schedules import Schedule
from decaylab.train.cadence import Agenda
from decaylab.train.fit import fit
from decaylab.train.peak_flops import peak_flops
from gpu_kit.record import datasheet_tflops, peak_mebibytes, wait
from gpu_kit.sections import Environment


@dataclass(frozen=True)
class Shape:
    """Sizes of a training.

    Attributes:
        layers: Blocks.
        heads: Attention heads.
        width: Of the residual stream.
        context: Tokens a sequence.
        rows: Sequences a micro-batch.
        parts: Micro-batches a step.
        steps: Steps of a measurement.
        vocabulary: Rows of the embedding.
    """

    layers: int = 12
    heads: int = 12
    width: int = 768
    context: int = 256
    rows: int = 64
    parts: int = 4
    steps: int = 40
    vocabulary: int = 50_304

    @property
    def tokens(self) -> int:
        """Tokens a step."""
        return self.rows * self.parts * self.context

    @property
    def flops_per_token(self) -> float:
        """Operations of the matrix products a token, forward and backward."""
        weights = 12 * self.layers * self.width**2 + self.vocabulary * self.width
        return 6.0 * weights + 12.0 * self.layers * self.width * self.context


def shape(environment: Environment, context: int) -> Shape:
    """Return GPT-2 small with 65,536 tokens a step, or something tiny."""
    if environment.smoke:
        return Shape(layers=1, heads=2, width=16, context=context // 32, rows=2, parts=2, steps=8, vocabulary=320)
    return Shape(context=context, rows=16_384 // context)


def ours(environment: Environment, sizes: Shape, steps: int, *, compiled: bool = True) -> dict[str, float]:
    """Train with the package's loop; return tokens a second, MiB, and seconds until the warm-up was over."""
    config = LanguageRun(
        model=LanguageModel(
            num_layers=sizes.layers, num_heads=sizes.heads, width=sizes.width, context=sizes.context,
            vocab_size=sizes.vocabulary,
        ),
        data=LanguageData(corpus="stdlib", tokenizer="bytes"),
        optimizer=Optimizer(name="adamw", lr=6e-4, clip=1.0),
        decay=Decay(rule="decoupled", weight_decay=0.1, roles=("matrix", "embedding", "head")),
        schedule=Schedule(kind="cosine", warmup_steps=2),
        averages=Averages(ema=(0.99,)),
        evaluation=Evaluation(every=10**6, batches=1, batch_size=sizes.rows),
        probes=Probes(names=("norms", "effective_lr"), every=20),
        precision="bfloat16",
        compile=compiled and not environment.smoke,
        batch_size=sizes.rows * sizes.parts,
        accumulation=sizes.parts,
        steps=steps,
    )  # fmt: skip
    timer = Timer(environment.device, first=steps // 4, last=steps - 1)
    original = Agenda.after

    def after(agenda: Agenda, done: int, total: int) -> Any:
        timer.step(done)
        return original(agenda, done, total)

    Agenda.after = after  # type: ignore[assignment,method-assign]  # the loop asks once a step, at its end
    try:
        outcome = fit(config, lambda record: None, device=environment.device)
    finally:
        Agenda.after = original  # type: ignore[method-assign]
    assert outcome.status == "done", outcome.reason
    return {
        "tokens_per_second": sizes.tokens / timer.seconds_per_step,
        "memory_mib": peak_mebibytes(environment.device),
        "seconds_before": timer.before,
        "loss": float(outcome.summary["train/batch_loss"]),
    }


class Timer:
    """Takes the time between two steps of a training, with the device at rest at both."""

    def __init__(self, device: str, first: int, last: int) -> None:
        self._device, self._first, self._last = device, first, last
        self._made = self._began = time.perf_counter()
        self.before = self.seconds_per_step = float("nan")

    def step(self, done: int) -> None:
        """Note the end of a step."""
        if done == self._first:
            wait(self._device)
            self._began = time.perf_counter()
            self.before = self._began - self._made
        elif done == self._last:
            wait(self._device)
            self.seconds_per_step = (time.perf_counter() - self._began) / (self._last - self._first)


def theirs(environment: Environment, sizes: Shape, steps: int) -> dict[str, float]:
    """Train with the authors' script in this process; return the same numbers."""
    assert environment.peer is not None
    script = environment.scratch / f"script-{os.getpid()}"
    shutil.copytree(environment.peer, script)
    place = script / "data" / "bench"
    place.mkdir(parents=True)
    from decaylab import data

    stream = data.text("stdlib", "bytes")
    for split, tokens in (("train", stream.train), ("val", stream.val)):
        tokens.tofile(place / f"{split}.bin")
    if sizes.vocabulary != 50_304:  # else what the script takes without being told
        import pickle

        (place / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": sizes.vocabulary}))
    on_gpu = environment.device == "cuda"
    settings = {
        "dataset": "bench", "device": environment.device, "dtype": "bfloat16" if on_gpu else "float32",
        "compile": on_gpu, "wandb_log": False, "out_dir": "", "n_layer": sizes.layers, "n_head": sizes.heads,
        "n_embd": sizes.width, "block_size": sizes.context, "batch_size": sizes.rows,
        "gradient_accumulation_steps": sizes.parts, "max_iters": steps, "warmup_iters": 2, "eval_interval": 10**6,
        "eval_examples": sizes.rows, "learning_rate": 6e-4, "weight_decay": 0.1,
    }  # fmt: skip
    printed, began = io.StringIO(), time.perf_counter()
    argv, folder, path = sys.argv, Path.cwd(), list(sys.path)
    try:
        os.chdir(script)
        sys.path.insert(0, str(script))
        sys.argv = ["train.py", *(f"--{name}={value}" for name, value in settings.items())]
        with contextlib.redirect_stdout(printed):
            runpy.run_path("train.py", run_name="__main__")
    finally:
        os.chdir(folder)
        sys.argv, sys.path = argv, path
    seconds = time.perf_counter() - began
    text = printed.getvalue()
    print(text[-1500:])
    times = [float(t) for t in re.findall(r"iter time ([0-9.]+)", text)]
    measured = times[len(times) // 4 :]
    losses = [float(t) for t in re.findall(r"iter \d+: loss ([0-9.]+)", text)]
    return {
        "tokens_per_second": sizes.tokens / statistics.median(measured),
        "memory_mib": peak_mebibytes(environment.device),
        "seconds_before": seconds - sum(measured),
        "loss": losses[-1],
    }


def _prepare(environment: Environment, context: int, train: Callable[..., dict[str, float]]) -> None:
    """Train a few steps, so that the compiled code lies in torch's cache on disk when it is timed."""
    if environment.device == "cuda":
        torch._inductor.config.compile_threads = 3  # several sections compile at once
    with environment.record.check(f"compiles at context {context}") as details:
        found = train(environment, shape(environment, context), 4)
        details["seconds_before"] = round(found["seconds_before"], 1)


def _measure(environment: Environment, context: int, train: Callable[..., dict[str, float]], name: str) -> None:
    """Measure one side at one context."""
    record, sizes = environment.record, shape(environment, context)
    with record.check(f"{name}, context {context}"):
        peak = peak_flops(environment.device, torch.bfloat16, torch.get_num_threads())
        found = train(environment, sizes, sizes.steps)
        rate = found["tokens_per_second"]
        sheet = datasheet_tflops(torch.cuda.get_device_name()) if environment.device == "cuda" else None
        record.number(
            f"{name}, context {context}", rate, "tokens/s",
            share_of_datasheet=None if sheet is None else rate * sizes.flops_per_token / (sheet * 1e12),
            share_of_measured=rate * sizes.flops_per_token / peak, measured_tflops=peak / 1e12,
            peak_mib=round(found["memory_mib"]), seconds_before=round(found["seconds_before"], 1), loss=found["loss"],
            micro_batch=sizes.rows, micro_batches=sizes.parts,
        )  # fmt: skip


OURS, PEER = "decaylab", "authors' script"


def prepare_256(environment: Environment) -> None:
    """Compile ours at context 256."""
    _prepare(environment, 256, ours)


def prepare_1024(environment: Environment) -> None:
    """Compile ours at context 1024."""
    _prepare(environment, 1024, ours)


def prepare_peer_256(environment: Environment) -> None:
    """Compile the authors' at context 256."""
    _prepare(environment, 256, theirs)


def prepare_peer_1024(environment: Environment) -> None:
    """Compile the authors' at context 1024."""
    _prepare(environment, 1024, theirs)


def measure_256(environment: Environment) -> None:
    """Measure ours at context 256, and once without compilation."""
    _measure(environment, 256, ours, OURS)
    sizes = shape(environment, 256)
    with environment.record.check("decaylab uncompiled, context 256"):
        found = ours(environment, replace(sizes, steps=sizes.steps // 2), sizes.steps // 2, compiled=False)
        environment.record.number("decaylab uncompiled, context 256", found["tokens_per_second"], "tokens/s")


def measure_1024(environment: Environment) -> None:
    """Measure ours at context 1024."""
    _measure(environment, 1024, ours, OURS)


def measure_peer_256(environment: Environment) -> None:
    """Measure the authors' at context 256."""
    _measure(environment, 256, theirs, PEER)


def measure_peer_1024(environment: Environment) -> None:
    """Measure the authors' at context 1024."""
    _measure(environment, 1024, theirs, PEER)
