"""The tables behind charts: curves along training, and one point a run, ready for a ``Chart``.

Each function returns what ``Chart.data`` wants: a function of the results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results
    from decaylab.experiments.run_spec import Label

Data = Callable[["Results"], "pd.DataFrame"]


def curves(
    *keys: str,
    where: Mapping[str, Label] | None = None,
    names: Mapping[str, str] | None = None,
    setting: str | None = None,
    scale: float | None = None,
    start: float = 0.0,
    stop: float = 1.0,
) -> Data:
    """Give one row for each record of some metrics.

    Args:
        keys: Metrics. Those that end in ``error`` are shown in percent.
        where: Only runs with these labels.
        names: What to call each key in the column ``metric``.
        setting: Template of the column ``setting`` in the labels, such as ``"LR {lr:g}, WD {wd:g}"``.
        scale: What the values are multiplied by, instead of 100 for errors and 1 for the rest.
        start: Leave out what lies before this fraction of training.
        stop: Leave out what lies after it.
    """

    def data(results: Results) -> pd.DataFrame:
        return _stack(
            results, keys, lambda key: _between(results.metric(key), start, stop), where, names, setting, scale
        )

    return data


def finals(
    *keys: str,
    where: Mapping[str, Label] | None = None,
    names: Mapping[str, str] | None = None,
    setting: str | None = None,
    scale: float | None = None,
) -> Data:
    """Give one row a run and metric: its last record, for runs that are done. Arguments as for ``curves``."""

    def data(results: Results) -> pd.DataFrame:
        def done(key: str) -> pd.DataFrame:
            frame = results.final(key)
            return frame[frame["status"] == "done"]

        return _stack(results, keys, done, where, names, setting, scale)

    return data


def difference(
    key: str,
    minus: str,
    *,
    where: Mapping[str, Label] | None = None,
    setting: str | None = None,
    scale: float | None = None,
) -> Data:
    """Give one row a record: one metric minus another of the same run and step. Arguments as for ``curves``."""

    def data(results: Results) -> pd.DataFrame:
        frame = results.table(key, minus)
        frame["value"] = frame[key] - frame[minus]
        return _stack(results, (key,), lambda _: frame.drop(columns=[key, minus]), where, None, setting, scale)

    return data


def against_reference(
    key: str,
    *,
    reference: Mapping[str, Label],
    where: Mapping[str, Label] | None = None,
    setting: str | None = None,
    scale: float | None = None,
) -> Data:
    """Give one row a record: the metric minus that of a reference run with the same seed and the same other labels.

    Paired curves show a difference that the spread between seeds would hide.

    Args:
        key: The metric.
        reference: Labels of the reference, such as ``{"wd": 0.0}``; its own rows are left out.
        where: Only runs with these labels.
        setting: See ``curves``.
        scale: See ``curves``.
    """

    def data(results: Results) -> pd.DataFrame:
        frame = results.metric(key)
        runs = results.matching(reference).index
        is_reference = frame["run"].isin(runs)
        # Labels that merely restate the reference's ones (a name and its value) must not take part in the pairing.
        named = set(reference) | {f"{n}_value" for n in reference} | {n.removesuffix("_value") for n in reference}
        pairing = [name for name in results.labels if name not in named] + ["step"]
        other = frame[is_reference][[*pairing, "value"]].rename(columns={"value": "reference"})
        joined = frame[~is_reference].merge(other, on=pairing)
        joined["value"] = joined["value"] - joined["reference"]
        return _stack(results, (key,), lambda _: joined.drop(columns="reference"), where, None, setting, scale)

    return data


def _stack(
    results: Results,
    keys: tuple[str, ...],
    read: Callable[[str], pd.DataFrame],
    where: Mapping[str, Label] | None,
    names: Mapping[str, str] | None,
    setting: str | None,
    scale: float | None,
) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for key in keys:
        frame = read(key)
        if where:
            frame = frame[frame["run"].isin(results.matching(where).index)]
        factor = scale if scale is not None else (100.0 if key.endswith("error") else 1.0)
        frames.append(frame.assign(value=frame["value"] * factor, metric=(names or {}).get(key, key)))
    table = pd.concat(frames, ignore_index=True)
    if setting is not None:
        rows = table[results.labels].to_dict("records")
        table["setting"] = [setting.format(**{str(n): v for n, v in row.items()}) for row in rows]
    return table


def _between(frame: pd.DataFrame, start: float, stop: float) -> pd.DataFrame:
    return frame[(frame["fraction"] >= start - 1e-9) & (frame["fraction"] <= stop + 1e-9)]
