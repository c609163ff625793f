"""What is measured of the weights and of each of their averages: losses, errors, and curvature where it is due."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from decaylab import probes
from decaylab.config.schema import AnyRun
from decaylab.train.distributed import Processes
from decaylab.train.tasks import Task
from decaylab.train.weight_averages import WeightAverages

_Metrics = dict[str, Tensor | float]


class Measuring:
    """Measures a model in training and its averages; the weights and the random state stay as they are.

    Metrics of the iterate have their plain names, those of an average begin with its name and a slash.

    Args:
        config: The run's settings.
        task: Evaluates models.
        model: The iterate.
        averages: The averages of its weights.
        processes: Those who train it.
        autocast: Opens the precision of the run.
    """

    def __init__(
        self,
        config: AnyRun,
        task: Task,
        model: nn.Module,
        averages: WeightAverages,
        processes: Processes,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._config, self._task, self._model = config, task, model
        self._averages, self._processes, self._autocast = averages, processes, autocast
        self._shadow: nn.Module | None = None

    def evaluate(self, *, curvature: bool) -> dict[str, float]:
        """Return the metrics of an evaluation.

        Args:
            curvature: Measure curvature, too, where the run asks for it.
        """
        settings = self._config.probes
        metrics: _Metrics = {}
        for name, prefix, model in self._versions():
            with self._autocast():
                metrics |= {f"{prefix}{key}": v for key, v in self._task.evaluate(model).items()}
            if curvature and settings.curvature and name in settings.curvature_at:
                batches = self._task.fixed_batches(settings.curvature_points)
                for probe in settings.curvature:
                    measured = probes.measure(probe, model, batches, self._task.loss, seed=self._config.seed)
                    metrics |= {f"{prefix}{key}": v for key, v in measured.items()}
        return _floats(metrics)

    def conclude(self) -> dict[str, float]:
        """Return the metrics that only the end of a run has."""
        metrics: _Metrics = {}
        for _, prefix, model in self._versions():
            with self._autocast():
                metrics |= {f"{prefix}{key}": v for key, v in self._task.conclude(model).items()}
        return _floats(metrics)

    def _versions(self) -> Iterator[tuple[str, str, nn.Module]]:
        """Yield the iterate and each average as a name, a prefix of its metrics and a model, one at a time."""
        yield "iterate", "", self._model
        for name in self._averages.names:
            if self._processes.shards:
                with self._averages.lent(name):
                    yield name, f"{name}/", self._model
                continue
            if self._shadow is None:
                self._shadow = copy.deepcopy(self._model).float()
            self._averages.copy_to(name, self._shadow)
            self._task.recalibrate(self._shadow)  # statistics of norms belong to the weights they were taken with
            yield name, f"{name}/", self._shadow


def _floats(metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Bring all tensors to the host in one transfer."""
    tensors = {key: v for key, v in metrics.items() if isinstance(v, Tensor)}
    if not tensors:
        return {key: float(v) for key, v in metrics.items()}
    together = torch.stack([v.detach().double() for v in tensors.values()]).tolist()
    rest = {key: float(v) for key, v in metrics.items() if key not in tensors}
    return rest | dict(zip(tensors, together, strict=True))
