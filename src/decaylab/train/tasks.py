"""What the two kinds of run do differently: the batch of a step, its loss, and an evaluation.

The data of a step depends on the run's seed and the step alone, so a resumed run sees what it would have seen, and runs
that share a seed see the same order whatever their learning rate or decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from decaylab import data
from decaylab.config.schema import AnyRun, LanguageRun, VisionRun
from decaylab.train.build import language_model, vision_model
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.distributed import Processes
from decaylab.train.generation import complete, text_batches
from decaylab.train.preflight import held_out_text as held_out
from decaylab.train.preflight.inputs import data_digest, text_digest
from decaylab.train.weight_averages import evaluating

Batch = tuple[Tensor, Tensor]


class Task(Protocol):
    """A model with its data: everything the loop needs to know about what is trained."""

    model: nn.Module
    total_steps: int
    steps_per_epoch: int | None
    evaluate_every: int
    examples_per_step: int
    fingerprints: dict[str, str]

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of a step, inputs and targets on the device."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the metrics of a model as scalars on the device; its mode and the random state stay as they are."""
        ...

    def conclude(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the metrics that only the end of a run has."""
        ...

    def complete(self, model: nn.Module) -> str | None:
        """Return a prompt with the finished model's continuation, if the run has a prompt."""
        ...

    def recalibrate(self, model: nn.Module) -> None:
        """Compute the statistics of BatchNorm anew from the training set."""
        ...

    def fixed_batches(self, points: int) -> list[Batch]:
        """Return the same training points at every call, for curvature."""
        ...


class Objective(nn.Module):
    """The loss of a batch as a module, so that it is compiled, and replicated, together with the model.

    Args:
        model: The model.
        loss: ``loss(model, batch)``.
    """

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of the inputs x with the targets y."""
        return self._loss(self.model, (x, y))


def build_task(config: AnyRun, device: torch.device, processes: Processes) -> Task:
    """Load the data and build the model of a run.

    Raises:
        DecaylabError: The data is missing (the message names the command that gets it) or damaged.
    """
    if isinstance(config, VisionRun):
        return VisionTask(config, device)
    return LanguageTask(config, device, processes)


class VisionTask:
    """Image classification: the whole data set lies on the device as tensors.

    An epoch is a fresh permutation; the last batch of an epoch may be smaller.
    """

    def __init__(self, config: VisionRun, device: torch.device) -> None:
        self._config = config
        source = config.data
        images = data.vision(
            source.dataset,
            train_size=source.train_size,
            label_noise=source.label_noise,
            parity=source.parity,
            seed=config.seed if source.seed is None else source.seed,
            options=source.options,
        )
        layout = torch.channels_last if images.train_x.shape[-1] > 1 else torch.contiguous_format
        self._train_x = images.train_x.to(device).contiguous(memory_format=layout)
        self._test_x = images.test_x.to(device).contiguous(memory_format=layout)
        self._train_y, self._test_y = images.train_y.to(device), images.test_y.to(device)
        self.fingerprints = {"data": images.fingerprint}
        if (files := data_digest(config)) is not None:
            self.fingerprints["files"] = files
        model = vision_model(config.model, images.num_classes, self._train_x.shape[1], self._train_x.shape[-1])
        self.model: nn.Module = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self._size = len(self._train_y)
        self.steps_per_epoch: int | None = math.ceil(self._size / config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        self.evaluate_every = config.evaluation.every * self.steps_per_epoch
        self.examples_per_step = config.batch_size
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.long))
        self._device = device

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of a step: images (B, C, H, W) and labels (B,)."""
        epoch, within = divmod(step, self.steps_per_epoch or 1)
        if self._order[0] != epoch:
            order = data.sampling.epoch_order(self._size, seed=self._config.seed, epoch=epoch)
            self._order = (epoch, order.to(self._device))
        chosen = self._order[1][within * self._config.batch_size : (within + 1) * self._config.batch_size]
        x, y = self._train_x[chosen], self._train_y[chosen]
        if self._config.data.augment:
            generator = torch.Generator().manual_seed(_seed_of_step(self._config.seed, step))
            x = data.augment(x, generator)
        parts = min(self._config.accumulation, len(y))
        return list(zip(x.chunk(parts), y.chunk(parts), strict=True)) if parts > 1 else [(x, y)]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy."""
        logits = model(batch[0])
        return functional.cross_entropy(logits.float(), batch[1])

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, Tensor]:
        """Return cross-entropy and share of errors on the training and the test set."""
        metrics = {}
        with evaluating(model):
            for split, x, y in (("train", self._train_x, self._train_y), ("test", self._test_x, self._test_y)):
                loss, errors = torch.zeros((), device=x.device), torch.zeros((), device=x.device)
                size = self._config.evaluation.batch_size
                for images, labels in zip(x.split(size), y.split(size), strict=True):
                    logits = model(images).float()
                    loss += functional.cross_entropy(logits, labels, reduction="sum")
                    errors += (logits.argmax(1) != labels).sum()
                metrics[f"{split}/loss"], metrics[f"{split}/error"] = loss / len(y), errors / len(y)
        return metrics

    def conclude(self, model: nn.Module) -> dict[str, Tensor]:
        """Return nothing: the test set is part of every evaluation."""
        return {}

    def complete(self, model: nn.Module) -> str | None:
        """Return nothing."""
        return None

    @torch.no_grad()
    def recalibrate(self, model: nn.Module) -> None:
        """Set the statistics of BatchNorm to the mean over the training set of what its batches have."""
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
        if not norms:
            return
        modes = [(m, m.training) for m in model.modules()]
        momenta = [m.momentum for m in norms]
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        seen = 0
        for images in self._train_x.split(self._config.evaluation.batch_size):
            seen += len(images)
            for norm in norms:
                norm.momentum = len(images) / seen  # so that every image counts alike in the mean over the batches
            model(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training

    def fixed_batches(self, points: int) -> list[Batch]:
        """Return up to ``points`` training points, the same number of each class, in data order."""
        chosen = data.sampling.balanced_subset(self._train_y, points).to(self._device)
        x, y = self._train_x[chosen], self._train_y[chosen]
        size = min(self._config.evaluation.batch_size, 250)
        return list(zip(x.split(size), y.split(size), strict=True))


class LanguageTask:
    """Next-token prediction on one stream of tokens, sequences drawn with replacement as in nanoGPT."""

    def __init__(self, config: LanguageRun, device: torch.device, processes: Processes) -> None:
        self._config, self._device, self._processes = config, device, processes
        self._stream = stream = data.text(config.data.corpus, config.data.tokenizer, sha256=config.data.sha256)
        self.fingerprints = {"data": str(stream.manifest["train"]["sha256"])[:16]}
        context = config.model.context
        self._text: list[Batch] = []
        if (path := config.evaluation.text_file) is not None:  # read now: the end of a long run is too late to miss it
            text_digest(path, config.evaluation.text_sha256)
            text = held_out.read_text(path)
            size = config.evaluation.batch_size
            self._text = text_batches(stream, text, context, size, name=f"the test text {path}")
            self.fingerprints["text"] = held_out.fingerprint(text)
        self._train = data.sampling.Sequences(stream.train, context, device, limit=config.data.train_tokens)
        self._val = data.sampling.Sequences(stream.val, context, device)
        self.model: nn.Module = language_model(config.model, stream.vocab_size).to(device)
        self.steps_per_epoch: int | None = None
        self.total_steps = config.steps
        self.evaluate_every = config.evaluation.every
        self.examples_per_step = config.batch_size * context
        # Evaluation batches depend on the data alone: every run, whatever its seed, is measured on the same text.
        count, size = config.evaluation.batches, config.evaluation.batch_size
        self._fixed = {
            split: [sequences.batch(size, seed=index) for index in range(count)]
            for split, sequences in (("train", self._train), ("val", self._val))
        }

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of a step: tokens (B, T) and the tokens that follow (B, T)."""
        size = self._config.batch_size
        x, y = self._train.step(size, step, seed=self._config.seed, rows=self._processes.rows(size))
        parts = self._processes.num_parts(size, self._config.accumulation)
        return list(zip(x.chunk(parts), y.chunk(parts), strict=True)) if parts > 1 else [(x, y)]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy a token, in nats."""
        logits = model(batch[0])
        return functional.cross_entropy(logits.float().flatten(0, 1), batch[1].flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the loss on fixed training and validation batches, and their difference."""
        metrics = {}
        with evaluating(model):
            for split, batches in self._fixed.items():
                total = torch.zeros((), device=self._device)
                for batch, weight in self._processes.share(batches):
                    total += weight * self.loss(model, batch)
                metrics[f"{split}/loss"] = self._processes.sum(total) / len(batches)
        metrics["gap"] = metrics["val/loss"] - metrics["train/loss"]
        return metrics

    @torch.no_grad()
    def conclude(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the mean loss a token of the test text, if there is one."""
        if not self._text:
            return {}
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        with evaluating(model):
            for (x, y), weight in self._processes.share(self._text):
                batch = x.to(self._device), y.to(self._device)
                total += weight * self.loss(model, batch).double() * y.numel()
        return {"test/loss": self._processes.sum(total) / sum(y.numel() for _, y in self._text)}

    def complete(self, model: nn.Module) -> str | None:
        """Return the prompt and its continuation, drawn with the run's seed."""
        settings = self._config.evaluation
        if settings.prompt is None:
            return None
        if self._processes.shards:  # drawing goes through parts of the model, which only know whole weights
            tensors = checkpoint.model_tensors(model)
            model = language_model(self._config.model, self._stream.vocab_size).to(self._device)
            checkpoint.load_model_tensors(model, tensors, "this run")
        return complete(
            model,
            self._stream.tokenizer,
            settings.prompt,
            num_tokens=settings.prompt_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            seed=self._config.seed,
        )

    def recalibrate(self, model: nn.Module) -> None:
        """Do nothing: layer norms keep no statistics."""

    def fixed_batches(self, points: int) -> list[Batch]:
        """Return as many fixed training batches as hold ``points`` sequences."""
        size = self._config.evaluation.batch_size
        return self._fixed["train"][: math.ceil(points / size)]


def _seed_of_step(seed: int, step: int) -> int:
    """Return a generator's seed for one step; the multiplier keeps neighbouring runs from sharing any."""
    return (seed * 0x9E3779B97F4A7C15 + step) % 2**63
