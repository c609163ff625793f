"""Audit: a table of every parameter with its role, whether it decays, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from decaylab.errors import DecaylabError
from decaylab.extras import optional
from decaylab.params.groups import UNDECIDED, decayed
from decaylab.params.role import UNKNOWN, ReportedRole, Role, assign, suggested

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class AuditRow:
    """One parameter of an `Audit`.

    Attributes:
        name: Its first name in the model.
        role: Its role, or ``"unknown"``.
        shape: Its shape.
        numel: Number of elements.
        trainable: Whether it requires a gradient; a frozen parameter neither moves nor decays.
        decay: Whether it decays: by the optimizer's groups where the audit saw one, otherwise by the roles.
        weight_decay: The coefficient of its group in the optimizer; None where the audit saw none.
        why: The reasons for the role and for the decay, and a warning where the optimizer does otherwise.
        warns: Whether the optimizer does something else than the roles say.
    """

    name: str
    role: ReportedRole
    shape: tuple[int, ...]
    numel: int
    trainable: bool
    decay: bool
    weight_decay: float | None
    why: str
    warns: bool = False


@dataclass(frozen=True, repr=False)
class Audit:
    """The rows of an audit. Printing it prints the table with its totals."""

    rows: tuple[AuditRow, ...]

    def __iter__(self) -> Iterator[AuditRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> AuditRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def warnings(self) -> tuple[AuditRow, ...]:
        """The rows where the optimizer does something else than the roles say."""
        return tuple(row for row in self.rows if row.warns)

    def totals(self) -> dict[str, dict[str, int]]:
        """Per role: number of tensors, of elements, and of elements that decay."""
        sums: dict[str, dict[str, int]] = {}
        for row in self.rows:
            total = sums.setdefault(row.role, {"tensors": 0, "elements": 0, "decayed": 0})
            total["tensors"] += 1
            total["elements"] += row.numel
            total["decayed"] += row.numel * row.decay
        return sums

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain dictionaries, for JSON."""
        return [asdict(row) for row in self.rows]

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a DataFrame, one column a field of `AuditRow`."""
        found: pandas.DataFrame = optional("pandas").DataFrame(self.to_dicts())
        return found

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        shown = [
            (
                row.name,
                row.role,
                "x".join(map(str, row.shape)) or "1",
                _decay_text(row),
                row.why,
            )
            for row in self.rows
        ]
        header = ("parameter", "role", "shape", "decay", "why")
        widths = [max(len(line[i]) for line in [header, *shown]) for i in range(4)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line[:4], widths, strict=True)) + f"  {line[4]}"
            for line in [header, *shown]
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        totals = self.totals()
        elements = sum(total["elements"] for total in totals.values())
        decays = sum(total["decayed"] for total in totals.values())
        lines.append("")
        for role, total in totals.items():
            lines.append(
                f"{role:<9}  {total['tensors']:>4} tensors  {total['elements']:>14,} elements  "
                f"{total['decayed']:>14,} decay"
            )
        share = f" ({decays / elements:.2%})" if elements else ""
        lines.append(f"{'all':<9}  {len(self.rows):>4} tensors  {elements:>14,} elements  {decays:>14,} decay{share}")
        if self.warnings:
            lines.append(f"{len(self.warnings)} of them: the optimizer does something else than the roles say")
        return "\n".join(lines)


def audit(
    model: nn.Module,
    optimizer: Optimizer | None = None,
    *,
    decay: Iterable[Role] = ("matrix", "embedding"),
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    roles: Mapping[str, Role] | None = None,
) -> Audit:
    """List every parameter with its role, its shape, whether it decays and why.

    Args:
        model: Any module.
        optimizer: Where it is given, the table shows what this optimizer does (its groups' ``weight_decay``, or
            ``decay=False``), and warns of every parameter that it decays against the roles, leaves out against the
            roles, or does not hold at all.
        decay: The roles that should decay, as in `decaylab.params.decay_groups`.
        include: Should decay also.
        exclude: Should never decay.
        roles: Overrides of roles.

    Returns:
        The table: print it, iterate over its rows, or take ``to_frame()``.

    Raises:
        DecaylabError: As in `decaylab.params.decay_groups`; or the optimizer holds a parameter of another model.
    """
    verdicts = decayed(assign(model, roles), decay=decay, include=include, exclude=exclude, strict=False)
    held = _held(optimizer)
    if optimizer is not None:
        foreign = len(held.keys() - {id(item.parameter) for item, _, _ in verdicts})
        if foreign:
            raise DecaylabError(
                f"the optimizer holds {foreign} parameters that are not the model's: audit its own model"
            )
    rows = []
    for item, expected, reason in verdicts:
        trainable = item.parameter.requires_grad
        decays, coefficient, remark = expected and trainable, None, ""
        open_ = item.role == UNKNOWN and reason == UNDECIDED
        if open_:
            reason += f'; say roles={{"{item.name}": "{suggested(item.parameter)}"}} or another role'
        if not trainable:
            reason = "frozen"
        elif optimizer is not None:
            decays, coefficient, remark = _actual(item.parameter, held, expected)
            if open_ and coefficient is not None:
                remark = ""  # nothing was expected of it, so the optimizer does nothing wrong
        rows.append(
            AuditRow(
                name=item.name,
                role=item.role,
                shape=tuple(item.parameter.shape),
                numel=item.parameter.numel(),
                trainable=trainable,
                decay=decays,
                weight_decay=coefficient,
                why="; ".join(part for part in (item.why, reason, remark) if part),
                warns=remark.startswith("WARNING"),
            )
        )
    return Audit(tuple(rows))


def _held(optimizer: Optimizer | None) -> dict[int, float | None]:
    """Parameter id to the coefficient that its group applies; None where an attached rule decides instead."""
    if optimizer is None:
        return {}
    held: dict[int, float | None] = {}
    for group in optimizer.param_groups:
        coefficient = group.get("weight_decay")
        if not group.get("decay", True):
            coefficient = 0.0
        elif "decay" in group and coefficient == 0:  # marked to decay, but not by the optimizer's own term
            coefficient = None
        for parameter in group["params"]:
            held[id(parameter)] = None if coefficient is None else float(coefficient)
    return held


def _actual(
    parameter: nn.Parameter, held: Mapping[int, float | None], expected: bool
) -> tuple[bool, float | None, str]:
    """Whether the optimizer decays the parameter, by how much, and a remark where that needs one."""
    if id(parameter) not in held:
        return False, None, "WARNING: trainable, but not in the optimizer"
    coefficient = held[id(parameter)]
    if coefficient is None:
        return expected, None, "" if not expected else "left to an attached rule (the group's own weight_decay is 0)"
    decays = coefficient != 0
    if decays and not expected:
        return decays, coefficient, f"WARNING: the optimizer decays it by {coefficient:g}"
    if expected and not decays:
        return decays, coefficient, "WARNING: the optimizer does not decay it"
    return decays, coefficient, ""


def _decay_text(row: AuditRow) -> str:
    if not row.trainable:
        return "frozen"
    if row.weight_decay is not None and row.decay:
        return f"{row.weight_decay:g}"
    return "yes" if row.decay else "no"
