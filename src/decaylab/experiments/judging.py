"""Verdicts on runs that another tool recorded: claims, as declarations or as sentences, against a table."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from decaylab.errors import DecaylabError
from decaylab.experiments import checks
from decaylab.experiments.checks import Check
from decaylab.experiments.evidence import Evidence, Verdict
from decaylab.experiments.quantity import Quantity, final
from decaylab.experiments.spec import Claim
from decaylab.experiments.table_results import TableResults

if TYPE_CHECKING:
    import pandas as pd

FORMS = (
    "METRIC is lower (or higher) [by X] with A=1 than with A=0 [where B=2]",
    "METRIC is equal within X with A=1 and A=0 [where B=2]",
    "METRIC is below X (above X, between X and Y) with A=1",
    "METRIC rises (or falls) with A [where B=2]",
)
"""Sentences that can be judged. Columns and values with spaces stand in quotes."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A claim with what the runs say about it.

    Attributes:
        sentence: The claim in words.
        evidence: The comparisons, their intervals, and the verdict that follows by rule.
    """

    sentence: str
    evidence: Evidence

    @property
    def verdict(self) -> Verdict:
        """What the runs say."""
        return self.evidence.verdict

    def __str__(self) -> str:
        lines = [f"{self.verdict.value}: {self.sentence}"]
        for c in self.evidence.comparisons:
            unit = f" {c.unit}" if c.unit else ""
            interval = f"{100 * c.confidence:g} % interval {c.low:.4g} to {c.high:.4g}"
            note = f"; {c.note}" if c.note else ""
            lines.append(f"  {c.full_name}: {c.estimate:.4g}{unit} ({interval}, {len(c.seeds)} seeds){note}")
        if self.evidence.reason:
            lines.append(f"  {self.evidence.reason}")
        return "\n".join(lines)


def judge(
    table: pd.DataFrame | Iterable[Mapping[str, Any]],
    claims: Iterable[Claim | Check | str],
    *,
    seed: str | Sequence[str] = "seed",
    status: str | None = None,
    run: str | None = None,
    step: str | None = None,
) -> list[Judgement]:
    """Judge claims on a table of runs, whoever trained them: paired differences over seeds, with intervals.

    Args:
        table: A pandas table, or a mapping a row. One row a run, with a column for its seed, for each setting and for
            each number that was measured at its end; or, with ``run`` and ``step``, one row a step.
        claims: Sentences (see `FORMS`), checks such as ``lower(final("val/loss"), this={"wd": 0.1}, than={"wd": 0})``,
            or whole `Claim` objects, whose budgets do not count here.
        seed: The column that pairs runs, or several: ``("seed", "lr")`` compares runs of one seed and learning rate.
        status: The column that says how each run ended: ``done`` or ``finished``, or ``diverged``; runs with any other
            status have not ended, and a claim about them is not testable. Without it every run counts as done.
        run: The column that tells runs apart where they have several rows.
        step: The column of the step of such a row.

    Returns:
        One judgement a claim, in their order. The rules are those of the experiments: ``holds`` where the 95 % interval
        lies wholly in the claimed region, ``fails`` where wholly outside, else ``undecided``; nothing is testable with
        fewer than three seeds.

    Raises:
        DecaylabError: An unknown column or value, several runs for one seed, or a sentence of no known form.

    >>> runs = [{"seed": s, "wd": wd, "loss": 3 - wd + 0.01 * s} for s in range(4) for wd in (0.0, 0.1)]
    >>> judge(runs, ["loss is lower with wd=0.1 than with wd=0"])[0].verdict.value
    'holds'
    """
    rows: Any = table.to_dict("records") if hasattr(table, "to_dict") else table  # pandas, where it is there
    results: Any = TableResults(rows, seed=seed, status=status, run=run, step=step)
    found = []
    for claim in claims:
        check: Callable[[Any], Evidence]
        if isinstance(claim, str):
            sentence, check = claim, check_from(claim)
        elif isinstance(claim, Claim):
            sentence, check = claim.sentence, claim.check
        else:
            sentence, check = claim.rule, claim
        try:
            found.append(Judgement(sentence=sentence, evidence=check(results)))
        except ValueError as error:  # what is a slip in a declaration of ours is a mistake of the caller's here
            raise DecaylabError(f"{sentence}: {error}") from error
    return found


def check_from(sentence: str) -> Check:
    """Return the check of a sentence.

    Args:
        sentence: One of `FORMS`.

    Raises:
        DecaylabError: It has no such form.

    >>> check_from("val/loss is lower by 0.01 with wd=0.1 than with wd=0").rule
    'final val/loss: wd 0.1 minus wd 0 lies below -0.01, paired by seed.'
    """
    try:
        words = shlex.split(sentence)
    except ValueError as error:
        raise DecaylabError(f"{sentence!r} cannot be read: {error}") from None
    found = _Sentence(words).check()
    if found is None:
        raise DecaylabError(f"{sentence!r} has none of the known forms: {'; '.join(FORMS)}")
    return found


class _Sentence:
    """The words of a sentence, taken one after the other."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def check(self) -> Check | None:
        verbs = ("lower", "higher", "equal", "below", "above", "between", "rises", "falls")
        place = next((i for i, word in enumerate(self._words) if word in verbs), 0)
        metric = " ".join(word for word in self._words[:place] if word != "is")
        if not metric:
            return None
        verb, self._words = self._words[place], self._words[place + 1 :]
        quantity = _reading(metric)
        try:
            return self._of(verb, quantity)
        except (IndexError, _NoNumberError):
            return None

    def _of(self, verb: str, quantity: Quantity) -> Check | None:
        if verb in ("lower", "higher"):
            by = self._number() if self._skip("by") else 0.0
            this = self._where("with", "at", "for")
            if not this or not self._skip("than"):
                return None
            than, shared = self._where("with", "at", "for"), self._condition()
            compare = checks.lower if verb == "lower" else checks.higher
            return compare(quantity, this=this | shared, than=than | shared, by=by) if than and self._ends else None
        if verb == "equal":
            if not self._skip("within"):
                return None
            margin, this = self._number(), self._where("with", "at", "for")
            if not self._skip("and"):
                return None
            that, shared = self._where("with", "at", "for"), self._condition()
            found = checks.equal(quantity, this=this | shared, that=that | shared, margin=margin)
            return found if this and that and self._ends else None
        if verb in ("rises", "falls"):
            if not self._skip("with"):
                return None
            over, shared = self._words.pop(0), self._condition()
            rising = "rising" if verb == "rises" else "falling"
            found = checks.trend(quantity, over=over, expect=rising, where=shared, scale="rank")  # type: ignore[arg-type]
            return found if self._ends else None
        low, high = -math.inf, math.inf
        if verb == "below":
            high = self._number()
        elif verb == "above":
            low = self._number()
        else:
            low = self._number()
            if not self._skip("and"):
                return None
            high = self._number()
        where = self._where("with", "at", "for", "where")
        return checks.inside(quantity, where=where, low=low, high=high) if self._ends else None

    @property
    def _ends(self) -> bool:
        return not self._words

    def _skip(self, *words: str) -> bool:
        if self._words and self._words[0] in words:
            self._words.pop(0)
            return True
        return False

    def _number(self) -> float:
        try:
            return float(self._words.pop(0))
        except ValueError:
            raise _NoNumberError from None

    def _condition(self) -> dict[str, float | str]:
        return self._where() if self._skip("where", "given", "if") else {}

    def _where(self, *leads: str) -> dict[str, float | str]:
        self._skip(*leads)
        found: dict[str, float | str] = {}
        while self._words and "=" in self._words[0]:
            name, _, value = self._words.pop(0).rstrip(",").partition("=")
            for pair in [f"{name}={value}"] if "," not in value else f"{name}={value}".split(","):
                key, _, text = pair.partition("=")
                found[key] = _value(text)
            more = self._words[:1] == ["and"] and "=" in "".join(self._words[1:2])
            if more and self._words[1].partition("=")[0] not in found:  # another column, not the other setting
                self._words.pop(0)
        return found


class _NoNumberError(Exception):
    """A word stands where a number is needed."""


def _reading(metric: str) -> Quantity:
    """Return the last value of a column as it is recorded; a diverged run counts as the worst loss or error."""
    worst = math.inf if metric.rsplit("/", 1)[-1].lower() in ("loss", "error", "perplexity") else None
    return final(metric, unit="", scale=1.0, diverged=worst)


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
