"""What an experiment is: a question, the runs that answer it at each budget, the charts and the claims.

Everything here is a declaration. Nothing trains, draws or reads a file, and importing it is cheap: the command line
lists all experiments without loading pandas or torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from decaylab.config.schema import reads_files
from decaylab.errors import DecaylabError, unknown
from decaylab.experiments.evidence import Evidence, not_testable
from decaylab.experiments.run_spec import RunSpec
from decaylab.references import reference_to

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results

BUDGETS = ("smoke", "mini", "gpu-hour", "paper")
_MOST_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn, without a word about how: the report gives it its form, interactive and static.

    Attributes:
        id: Short and unique in the experiment; part of the file names.
        title: Above the chart.
        data: Gives the table: one row a point, with a column for each of the names below (see ``series``).
        x: Column of the horizontal axis. Text makes it categorical.
        y: Column of the vertical axis.
        kind: ``line``, ``points`` or ``bars``.
        over: Column averaged over (mean with its 95 % t interval as a band or an error bar); None draws the rows as
            they are.
        color: Column that decides the colour, and the legend.
        dash: Column that decides the dashes of a line or the shape of a point.
        panel: Column that splits the chart into small multiples.
        palette: ``wd`` and ``lr`` give the same value the same colour in every figure; ``ordered`` goes from light to
            dark; ``plain`` counts through the palette.
        log_x: Logarithmic horizontal axis.
        log_y: Logarithmic vertical axis.
        y_domain: Range of the vertical axis; the data's by default. What lies outside is clipped.
        share_y: Whether the panels have one vertical axis.
        x_title: Axis label with its unit.
        y_title: Axis label with its unit.
        color_title: Name of the legend.
        dash_title: Name of the legend of the dashes.
        rules: Vertical marks: (x, text), such as where the learning rate drops.
        caption: Below the chart.
    """

    id: str
    title: str
    data: Callable[[Results], pd.DataFrame]
    x: str = "epoch"
    y: str = "value"
    kind: Literal["line", "points", "bars"] = "line"
    over: str | None = "seed"
    color: str | None = None
    dash: str | None = None
    panel: str | None = None
    palette: Literal["plain", "wd", "lr", "ordered"] = "plain"
    log_x: bool = False
    log_y: bool = False
    y_domain: tuple[float, float] | None = None
    share_y: bool = True
    x_title: str = ""
    y_title: str = ""
    color_title: str = ""
    dash_title: str = ""
    rules: Callable[[Results], Sequence[tuple[float, str]]] | None = None
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers and texts in rows, for what a chart cannot draw.

    Attributes:
        id: Short and unique among the experiment's charts and tables; part of the file name.
        title: Above the table.
        data: Gives the rows, in their order (see ``completions``).
        columns: Column of the data to its heading on the page, in their order; others are in the CSV only. A number
            with ``NAME_low`` and ``NAME_high`` beside it in the data is shown with that interval.
        literal: Columns of text whose spaces and line ends matter.
        caption: Below the table.
    """

    id: str
    title: str
    data: Callable[[Results], pd.DataFrame]
    columns: Mapping[str, str]
    literal: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence that the runs can contradict.

    Attributes:
        id: Short and unique in the experiment.
        sentence: What is claimed, in one sentence, true at any budget.
        check: Turns the results into evidence; build it from ``checks``. Its rule is fixed before the runs.
        budgets: Where the claim can be tested at all. Leave a budget out with a reason in ``untested``.
        untested: Why not, by budget.
    """

    id: str
    sentence: str
    check: Callable[[Results], Evidence]
    budgets: tuple[str, ...] = ("mini", "gpu-hour", "paper")
    untested: Mapping[str, str] = field(default_factory=dict)

    def evaluate(self, results: Results) -> Evidence:
        """Check the claim on some results."""
        if results.budget not in self.budgets:
            reason = self.untested.get(results.budget, f"the {results.budget} budget only proves that the path works")
            return not_testable(getattr(self.check, "rule", ""), reason)
        return self.check(results)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One figure or study.

    Attributes:
        id: The module's name, the anchor in the report and the name of its files.
        title: One line.
        paper: What it reproduces, such as ``"Fig. 5"``, or ``"own"``.
        question: What it asks, in one or two sentences.
        seeds: The seeds of each budget; its keys are the budgets there are.
        plan: Gives the runs of a budget for some seeds.
        charts: What is drawn.
        tables: What stands in rows below the charts.
        claims: What is tested.
        recipe: How the runs of each budget were chosen, deviations from the paper, and how the recipe was found.
        version: Raised when a change alters the numbers.
        command: What trains its runs, where that is not ``decaylab reproduce``.
        train: What trains its runs, where that is not decaylab's own loop: a function, or a reference to one such as
            ``package.module:train``. Its configs are then of any kind; see `decaylab.launch.own_training`.
    """

    id: str
    title: str
    paper: str = "own"
    question: str = ""
    seeds: Mapping[str, Sequence[int]]
    plan: Callable[[str, Sequence[int]], Sequence[RunSpec]]
    charts: tuple[Chart, ...] = ()
    claims: tuple[Claim, ...] = ()
    recipe: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    version: int = 1
    command: str | None = None
    train: Callable[..., Any] | str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", self.id):
            raise ValueError(f"experiment id {self.id!r}: letters, digits, _ and - only, it names files")
        drawn = [c.id for c in self.charts] + [t.id for t in self.tables]  # both name files of one folder
        for what, names in (("chart or table", drawn), ("claim", [c.id for c in self.claims])):
            repeated = {name for name in names if names.count(name) > 1}
            if repeated:
                raise ValueError(f"experiment {self.id}: {what} id {sorted(repeated)[0]!r} is there twice")
        if not set(self.seeds) <= set(BUDGETS) or (self.recipe and set(self.recipe) != set(self.seeds)):
            raise ValueError(f"experiment {self.id}: seeds and recipe need the same budgets, among {BUDGETS}")

    @property
    def budgets(self) -> tuple[str, ...]:
        """The budgets there are, the smallest first."""
        return tuple(b for b in BUDGETS if b in self.seeds)

    def seed_list(self, budget: str, num_seeds: int | None = None) -> tuple[int, ...]:
        """Return the seeds of a budget: its own, the first few of them, or more of them.

        Args:
            budget: One of ``budgets``.
            num_seeds: How many; those of the declaration by default. More than declared go on from the largest.

        Raises:
            DecaylabError: Unknown budget, or no seed at all.
        """
        if budget not in self.seeds:
            raise unknown(f"budget of {self.id}", budget, self.budgets)
        own = tuple(self.seeds[budget])
        if num_seeds is None:
            return own
        if not 1 <= num_seeds <= _MOST_SEEDS:
            raise DecaylabError(f"the number of seeds goes from 1 to {_MOST_SEEDS:,}, it cannot be {num_seeds}")
        return (own + tuple(range(max(own) + 1, max(own) + 1 + num_seeds)))[:num_seeds]

    def runs(self, budget: str, num_seeds: int | None = None) -> tuple[RunSpec, ...]:
        """Return the runs of a budget; none for an illustration that is computed when it is drawn.

        Args:
            budget: One of ``budgets``.
            num_seeds: How many seeds; see ``seed_list``.

        Raises:
            DecaylabError: Unknown budget, no seed at all, or a file that a run reads is missing.
            ValueError: A plan that breaks its own rules: no ``seed`` label, other labels than its neighbours, or one
                run twice.
        """
        trainer = "" if self.train is None else reference_to(self.train)
        plan = self.plan(budget, self.seed_list(budget, num_seeds))
        if trainer:
            specs = tuple(dataclasses.replace(spec, trainer=trainer, version=self.version) for spec in plan)
        else:
            specs = tuple(_with_content(spec) for spec in plan)
        if not specs:
            return ()
        names = {tuple(sorted(spec.labels)) for spec in specs}
        if len(names) != 1 or "seed" not in next(iter(names)):
            raise ValueError(f"experiment {self.id}: all runs need the same labels, with a seed among them")
        taken = set(next(iter(names))) & {
            "run",
            "step",
            "epoch",
            "fraction",
            "value",
            "status",
            "reason",
            "total_steps",
        }
        if taken:
            raise ValueError(
                f"experiment {self.id}: a label cannot be called {sorted(taken)[0]!r}, tables use that name"
            )
        keys = {spec.id if trainer else spec.config for spec in specs}
        if len(keys) < len(specs):  # configs are equal where ids are, and cheaper to compare
            raise ValueError(f"experiment {self.id}: one run is there twice at budget {budget}")
        return specs


def _with_content(spec: RunSpec) -> RunSpec:
    """Fill in the digests of the user's files that a run reads: they are part of its id."""
    if not reads_files(spec.config):
        return spec
    from decaylab.train.preflight.inputs import with_content

    return dataclasses.replace(spec, config=with_content(spec.config))


def with_settings(config: Any, settings: Mapping[str, Any]) -> Any:
    """Return a copy of a nested frozen config with some settings changed.

    Args:
        config: A dataclass whose fields may be dataclasses.
        settings: Dotted path of a field (``"optimizer.lr"``) to its new value.

    Raises:
        ValueError: A path that is not in the config; the message has near matches.

    >>> from decaylab.config.schema import VisionRun
    >>> with_settings(VisionRun(), {"optimizer.lr": 0.2, "seed": 3}).optimizer.lr
    0.2
    """
    inner: dict[str, dict[str, Any]] = {}
    for path, value in settings.items():
        name, _, rest = path.partition(".")
        inner.setdefault(name, {})[rest] = value
    if isinstance(config, Mapping):
        known = {**config, **{n: own[""] for n, own in inner.items() if "" in own}}
        return {**known, **{n: with_settings(config.get(n), own) for n, own in inner.items() if "" not in own}}
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"settings {', '.join(settings)} lie inside a plain value")
    names = [f.name for f in dataclasses.fields(config)]
    for name in inner:
        if name not in names:
            raise ValueError(str(unknown(f"setting of {type(config).__name__}", name, names)))
    # One replacement a dataclass: a config checks itself, so settings that belong together must change together.
    changes = {n: own[""] if "" in own else with_settings(getattr(config, n), own) for n, own in inner.items()}
    return dataclasses.replace(config, **changes)
