"""Audit: a table of every parameter with its role, whether it decays, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from decaylab.errors import DecaylabError
from decaylab.extras import optional
from decaylab.params.acting_decay import Acting, acting_decay, optimizers_of
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
        decay: Whether it decays: by what the optimizers do where the audit saw some, otherwise by the roles.
        weight_decay: The coefficient that acts on it, its group's or an attached rule's; None where the audit saw no
            optimizer, or the rule has no coefficient.
        why: The reasons for the role and for the decay, and a warning where the optimizer does otherwise.
        warns: Whether the optimizer does something else than the roles say.
        by: Who decays it: the class of an optimizer or of an attached rule; empty for nobody.
        optimizer: The class of the optimizer that holds it; empty where none does.
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
    by: str = ""
    optimizer: str = ""


@dataclass(frozen=True, repr=False)
class Audit:
    """The rows of an audit. Printing it prints the table with its totals.

    Attributes:
        rows: The rows.
        foreign: How many parameters the optimizers hold that are not the model's.
    """

    rows: tuple[AuditRow, ...]
    foreign: int = 0

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
        if self.foreign:
            lines.append(f"{self.foreign} parameters of the optimizer are not the model's, and are not listed")
        return "\n".join(lines)


def audit(
    model: nn.Module,
    optimizer: Any = None,
    *,
    decay: Iterable[Role] = ("matrix", "embedding"),
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    roles: Mapping[str, Role] | None = None,
) -> Audit:
    """List every parameter with its role, its shape, whether it decays and why.

    Args:
        model: Any module.
        optimizer: An optimizer, or a list, tuple or mapping of several (Muon beside AdamW); wrappers are taken off.
            Where it is given, the table shows what acts: the groups' ``weight_decay`` as it is now, attached rules,
            and for classes that are not torch's whether the coefficient does anything, in a trial step of a small
            copy. It warns of every parameter that is decayed against the roles, left out against the roles, held by
            two optimizers, or by none.
        decay: The roles that should decay, as in `decaylab.params.decay_groups`.
        include: Should decay also.
        exclude: Should never decay.
        roles: Overrides of roles.

    Returns:
        The table: print it, iterate over its rows, or take ``to_frame()``.

    Raises:
        DecaylabError: As in `decaylab.params.decay_groups`; or the optimizer holds no parameter of the model.
    """
    verdicts = decayed(assign(model, roles), decay=decay, include=include, exclude=exclude, strict=False)
    optimizers = optimizers_of(optimizer)
    held = acting_decay(optimizers)
    foreign = len(held.keys() - {id(item.parameter) for item, _, _ in verdicts})
    if foreign and foreign == len(held):
        raise DecaylabError(f"the optimizer holds {foreign} parameters that are not the model's: audit its own model")
    rows = []
    for item, expected, reason in verdicts:
        trainable = item.parameter.requires_grad
        here = held.get(id(item.parameter), [])
        acting = here[0] if here else None
        decays, coefficient, remark = expected and trainable, None, ""
        open_ = item.role == UNKNOWN and reason == UNDECIDED
        if open_:
            reason += f'; say roles={{"{item.name}": "{suggested(item.parameter)}"}} or another role'
        if not trainable:
            reason = "frozen"
        elif optimizers:
            decays, coefficient, remark = _actual(here, expected, open_)
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
                warns="WARNING" in remark,
                by=acting.by if acting is not None and trainable else "",
                optimizer=" and ".join(entry.optimizer for entry in here),
            )
        )
    return Audit(tuple(rows), foreign)


def _actual(here: list[Acting], expected: bool, open_: bool) -> tuple[bool, float | None, str]:
    """Whether a parameter decays, by how much, and a remark where that needs one.

    Args:
        here: What each optimizer that holds it does to it.
        expected: Whether it should decay by its role.
        open_: Nobody decided about it, so that nothing is expected.
    """
    if not here:
        return False, None, "WARNING: trainable, but not in the optimizer"
    acting = next((entry for entry in here if entry.decays), here[0])
    remarks = [entry.remark for entry in here if entry.remark]
    if len(here) > 1:
        remarks.append(f"WARNING: held by {len(here)} optimizers, {' and '.join(entry.optimizer for entry in here)}")
    if not open_ and not any(entry.warns for entry in here):
        if acting.decays and not expected:
            size = "" if acting.coefficient is None else f" by {acting.coefficient:g}"
            remarks.append(f"WARNING: {_who(acting)} decays it{size}")
        elif expected and not acting.decays:
            remarks.append("WARNING: the optimizer does not decay it")
    return acting.decays, acting.coefficient, "; ".join(remarks)


def _who(acting: Acting) -> str:
    return "the optimizer" if acting.by in ("", acting.optimizer) else f"the rule {acting.by}"


def _decay_text(row: AuditRow) -> str:
    if not row.trainable:
        return "frozen"
    if not row.decay:
        return "no"
    if row.weight_decay is None:
        return "yes"
    return f"{row.weight_decay:g}" + (f" {row.by}" if row.by and row.by != row.optimizer else "")
