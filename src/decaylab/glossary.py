"""Terms of the field as decaylab uses them: one list for the report's tooltips, ``decaylab glossary`` and the docs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Term:
    """A term and what it means.

    Attributes:
        name: As it is written in a sentence.
        text: What it is, in one or two sentences, with its equation where it has one.
        forms: Other ways in which it stands in texts.
    """

    name: str
    text: str
    forms: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Its place in a document: ``term-effective-learning-rate``."""
        return "term-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


GLOSSARY: tuple[Term, ...] = (
    Term(
        name="95 % interval",
        text="Range that covers the mean over seeds in 95 of 100 repetitions, by Student's t distribution with one "
        "degree of freedom less than seeds. It grows with the spread between seeds and shrinks with their number.",
        forms=("95 % t interval", "95 % intervals", "95 % t intervals"),
    ),
    Term(
        name="budget",
        text="Size of an experiment's runs: smoke (seconds, proves that the path works), mini (minutes on a laptop) or "
        "paper (the paper's own sizes).",
    ),
    Term(
        name="decay share",
        text="Share of one step's update that is weight decay: ||decay term|| / ||update||.",
        forms=("share of the update that is decay",),
    ),
    Term(
        name="decoupled weight decay",
        text="Decay beside the gradient's step, as in AdamW: w <- (1 - lr lambda) w - lr u, u being the optimizer's "
        "direction. It does not pass through momentum or through Adam's normalisation.",
        forms=("decoupled decay", "decoupled"),
    ),
    Term(
        name="diverged",
        text="A run whose loss became infinite, not a number, or rose and did not come back. That is a result: such a "
        "run counts as an infinite loss, or as an error of 100 %.",
        forms=("diverges", "diverge", "divergence"),
    ),
    Term(
        name="effective learning rate",
        text="How far a step turns the weights: learning rate over the squared weight norm, lr / ||w||^2 (SGD) or "
        "lr / ||w|| (Adam, sign descent). Weights that do not grow keep it high; decay sets it through the norm.",
        forms=("effective learning rates", "effective LR"),
    ),
    Term(
        name="EMA",
        text="Exponential moving average of the weights, a <- b a + (1 - b) w after every step. It shows where a noisy "
        "trajectory is centred.",
        forms=("exponential moving average",),
    ),
    Term(
        name="equilibrium",
        text="Balance between the growth of the weight norm by updates and its shrinking by decay. The norm is then "
        "steady and every step turns the weights by about sqrt(2 lr lambda) radians.",
        forms=("rotational equilibrium",),
    ),
    Term(
        name="false-discovery rate",
        text="Expected share of false ones among the claims of a page that hold. Benjamini and Hochberg's correction "
        "keeps it at 5 % by asking more of each claim the more of them are tested.",
    ),
    Term(
        name="g",
        text="Hedges' g, the effect size: mean of the paired differences over their standard deviation, corrected for "
        "few seeds. 0.2 is small beside the noise between seeds, 0.8 large.",
        forms=("Hedges' g",),
    ),
    Term(
        name="gap",
        text="Generalisation gap: loss (or error) on held-out data minus that on the training data.",
        forms=("generalisation gap",),
    ),
    Term(
        name="Hessian trace",
        text="Sum of the second derivatives of the loss by each weight: the mean curvature times their number.",
        forms=("trace of the Hessian",),
    ),
    Term(
        name="L2 penalty",
        text="lambda/2 ||w||^2 added to the loss. Its gradient lambda w passes through momentum and through Adam's "
        "normalisation, so that with Adam it is not the same as decoupled weight decay.",
        forms=("L2 regularisation", "L2 regularization"),
    ),
    Term(
        name="nats",
        text="Unit of a cross-entropy with the natural logarithm; 1 nat is 1.44 bits, and perplexity is e to it.",
        forms=("nat",),
    ),
    Term(
        name="norm twin",
        text="A run without decay whose weight tensors are rescaled after every step to the norms that they have in "
        "another run with decay: what it lacks of that run's effect is not an effect of norms.",
        forms=("norm twins",),
    ),
    Term(
        name="paired by seed",
        text="Two settings are compared within each seed, with the same initial weights and order of data on both "
        "sides, so that the spread between seeds cancels in the difference.",
        forms=("paired differences", "paired difference", "paired"),
    ),
    Term(
        name="probe",
        text="A measurement of a model while it trains, such as weight norms, that changes nothing.",
        forms=("probes",),
    ),
    Term(
        name="role",
        text="What a parameter is in its layer: matrix, embedding, head, norm, bias or scalar. Roles decide what "
        "decays.",
        forms=("roles",),
    ),
    Term(
        name="rotation",
        text="Angle between the weights before and after a step, in radians; in equilibrium it is set by the product "
        "of learning rate and decay.",
        forms=("angular update",),
    ),
    Term(
        name="scale-invariant",
        text="Weights whose scaling by a positive factor leaves the loss as it is, because a normalisation layer "
        "follows. Their norm acts only through the effective learning rate.",
        forms=("scale invariant", "scale invariance"),
    ),
    Term(
        name="seed",
        text="Number that decides initial weights, order of data and other chance of a run. Runs that differ in "
        "nothing else show how much of a difference is chance.",
        forms=("seeds",),
    ),
    Term(
        name="timescale",
        text="Number of steps after which decay alone has shrunk a weight to 1/e: 1 / (lr lambda) steps for decoupled "
        "decay. About as many recent steps are what the weights remember; a run much shorter than one hardly decays.",
        forms=("timescales",),
    ),
    Term(
        name="uniform average",
        text="Plain mean of the weights after every step since some point of the run (stochastic weight averaging).",
        forms=("SWA", "stochastic weight averaging"),
    ),
    Term(
        name="verdict",
        text="What the runs say about a claim, computed by a rule: holds when the whole interval lies in the claimed "
        "region, fails when it lies wholly outside, undecided when it reaches across.",
        forms=("verdicts",),
    ),
)


def find(text: str) -> Iterator[tuple[int, int, Term]]:
    """Yield (start, end, term) for each place in a text where a term stands, longest forms first, in their order."""
    for match in _PATTERN.finditer(text):
        yield match.start(), match.end(), _BY_FORM[match[0].lower()]


def markdown() -> str:
    """Return the glossary as the page of the docs."""
    lines = [
        "# Glossary",
        "",
        "Terms as decaylab uses them; the report's tooltips and `decaylab glossary` say the same.",
    ]
    for term in GLOSSARY:
        also = f" (also: {', '.join(term.forms)})" if term.forms else ""
        lines += ["", f'<a id="{term.anchor}"></a>', f"**{term.name}**{also}", "", f": {_escaped(term.text)}"]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([*_<])", r"\\\1", text)


_BY_FORM = {form.lower(): term for term in GLOSSARY for form in (term.name, *term.forms)}
# g is a letter: only the page itself marks it, where it stands for the effect size.
_FORMS = sorted((form for form in _BY_FORM if form != "g"), key=len, reverse=True)
_PATTERN = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, _FORMS))})(?![\w-])", re.IGNORECASE)
