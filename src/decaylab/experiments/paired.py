"""Settings compared seed by seed with one of them: differences with intervals, and a sentence that answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from decaylab.errors import DecaylabError
from decaylab.experiments.evidence import Comparison
from decaylab.experiments.quantity import Quantity
from decaylab.experiments.statistics import CONFIDENCE, Lost, mean_comparison, paired_difference

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results
    from decaylab.experiments.run_spec import Label

Standing = Literal["baseline", "better", "worse", "alike", "not told apart", "diverged", "no answer"]
_EVERYWHERE = (-math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting and its runs.

    Attributes:
        name: What tells it from the others: ``0.1``, or ``weight_decay 0.1 with lr 0.001``.
        runs: The run of each seed.
    """

    name: str
    runs: Mapping[Label, str]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A setting beside the baseline.

    Attributes:
        name: The setting.
        mean: Mean over its seeds, with its interval.
        difference: Setting minus baseline over the seeds that both have; None for the baseline itself.
        diverged: How many of its runs diverged.
        standing: What follows: whether the whole interval of the difference is on one side of 0, or within the margin.
    """

    name: str
    mean: Comparison
    difference: Comparison | None
    diverged: int
    standing: Standing


@dataclass(frozen=True, kw_only=True)
class PairedTable:
    """Settings compared with one of them.

    Attributes:
        quantity: What is compared; lower is better unless ``highest``.
        baseline: The setting that the others are compared with.
        rows: One a setting, in their order.
        like_the_best: Names of the settings whose paired difference to the best mean has an interval that covers 0.
        highest: Whether high values are good.
        what: What the names are values of, such as ``decay.weight_decay``; empty where they say it themselves.
    """

    quantity: Quantity
    baseline: str
    rows: tuple[Row, ...]
    like_the_best: tuple[str, ...]
    highest: bool
    what: str

    @property
    def sentence(self) -> str:
        """The answer in a sentence or two."""
        return " ".join(_sentences(self))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as plain data."""
        return [_plain(row) for row in self.rows]

    def frame(self) -> pd.DataFrame:
        """Return the rows as a table whose columns ``NAME_low`` and ``NAME_high`` are intervals, for the page."""
        import pandas as pd

        rows = []
        for row in self.rows:
            found: dict[str, Any] = {"setting": row.name, "seeds": len(row.mean.seeds), "standing": row.standing}
            for name, comparison in (("mean", row.mean), ("difference", row.difference)):
                values = (math.nan,) * 3 if comparison is None else _ends(comparison)
                found |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
            rows.append(found | {"diverged": row.diverged})
        return pd.DataFrame(rows)


def compare(
    results: Results,
    quantity: Quantity,
    settings: Sequence[Setting],
    *,
    baseline: str | None = None,
    margin: float | None = None,
    highest: bool = False,
    what: str = "",
) -> PairedTable:
    """Compare settings with a baseline, seed by seed.

    Args:
        results: The runs.
        quantity: One number a run.
        settings: At least two, with names of their own.
        baseline: The name of one of them; the first by default.
        margin: Differences whose whole interval lies within so much on either side of 0 make two settings alike;
            without it no two are, because not finding a difference is not finding that there is none.
        highest: Whether high values are good.
        what: What the names are values of.

    Raises:
        DecaylabError: Fewer than two settings, or no such baseline.
    """
    names = [setting.name for setting in settings]
    if len(settings) < 2:
        raise DecaylabError("a comparison needs two settings or more")
    base_name = names[0] if baseline is None else baseline
    if base_name not in names:
        raise DecaylabError(f"the baseline {base_name!r} is not among the settings: {', '.join(names)}")
    values = {setting.name: _values(results, quantity, setting) for setting in settings}
    rows = []
    for setting in settings:
        own = values[setting.name]
        mean = mean_comparison(own, _EVERYWHERE, name=setting.name, unit=quantity.unit)
        lost = sum(results.diverged(run) for run in setting.runs.values())
        difference = None
        if setting.name != base_name:
            difference = _difference(setting.name, base_name, own, values[base_name], quantity)
        rows.append(
            Row(
                name=setting.name,
                mean=mean,
                difference=difference,
                diverged=lost,
                standing=_standing(difference, own, margin, highest),
            )
        )
    best = _best(rows, highest)
    alike = [best] if best else []
    for name in names:
        if best and name != best and _covers_zero(_difference(name, best, values[name], values[best], quantity)):
            alike.append(name)
    return PairedTable(
        quantity=quantity,
        baseline=base_name,
        rows=tuple(rows),
        like_the_best=tuple(name for name in names if name in alike),
        highest=highest,
        what=what,
    )


def number(value: float, half_width: float = math.nan) -> str:
    """Write a number with two significant digits of its interval's half-width, or with four of its own."""
    if math.isnan(value) or math.isinf(value):
        return "-" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if not math.isfinite(half_width) or half_width <= 0:
        return f"{value:.4g}"
    decimals = min(max(1 - math.floor(math.log10(half_width)), 0), 8)
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def with_interval(comparison: Comparison) -> str:
    """Write an estimate with its interval: ``-0.021 (-0.030 to -0.012)``; alone for a single seed."""
    estimate, low, high = _ends(comparison)
    if math.isnan(low):
        return number(estimate)
    half = (high - low) / 2
    return f"{number(estimate, half)} ({number(low, half)} to {number(high, half)})"


def _values(results: Results, quantity: Quantity, setting: Setting) -> dict[Label, float]:
    """Return the number of every seed that has one: of a run that has not ended, or failed, there is none."""
    found = {
        seed: quantity.read(results, run) if results.ended(run) else math.nan for seed, run in setting.runs.items()
    }
    return {seed: value for seed, value in found.items() if not math.isnan(value)}


def _difference(
    name: str, base: str, own: Mapping[Label, float], other: Mapping[Label, float], quantity: Quantity
) -> Comparison:
    both = [seed for seed in own if seed in other]
    unit = "percentage points" if quantity.unit == "%" else quantity.unit
    return paired_difference(
        {seed: own[seed] for seed in both},
        {seed: other[seed] for seed in both},
        _EVERYWHERE,
        name=f"{name} minus {base}",
        unit=unit,
    )


def _standing(
    difference: Comparison | None, own: Mapping[Label, float], margin: float | None, highest: bool
) -> Standing:
    if difference is None:
        return "baseline"
    if own and all(isinstance(value, Lost) for value in own.values()):
        return "diverged"
    _, low, high = _ends(difference)
    if math.isnan(low):
        return "no answer"
    if margin is not None and -margin < low and high < margin:
        return "alike"
    if high < 0:
        return "worse" if highest else "better"
    if low > 0:
        return "better" if highest else "worse"
    return "not told apart"


def _ends(comparison: Comparison) -> tuple[float, float, float]:
    """Return estimate, low and high; NaN for the ends where there is no interval."""
    if math.isinf(comparison.low) and math.isinf(comparison.high):
        return comparison.estimate, math.nan, math.nan
    return comparison.estimate, comparison.low, comparison.high


def _covers_zero(difference: Comparison) -> bool:
    _, low, high = _ends(difference)
    return bool(low <= 0 <= high)


def _best(rows: Sequence[Row], highest: bool) -> str:
    finite = [row for row in rows if math.isfinite(row.mean.estimate)]
    if not finite:
        return ""
    return (max if highest else min)(finite, key=lambda row: row.mean.estimate).name


def _sentences(table: PairedTable) -> list[str]:
    by = {standing: [row for row in table.rows if row.standing == standing] for standing in _STANDINGS}
    seeds = max((len(row.mean.seeds) for row in table.rows), default=0)
    base = f"{table.what} {table.baseline}" if table.what else table.baseline
    said = []
    for standing in ("better", "worse"):
        if by[standing]:
            said.append(
                f"{_list(by[standing])} {_is(by[standing])} {standing} than {base}, by {_amounts(by[standing])}."
            )
    if by["alike"]:
        said.append(f"{_list(by['alike'])} and {base} are alike within the margin.")
    if by["not told apart"]:
        rows = by["not told apart"]
        said.append(f"{_list(rows)} cannot be told apart from {base} with {seeds} seeds: {_amounts(rows)}.")
    if by["diverged"]:
        said.append(f"{_list(by['diverged'])} diverged.")
    if by["no answer"]:
        few = "one seed gives no interval" if seeds == 1 else "too few of the runs have ended with a value"
        said.append(f"Of {_list(by['no answer'])} nothing can be said beside {base}: {few}.")
    if len(table.like_the_best) > 1 and by["better"]:
        best = "highest" if table.highest else "lowest"
        said.append(f"Among {_joined(table.like_the_best)}, which has the {best} mean cannot be told.")
    name = table.quantity.name
    return [f"{name[0].upper()}{name[1:]}:", *said]


def _amounts(rows: Sequence[Row]) -> str:
    unit = rows[0].difference.unit if rows[0].difference else ""
    amounts = [with_interval(row.difference) for row in rows if row.difference is not None]
    return f"{_joined(amounts)} {unit}".rstrip()


def _list(rows: Sequence[Row]) -> str:
    return _joined([row.name for row in rows])


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _is(rows: Sequence[Row]) -> str:
    return "is" if len(rows) == 1 else "are"


_STANDINGS: tuple[Standing, ...] = ("baseline", "better", "worse", "alike", "not told apart", "diverged", "no answer")


def _plain(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"setting": row.name, "standing": row.standing, "diverged": row.diverged}
    for name, comparison in (("mean", row.mean), ("difference", row.difference)):
        if comparison is not None:
            estimate, low, high = _ends(comparison)
            by_seed = {str(s): v for s, v in zip(comparison.seeds, comparison.values, strict=True)}
            found[name] = {"estimate": estimate, "low": low, "high": high, "unit": comparison.unit, "by_seed": by_seed}
    found["confidence"] = CONFIDENCE
    return found
