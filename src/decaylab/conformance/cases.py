"""Golden cases: three steps on four numbers whose results are known to twelve digits.

The vectors were computed in float64 from the papers' equations, by a restatement that shares no code with this
package, and agree with torch 2.13's AdamW, Adam and SGD.
"""

from __future__ import annotations

from dataclasses import dataclass

START = ((1.0, -2.0), (0.5, 3.0))
GRADIENTS = (
    ((0.1, 0.2), (-0.3, 0.4)),
    ((-0.2, 0.1), (0.3, 0.5)),
    ((0.3, -0.4), (0.1, -0.2)),
)
LR = 0.1
MULTIPLIERS = (1.0, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One golden case.

    Attributes:
        name: For tables.
        base: Method in `decaylab.conformance.reference`.
        meaning: What lambda means, a key of `decaylab.conformance.meaning.MEANINGS`.
        entry: Where the decay enters, one of `decaylab.conformance.entry.Kind`.
        weight_decay: Lambda.
        momentum: Of SGD.
        result: The weights after three steps, row by row.
    """

    name: str
    base: str
    meaning: str
    entry: str = "before"
    weight_decay: float
    momentum: float = 0.0
    result: tuple[float, float, float, float]


GOLDEN = (
    Golden(
        name="AdamW",
        base="adam",
        meaning="torch",
        weight_decay=0.1,
        result=(0.893014520571, -2.105759526097, 0.583263539871, 2.784979802043),
    ),
    Golden(
        name="Adam, independent decay",
        base="adam",
        meaning="independent",
        weight_decay=0.01,
        result=(0.893014520571, -2.105759526097, 0.583263539871, 2.784979802043),
    ),
    Golden(
        name="Adam + L2",
        base="adam",
        meaning="l2",
        entry="l2",
        weight_decay=0.1,
        result=(0.872577285533, -1.944665235322, 0.578928194567, 2.829362915035),
    ),
    Golden(
        name="AdamW, cautious decay",
        base="adam",
        meaning="torch",
        entry="cautious",
        weight_decay=0.1,
        result=(0.897453395621, -2.136083526072, 0.588226102371, 2.784979802043),
    ),
    Golden(
        name="SGD with momentum + L2",
        base="sgd",
        meaning="l2",
        entry="l2",
        weight_decay=0.01,
        momentum=0.9,
        result=(0.987857086125, -2.025024427250, 0.523982984937, 2.894820882125),
    ),
)
