"""What a claim is about: one number a seed, read from the records of a run.

``final("test/error")`` is such a quantity; so is ``final("val/loss") - final("train/loss")``, or
``final("test/error") - at("test/error", 0.5)``, the change over the second half of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decaylab.experiments.statistics import Lost, slope

if TYPE_CHECKING:
    from decaylab.experiments.results import Curve, Results
    from decaylab.experiments.run_spec import Label

# How a metric is shown and what a diverged run counts as, by the last part of its key: (scale, unit, diverged).
_CONVENTIONS: dict[str, tuple[float, str, float | None]] = {
    "error": (100.0, "%", 100.0),  # recorded as a share; a diverged classifier is wrong every time
    "loss": (1.0, "nats", math.inf),
}


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number a run.

    Attributes:
        name: In words, as it stands in the report.
        unit: Of the number.
        read: Gives the number of one run that has ended, a ``Lost`` one where it diverged before, or NaN where it was
            not recorded.
    """

    name: str
    unit: str
    read: Callable[[Results, str], float]

    def __sub__(self, other: Quantity) -> Quantity:
        """The difference of two quantities of the same run; NaN where both were lost to a divergence."""
        return Quantity(
            name=f"{self.name} minus {other.name}",
            unit=_difference_unit(self.unit),
            read=lambda results, run: _minus(self.read(results, run), other.read(results, run)),
        )

    def __truediv__(self, other: Quantity) -> Quantity:
        """The ratio of two quantities of the same run; NaN where both were lost to a divergence."""
        return Quantity(
            name=f"{self.name} over {other.name}",
            unit="",
            read=lambda results, run: _over(self.read(results, run), other.read(results, run)),
        )

    def __mul__(self, other: Quantity) -> Quantity:
        """The product of two quantities of the same run; NaN where both were lost to a divergence."""
        return Quantity(
            name=f"{self.name} times {other.name}",
            unit="",
            read=lambda results, run: _times(self.read(results, run), other.read(results, run)),
        )

    def by_seed(self, results: Results, where: Mapping[str, Label]) -> dict[Label, float]:
        """Return the number of every seed under some labels; NaN where a run has not ended or did not record it."""
        return {
            seed: self.read(results, run) if results.ended(run) else math.nan
            for seed, run in results.by_seed(where).items()
        }


def final(
    key: str,
    *,
    name: str | None = None,
    unit: str | None = None,
    scale: float | None = None,
    diverged: float | None = None,
) -> Quantity:
    """The last record of a key.

    Args:
        key: Metric, such as ``test/error``.
        name: In words; the key by default.
        unit: Of the scaled number. Keys that end in ``error`` are recorded as shares and shown in %; losses are nats.
        scale: What the record is multiplied by.
        diverged: What a diverged run counts as, in scaled units. By default 100 % for an error and infinity for a loss;
            for other metrics a diverged run counts as not recorded, because its last record says little. What a run
            recorded before it diverged is read as it is.

    Returns:
        The quantity.
    """
    return _reading(key, f"final {name or key}", unit, scale, diverged, _last, until=math.inf)


def at(
    key: str,
    fraction: float,
    *,
    name: str | None = None,
    unit: str | None = None,
    scale: float | None = None,
    diverged: float | None = None,
) -> Quantity:
    """The last record at or before a fraction of training; see ``final`` for the arguments."""

    def read(curve: Curve) -> float:
        values = [v for f, v in zip(curve.fractions, curve.values, strict=True) if f <= fraction + 1e-9]
        return values[-1] if values else math.nan

    return _reading(
        key, f"{name or key} at {100 * fraction:g} % of training", unit, scale, diverged, read, until=fraction
    )


def mean_over(
    key: str,
    start: float,
    stop: float,
    *,
    name: str | None = None,
    unit: str | None = None,
    scale: float | None = None,
    diverged: float | None = None,
) -> Quantity:
    """The mean of the records between two fractions of training; see ``final`` for the arguments."""

    def read(curve: Curve) -> float:
        pairs = zip(curve.fractions, curve.values, strict=True)
        values = [v for f, v in pairs if start - 1e-9 <= f <= stop + 1e-9]
        return math.fsum(values) / len(values) if values else math.nan

    label = f"mean {name or key} from {100 * start:g} to {100 * stop:g} % of training"
    return _reading(key, label, unit, scale, diverged, read, until=stop)


def lowest(key: str, *, name: str | None = None, unit: str | None = None, scale: float | None = None) -> Quantity:
    """The smallest finite record of a key, also of a run that diverged; see ``final`` for the arguments."""

    def read(curve: Curve) -> float:
        return min(filter(math.isfinite, curve.values), default=math.nan)

    return _reading(key, f"lowest {name or key}", unit, scale, None, read, until=-1.0)


def slope_over(
    key: str, start: float, stop: float, *, name: str | None = None, unit: str | None = None, scale: float | None = None
) -> Quantity:
    """The least-squares slope of a key between two fractions of training, per whole run; see ``final``."""

    def read(curve: Curve) -> float:
        pairs = [(f, v) for f, v in zip(curve.fractions, curve.values, strict=True) if start - 1e-9 <= f <= stop + 1e-9]
        return slope([f for f, _ in pairs], [v for _, v in pairs])

    label = f"slope of {name or key} from {100 * start:g} to {100 * stop:g} % of training"
    plain = _reading(key, label, unit, scale, None, read, until=stop)
    return Quantity(name=plain.name, unit=f"{plain.unit} per run".strip(), read=plain.read)


def log10(quantity: Quantity) -> Quantity:
    """The decadic logarithm of a quantity: for losses near zero, traces and variances, whose spread is a factor."""

    def read(results: Results, run: str) -> float:
        value = quantity.read(results, run)
        found = math.log10(value) if value > 0 else math.nan
        return Lost(found) if isinstance(value, Lost) else found

    return Quantity(name=f"log10 of {quantity.name}", unit="decades", read=read)


def log_slope(powers: Mapping[str, float], start: float, stop: float, *, name: str) -> Quantity:
    r"""The slope over training of the natural logarithm of a product of metrics, per whole run.

    With ``{"weights/norm": 2, "hessian/trace": 1}`` the scale-free trace: a loss that does not change when the weights
    are scaled has a trace that goes as :math:`1 / \|w\|^2` and a Jacobian that goes as :math:`1 / \|w\|`, so that
    either falls or rises with the norm alone, and only :math:`\|w\|^2 \mathrm{Tr} H` and :math:`\|w\| J` tell of the
    function.

    Args:
        powers: Metric to its power in the product; records of steps that all of them have count.
        start: Fraction of training from which on.
        stop: Fraction of training until which.
        name: Of the product, in words.
    """

    def read(results: Results, run: str) -> float:
        if results.diverged(run) and results.reached(run) <= stop + 1e-9:
            return math.nan
        found: dict[float, float] = {}
        for number, (key, power) in enumerate(powers.items()):
            curve = results.curve(run, key)
            logs = {
                f: power * math.log(v)
                for f, v in zip(curve.fractions, curve.values, strict=True)
                if v > 0 and start - 1e-9 <= f <= stop + 1e-9
            }
            found = logs if not number else {f: found[f] + logs[f] for f in found if f in logs}
        return slope(list(found), list(found.values()))

    label = f"slope of the logarithm of {name} from {100 * start:g} to {100 * stop:g} % of training"
    return Quantity(name=label, unit="per run", read=read)


def percent(quantity: Quantity) -> Quantity:
    """One hundred times the natural logarithm of a quantity, so that small differences are in percent of it."""

    def read(results: Results, run: str) -> float:
        value = quantity.read(results, run)
        found = 100 * math.log(value) if value > 0 else math.nan
        return Lost(found) if isinstance(value, Lost) else found

    return Quantity(name=quantity.name, unit="%", read=read)


def _last(curve: Curve) -> float:
    return curve.values[-1] if curve.values else math.nan


def _reading(
    key: str,
    name: str,
    unit: str | None,
    scale: float | None,
    diverged: float | None,
    reduce: Callable[[Curve], float],
    *,
    until: float,
) -> Quantity:
    """Read a curve; a run that diverged has to have come beyond a fraction of training for that.

    A run that diverges at a step has no evaluation of that step any more.
    """
    own_scale, own_unit, own_diverged = _CONVENTIONS.get(key.rsplit("/", 1)[-1], (1.0, "", None))
    factor = own_scale if scale is None else scale
    lost = own_diverged if diverged is None else diverged

    def read(results: Results, run: str) -> float:
        if results.diverged(run) and results.reached(run) <= until + 1e-9:
            return math.nan if lost is None else Lost(lost)
        return factor * reduce(results.curve(run, key))

    return Quantity(name=name, unit=own_unit if unit is None else unit, read=read)


def _minus(a: float, b: float) -> float:
    return _joined(a, b, 0.0 if a == b else a - b)


def _over(a: float, b: float) -> float:
    return _joined(a, b, a / b if b else math.nan)


def _times(a: float, b: float) -> float:
    return _joined(a, b, a * b)


def _joined(a: float, b: float, found: float) -> float:
    """What two numbers make is lost with one of them, and nothing with both."""
    if isinstance(a, Lost) and isinstance(b, Lost):
        return math.nan
    return Lost(found) if isinstance(a, Lost) or isinstance(b, Lost) else found


def _difference_unit(unit: str) -> str:
    return "percentage points" if unit == "%" else unit
