"""Run every identity against an optimizer, and say what its lambda means or what broke."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from decaylab.conformance.context import Context, broken, holds
from decaylab.conformance.entry import EXACT, KINDS, SINGLE, computes_in_single, find_entry, trace
from decaylab.conformance.finding import Finding
from decaylab.conformance.identities import IDENTITIES
from decaylab.conformance.meaning import MEANINGS, OTHER_MEANINGS, fit, power_law, switched
from decaylab.conformance.reference import Constants
from decaylab.conformance.samples import samples
from decaylab.conformance.subject import MULTIPLIERS, Subject, difference, draws
from decaylab.errors import DecaylabError, unknown

# (lr, lambda, size of the gradients): apart enough that no two meanings agree on all of them.
SETTINGS = ((0.1, 0.1, 1.0), (0.03, 0.5, 10.0), (0.2, 0.02, 0.1))


@dataclass(frozen=True, repr=False)
class Report:
    """What the check found.

    Attributes:
        target: Name of the optimizer.
        version: Distribution and version that it comes from, as ``torch 2.13.0``; empty where that is unknown.
        meaning: What lambda means: a key of `MEANINGS` or `OTHER_MEANINGS`; None where nothing fits.
        entry: Where the decay enters, a key of `KINDS`.
        convention: Both in words.
        findings: One a identity, in the table's order.
    """

    target: str
    version: str
    meaning: str | None
    entry: str
    convention: str
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The identities that broke."""
        return tuple(finding for finding in self.findings if finding.status == "broken")

    @property
    def conforms(self) -> bool:
        """Whether no identity broke."""
        return not self.broken

    def __getitem__(self, identity: str) -> Finding:
        for finding in self.findings:
            if finding.identity == identity:
                return finding
        raise KeyError(identity)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings], "conforms": self.conforms}

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        width = max(len(finding.identity) for finding in self.findings)
        lines = [f"{self.target}  ({self.version})" if self.version else self.target, f"  {self.convention}", ""]
        lines += [f"  {f.status:<7}  {f.identity:<{width}}  {f.text}" for f in self.findings]
        verdict = "conforms" if self.conforms else f"broken: {', '.join(f.identity for f in self.broken)}"
        return "\n".join([*lines, "", f"  {verdict}"])


def check(factory: Callable[..., Any], convention: str | None = None, *, name: str | None = None) -> Report:
    """Measure what an optimizer's ``weight_decay`` does, and hold it to the identities.

    The optimizer is run on small float64 matrices with gradients that it cannot influence. Its convention is found by
    fitting, not read from its name: the share of the weight that each step removes is compared with every meaning of
    lambda over several values of lr, lambda, gradient size and schedule.

    Args:
        factory: Called as ``factory(params, lr=..., weight_decay=...)``: an optimizer class, a ``functools.partial``
            of one with further arguments, or a function.
        convention: What lambda should mean, where a finding should break if it does not: a key of `MEANINGS` or
            `OTHER_MEANINGS` (``torch``, ``l2``, ``independent`` ...).
        name: Name of the optimizer in the report; by default the factory's.

    Returns:
        The report: print it, or ask ``conforms``, ``meaning``, ``broken``.

    Raises:
        DecaylabError: The factory cannot be called so, the optimizer cannot step, or the convention is unknown.

    Example:
        >>> import torch
        >>> report = check(torch.optim.AdamW)
        >>> report.meaning, report.entry, report.conforms
        ('torch', 'before', True)
    """
    if convention is not None and convention not in {**MEANINGS, **OTHER_MEANINGS}:
        raise unknown("convention", convention, {**MEANINGS, **OTHER_MEANINGS})
    inner: Any = factory
    while isinstance(inner, partial):
        inner = inner.func
    title = name or f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(inner).__name__)}"
    with torch.random.fork_rng(devices=[]):  # `Subject.step` sets the seed; the caller's random state stays
        context = measure(Subject(factory, title))
        findings = [_deterministic(context)]
        if findings[0].status == "holds":
            findings += [_ask(name, identity, context) for name, identity in IDENTITIES.items()]
        if convention is not None:
            findings.append(_as_asked(context, convention))
    return Report(title, _version(inner), context.meaning, context.entry.kind, _in_words(context), tuple(findings))


def measure(subject: Subject) -> Context:
    """Find where an optimizer's decay enters and what its lambda means, without asking for the identities.

    Args:
        subject: The optimizer, to be built several times.

    Returns:
        What was found.

    Raises:
        DecaylabError: It cannot be built or stepped, or it does not move.
    """
    traces = [
        trace(subject, lr=lr, weight_decay=decay, scale=scale, seed=10 * index)
        for index, (lr, decay, scale) in enumerate(SETTINGS)
    ]
    if not any((after - old).any() for item in traces for after, old in zip(item.free, item.old, strict=True)):
        raise DecaylabError(
            f"{subject.name} does not move in its first {len(MULTIPLIERS)} steps, so nothing can be measured; shorten "
            "what it waits for by --kwargs, or a factory of your own"
        )
    again = trace(subject, lr=SETTINGS[0][0], weight_decay=SETTINGS[0][1], scale=SETTINGS[0][2])
    random = any(difference(left, right) > 0 for left, right in zip(traces[0].free, again.free, strict=True))
    probe = subject.build([nn.Parameter(draws(1, seed=0)[0])], 0.05, 0.2)
    constants = Constants.of(probe.param_groups[0])
    entry = find_entry(subject, traces, single=computes_in_single(subject))
    tolerance = SINGLE if entry.single else EXACT
    paired = samples(traces, entry, constants)
    law, law_error = power_law(paired)
    return Context(
        subject=subject,
        traces=traces,
        entry=entry,
        fits=fit(paired, tolerance) if paired else [],
        factor=switched(paired, tolerance) if entry.kind in ("before", "after") else None,
        law=law,
        law_error=law_error,
        constants=constants,
        random=random,
        holds_decay=probe.param_groups[0].get("weight_decay") == 0.2,
    )


def _ask(name: str, identity: Callable[[Context], Finding], context: Context) -> Finding:
    """The identity's answer; an optimizer that stops in the middle of it broke it."""
    try:
        return identity(context)
    except DecaylabError as error:
        return broken(name, str(error))


def _deterministic(context: Context) -> Finding:
    name = "deterministic"
    if context.random:
        return broken(name, "two equal runs with one seed differ, or give no number: nothing can be compared")
    return holds(name, "two equal runs are bit-equal")


def _as_asked(context: Context, convention: str) -> Finding:
    name, found = "convention", context.meaning
    if found == convention or (found is not None and found.removesuffix("_seen") == convention):
        return holds(name, f"{convention}, as asked")
    if convention == "l2" and context.entry.also_l2:
        return holds(name, "l2, as asked (without memory it is also decoupled)")
    return broken(name, f"asked for {convention}, found {found or 'none that fits'}: {_in_words(context)}")


def _in_words(context: Context) -> str:
    kind, found = context.entry.kind, context.meaning
    words = KINDS[kind]
    if found in MEANINGS:
        what = MEANINGS[found]
        words += f"; {what.name}: p ← {what.equation}"
        if what.note:
            words += f" ({what.note})"
    elif found == "switched":
        words += f"; {OTHER_MEANINGS[found]}"
    elif kind in ("before", "after", "cautious", "masked"):
        words += "; its lambda has no known meaning"
    if context.entry.also_l2 and context.entry.shares:
        words += "; the same as L2 in the gradient, because nothing is remembered"
    return words + ("; computed in single precision" if context.entry.single else "")


def _version(inner: Any) -> str:
    package = str(getattr(inner, "__module__", "")).split(".")[0]
    names = importlib.metadata.packages_distributions().get(package)
    return f"{names[0]} {importlib.metadata.version(names[0])}" if names else ""
