"""Rules that turn the records of a training into a verdict on its weight decay.

With decay at the rate c per step, squared norms relax to their equilibrium as ``exp(-2 passed)``, ``passed`` being the
sum of c over the steps so far; in equilibrium every step turns the weights by ``sqrt(2 c r)`` (see
`decaylab.probes.rotation`). The thresholds below are choices of this package, written here once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from decaylab.monitor.account import Account
from decaylab.monitor.diagnosis_result import Diagnosis, RoleState, Verdict, too_strong
from decaylab.monitor.thresholds import IDLE_TIMESCALES, SETTLED_TIMESCALES

# Norms count as flat when they move by less than 20 % in a timescale: the squared norm, which approaches equilibrium at
# the rate 2 per timescale, is then within a fifth of it.
FLAT_PER_TIMESCALE = 0.20
# The window in which flatness and rotation are judged: the last half timescale, and at least 3 records.
WINDOW_TIMESCALES, WINDOW_RECORDS = 0.5, 3
# Idle: under 5 % of a timescale has passed and norms have moved by less than 1 % since the first record.
IDLE_CHANGE, IDLE_RECORDS = 0.01, 3
# Annealing: the timescale has grown by more than a quarter since equilibrium was reached, because the learning rate
# fell; the weights then follow their equilibrium late, and in the end no more.
ANNEALED = 1.25


def diagnose(records: Sequence[Mapping[str, float]], account: Account | None = None) -> Diagnosis:
    """Judge records of the default probes.

    Args:
        records: Records of `decaylab.watch`, in the order of the steps.
        account: What the log knows beside them; None where there are records alone.

    Returns:
        The diagnosis. Keys that are missing leave NaN, and the verdict says what could be judged.
    """
    account = account or Account()
    records = list(records)
    if not records:
        return Diagnosis("nothing recorded", account=account)
    last = records[-1]
    steps = int(last["step"] - records[0]["step"]) + 1
    roles = sorted(key.removeprefix("timescale/passed/") for key in last if key.startswith("timescale/passed/"))
    known = roles or sorted(key.removeprefix("weights/norm/") for key in last if key.startswith("weights/norm/"))
    since = account.last_change
    same = [record for record in records if since is None or record["step"] >= since] or records[-1:]
    whole = _state("", same, known)
    each = tuple(_state(role, same, [role]) for role in roles)
    first = int(same[0]["step"])
    broken = _broken(records)
    if broken is not None:
        return Diagnosis("not finite", steps, whole, each, None, first, broken, account)
    verdict = _verdict(whole, records, account)
    high = _before_annealing(same)
    if len(high) < len(same) and verdict in ("settling", "equilibrium"):
        peak = _state("", high, known)
        # Decay that is too strong has its equilibrium, too.
        strong = too_strong(peak) and peak.passed >= SETTLED_TIMESCALES
        if strong or _verdict(peak, high, account) == "equilibrium":
            return Diagnosis("annealing", steps, whole, each, peak, first, None, account)
    return Diagnosis(verdict, steps, whole, each, None, first, None, account)


def _broken(records: Sequence[Mapping[str, float]]) -> int | None:
    """The step since which all records have weights that are not finite; None if the last record's are."""
    since = None
    for record in reversed(records):
        if math.isfinite(record.get("weights/norm", 0.0)):
            break
        since = int(record["step"])
    return since


def _before_annealing(records: Sequence[Mapping[str, float]]) -> Sequence[Mapping[str, float]]:
    """The records up to the last one whose timescale is near the smallest."""
    timescales = [record.get("timescale/steps", math.nan) for record in records]
    smallest = min((t for t in timescales if not math.isnan(t)), default=math.nan)
    near = [i for i, t in enumerate(timescales) if t <= ANNEALED * smallest]
    return records[: near[-1] + 1] if near else records


def _verdict(state: RoleState, records: Sequence[Mapping[str, float]], account: Account) -> Verdict:
    if math.isnan(state.passed):
        still = not any("gradients/norm" in record or record.get("update/norm", 1.0) > 0 for record in records)
        if still:
            return "no gradients"
        if account.is_lost:
            return "lost"
        targets = {source.target for source in account.acting}
        if "zero" in targets or any(key.startswith("update/decay_share") for record in records for key in record):
            return "unknown rate"
        return "anchored" if "anchor" in targets else "norm held" if "norm" in targets else "no decay"
    if account.is_lost and state.passed < IDLE_TIMESCALES:
        return "lost"
    if too_strong(state):
        return "too strong"
    still = abs(state.norm_change) < IDLE_CHANGE
    if state.passed < IDLE_TIMESCALES and still and len(records) >= IDLE_RECORDS:
        return "idle"
    if state.passed >= SETTLED_TIMESCALES and abs(state.slope) < FLAT_PER_TIMESCALE:
        return "equilibrium"
    return "settling"


def _state(role: str, records: Sequence[Mapping[str, float]], members: Sequence[str]) -> RoleState:
    suffix = f"/{role}" if role else ""
    first, last = records[0], records[-1]
    passed = last.get(f"timescale/passed{suffix}", math.nan)
    window = _window(records, f"timescale/passed{suffix}", passed)
    norms = [_norm(record, suffix, members) for record in (first, window[0], last)]
    elapsed = passed - window[0].get(f"timescale/passed{suffix}", math.nan)
    rate = _rate(last, suffix, members)
    rates = ((_rate(record, suffix, members), record["step"]) for record in records)
    earlier, since = next((pair for pair in rates if 0 < pair[0] < math.inf), (math.nan, math.nan))
    return RoleState(
        role=role,
        norm=norms[2],
        norm_change=_ratio(norms[2], norms[0]) - 1,
        effective_lr=rate,
        effective_lr_change=_ratio(rate, earlier),
        effective_lr_since=since,
        rotation=_rotation(window, suffix, members, "decayed/angular", "update/angular"),
        predicted=_rotation(window, suffix, members, "update/angular_predicted", "update/angular_predicted"),
        share=_mean([record.get(f"update/decay_share{suffix}", math.nan) for record in window]),
        timescale=last.get(f"timescale/steps{suffix}", math.nan),
        passed=passed,
        slope=math.log(_ratio(norms[2], norms[1])) / elapsed if elapsed > 0 and norms[1] > 0 < norms[2] else math.nan,
    )


def _window(records: Sequence[Mapping[str, float]], key: str, passed: float) -> Sequence[Mapping[str, float]]:
    start = max(0, len(records) - WINDOW_RECORDS)
    while start > 0 and passed - records[start].get(key, math.nan) < WINDOW_TIMESCALES:
        start -= 1
    return records[start:]


def _norm(record: Mapping[str, float], suffix: str, members: Sequence[str]) -> float:
    """Norm of the decayed parameters; of their roles in records that do not have it."""
    found = record.get(f"decayed/norm{suffix}")
    return _joint_norm(record, members) if found is None else found or math.nan


def _rate(record: Mapping[str, float], suffix: str, members: Sequence[str]) -> float:
    found = record.get(f"decayed/effective_lr{suffix}")
    return _joint_rate(record, members) if found is None else found


def _rotation(
    window: Sequence[Mapping[str, float]], suffix: str, members: Sequence[str], key: str, of_roles: str
) -> float:
    found = [record[key + suffix] for record in window if key + suffix in record]
    return _mean(found) if found else _joint_rotation(window, members, of_roles)


def _joint_norm(record: Mapping[str, float], members: Sequence[str]) -> float:
    return math.sqrt(sum(record.get(f"weights/norm/{role}", math.nan) ** 2 for role in members)) or math.nan


def _joint_rate(record: Mapping[str, float], members: Sequence[str]) -> float:
    """Effective learning rate of several roles: norm-weighted like that of several groups."""
    norms = [record.get(f"weights/norm/{role}", math.nan) for role in members]
    rates = [record.get(f"effective_lr/{role}", math.nan) for role in members]
    total = sum(n**2 for n in norms)
    if not total:
        return math.nan
    return math.sqrt(sum((rate * n * n) ** 2 for rate, n in zip(rates, norms, strict=True))) / total


def _joint_rotation(window: Sequence[Mapping[str, float]], members: Sequence[str], key: str) -> float:
    values = []
    for record in window:
        squares = [record.get(f"weights/norm/{role}", math.nan) ** 2 for role in members]
        angles = [record.get(f"{key}/{role}", math.nan) ** 2 for role in members]
        known = [(s, a) for s, a in zip(squares, angles, strict=True) if not math.isnan(s * a)]
        if known and sum(s for s, _ in known) > 0:
            values.append(math.sqrt(sum(s * a for s, a in known) / sum(s for s, _ in known)))
    return _mean(values)


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan
