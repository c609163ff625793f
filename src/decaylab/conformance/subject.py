"""How an unknown optimizer is driven: built, given gradients that it cannot influence, stepped along a schedule."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from decaylab.errors import DecaylabError

SHAPE = (6, 4)
# Not monotone, with a warm-up: a rule that divides by the largest learning rate seen so far differs from one that
# divides by the constructor's, and a rule that ignores the schedule differs from both.
MULTIPLIERS = (0.5, 1.0, 1.0, 0.4, 0.1, 0.25)


def draws(count: int, *, seed: int, scale: float = 1.0, shape: Sequence[int] = SHAPE) -> list[Tensor]:
    """Float64 tensors from a normal distribution, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


@dataclass(frozen=True)
class Subject:
    """The optimizer under test.

    Attributes:
        factory: Called as ``factory(params, lr=..., weight_decay=...)``; an optimizer class is one.
        name: For messages.
    """

    factory: Callable[..., Any]
    name: str

    def build(self, params: Any, lr: float | Tensor, weight_decay: float, **options: Any) -> Any:
        """Make an optimizer.

        Raises:
            DecaylabError: The factory refuses these arguments.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.default_generator.manual_seed(0)
            try:
                optimizer = self.factory(params, lr=lr, weight_decay=weight_decay, **options)
            except Exception as error:
                raise DecaylabError(
                    f"cannot build {self.name}(params, lr={lr}, weight_decay={weight_decay}): "
                    f"{type(error).__name__}: {_line(error)}; give what it needs by --kwargs, or a factory of your own"
                ) from error
            if not hasattr(optimizer, "param_groups") or not callable(getattr(optimizer, "step", None)):
                raise DecaylabError(f"{self.name} gave {type(optimizer).__name__}, which is not an optimizer")
            if any("lr" not in group for group in optimizer.param_groups):
                raise DecaylabError(f"{self.name} keeps no lr in its parameter groups: nothing can schedule it")
            for group in optimizer.param_groups:
                # as a torch scheduler does; a number, because a tensor lr is filled in place
                group["initial_lr"] = float(group["lr"])
            if callable(getattr(optimizer, "train", None)):  # schedule-free methods have a training mode
                optimizer.train()
        return optimizer

    def accepts(self, option: str) -> bool:
        """Whether the factory has a parameter of this name."""
        try:
            return option in inspect.signature(self.factory).parameters
        except (TypeError, ValueError):
            return False

    def step(self, optimizer: Any, multiplier: float = 1.0) -> None:
        """Set every group's learning rate to ``multiplier`` times its first one, and step.

        Raises:
            DecaylabError: The step fails.
        """
        for group in optimizer.param_groups:
            value = group["initial_lr"] * multiplier
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # one seed for every step: a method that draws random numbers draws the same ones in each copy
            torch.default_generator.manual_seed(0)
            try:
                optimizer.step()
            except Exception as error:
                raise DecaylabError(f"{self.name} cannot step: {type(error).__name__}: {_line(error)}") from error

    def run(
        self,
        gradients: Sequence[Tensor],
        *,
        start: Tensor,
        lr: float | Tensor,
        weight_decay: float,
        multipliers: Sequence[float] = MULTIPLIERS,
        resets: Sequence[Tensor] | None = None,
        l2: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        """Step once for each gradient and return the weights after each step.

        Args:
            gradients: One a step; multiplied with nothing, so the weights have no influence on them.
            start: The first weights.
            lr: The constructor's learning rate.
            weight_decay: The constructor's coefficient.
            multipliers: Learning rate of each step as a share of the constructor's; as many as gradients at least.
            resets: Weights to set before each step, so that every step starts from known ones.
            l2: Add this times the current weights to each gradient.
            options: Further arguments of the constructor.
        """
        weight = nn.Parameter(start.clone())
        optimizer = self.build([weight], lr, weight_decay, **(options or {}))
        after = []
        for index, gradient in enumerate(gradients):
            if resets is not None:
                put(weight, resets[index])
            weight.grad = (
                gradient.to(weight.dtype) + l2 * weight.detach() if l2 else gradient.to(weight.dtype, copy=True)
            )
            self.step(optimizer, multipliers[index])
            after.append(weight.detach().clone())
        return after


def put(weight: nn.Parameter, value: Tensor) -> None:
    """Overwrite a weight outside the optimizer's sight."""
    with torch.no_grad():
        weight.copy_(value)


def difference(left: Tensor, right: Tensor) -> float:
    """Largest absolute difference; infinite where either is not finite."""
    if not (left.isfinite().all() and right.isfinite().all()):
        return float("inf")
    return float((left - right).abs().max())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
