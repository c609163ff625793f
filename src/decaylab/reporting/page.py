"""One HTML file with charts, verdicts and recipes of some experiments, and the charts as SVG and CSV beside it."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import altair
import jinja2
import vl_convert
from markupsafe import Markup

import decaylab
from decaylab import studies
from decaylab.csv_cells import cells
from decaylab.experiments import config_tables as settings
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.false_discovery import multiplicity
from decaylab.experiments.results import ENDED, Results
from decaylab.experiments.spec import Experiment
from decaylab.files import atomic_write_together
from decaylab.reporting import figures, forest, look, manifest, numbers, palette, verdicts
from decaylab.reporting.aggregate import drawn
from decaylab.reporting.figure import Figure
from decaylab.reporting.legend import key
from decaylab.reporting.tables import Sheet
from decaylab.reporting.words import Words

BADGES = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.UNDECIDED: "?", Verdict.NOT_TESTABLE: "–"}
_CLASSES = {v: v.name.lower().replace("_", "-") for v in Verdict}
_MEASURED = {"peak_flops"}  # what differs from run to run on one machine


@dataclass(frozen=True, kw_only=True)
class _Section:
    """One experiment, ready for the template."""

    experiment: Experiment
    results: Results
    figures: list[Figure]
    sheets: list[Sheet]
    rulings: list[verdicts.Ruling]

    @property
    def ended(self) -> int:
        return int(self.results.runs["status"].isin(ENDED).sum())

    @property
    def diverged(self) -> int:
        return int((self.results.runs["status"] == "diverged").sum())

    @property
    def tally(self) -> list[tuple[str, str, int]]:
        """(class, sign, how many) for each verdict that occurs."""
        counts = Counter(r.evidence.verdict for r in self.rulings)
        return [(_CLASSES[v], BADGES[v], counts[v]) for v in Verdict if counts[v]]

    @property
    def environments(self) -> list[tuple[dict[str, Any], int]]:
        """Each different environment with its number of runs."""
        found: dict[str, int] = Counter(
            json.dumps({k: v for k, v in env.items() if v not in ("", None) and k not in _MEASURED})
            for env in self.results.environments.values()
        )
        return [(json.loads(text), count) for text, count in found.items() if text != "{}"]

    @property
    def command(self) -> str:
        """What reproduces the experiment; with a number of seeds where it is not the declared one."""
        budget, experiment = self.results.budget, self.experiment
        if experiment.command is not None:
            return experiment.command
        seeds = sorted({int(spec.labels["seed"]) for spec in self.results.specs})
        extra = "" if not seeds or seeds == sorted(experiment.seeds[budget]) else f" --seeds {len(seeds)}"
        return f"decaylab reproduce {studies.name_of(experiment)} --budget {budget}{extra}"


def build(
    items: Sequence[tuple[Experiment, Results]],
    out_dir: Path | str,
    *,
    formats: Sequence[str] = ("svg",),
    titles: bool = True,
) -> Path:
    """Write the report of some experiments.

    Args:
        items: Experiments with their results, complete or not; each experiment once.
        out_dir: Folder to write to; it is made if it is missing, files of the same names are replaced.
        formats: Of the charts beside the page: any of svg, pdf and png.
        titles: Whether those charts have their title; a paper's caption says it already.

    Returns:
        The page: ``index.html``. Beside it are ``charts/ID-CHART.svg`` (or the other formats) and ``.csv``,
        ``charts/ID-TABLE.csv``, ``verdicts.json``, ``verdicts.csv`` and ``page.json`` (which experiments it shows). All
        of them are written before the first is put into its place, so that a full disk leaves the page that was there.
        The page loads nothing, from a network or from disk, and says so to the browser.
    """
    out = Path(out_dir)
    sections = _sections(items)
    specs: dict[str, dict[str, Any]] = {}
    files: dict[str, str | bytes] = {}
    for section in sections:
        for figure in section.figures:
            name = f"{section.experiment.id}-{figure.chart.id}"
            if len(figure.points):
                views = figures.page_views(figure)
                specs |= {f"{name}-{i}": view for i, view in enumerate(views)}
                files |= {f"charts/{name}.{kind}": _drawing(figure, kind, titles) for kind in formats}
            files[f"charts/{name}.csv"] = _table(figure)
        for sheet in section.sheets:
            files[f"charts/{section.experiment.id}-{sheet.table.id}.csv"] = sheet.csv()
    rulings = [ruling for section in sections for ruling in section.rulings]
    files |= {"verdicts.json": verdicts.as_json(rulings), "verdicts.csv": verdicts.as_csv(rulings)}
    drawn_at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    shown = tuple((section.experiment.id, section.results.budget) for section in sections)
    own = manifest.Manifest(experiments=shown, drawn=drawn_at, files=tuple(files))
    files["index.html"] = _render(sections, specs, drawn_at, formats)
    before = manifest.read(out)
    atomic_write_together(out, {**files, manifest.NAME: own.to_json()})
    for name in set(before.files if before else ()) - set(files):  # charts of a page that is no more
        (out / name).unlink(missing_ok=True)
    return out / "index.html"


def _sections(items: Sequence[tuple[Experiment, Results]]) -> list[_Section]:
    points = {(e.id, c.id): drawn(c, r) for e, r in items for c in e.charts}
    everywhere: dict[str, list[str]] = {"plain": [], "ordered": [], "wd": [], "lr": []}
    for experiment, _ in items:
        for chart in experiment.charts:
            everywhere[chart.palette] += list(dict.fromkeys(points[experiment.id, chart.id]["color"]))
    sections = []
    for experiment, results in items:
        drawings = []
        for chart in experiment.charts:
            table = points[experiment.id, chart.id]
            colours = palette.colours(chart.palette, table["color"], everywhere[chart.palette])
            rules = tuple(chart.rules(results)) if chart.rules and len(table) else ()
            drawings.append(Figure(chart=chart, points=table, colours=colours, rules=rules))
        rulings = [
            verdicts.Ruling(experiment=experiment, budget=results.budget, claim=claim, evidence=claim.evaluate(results))
            for claim in experiment.claims
        ]
        sheets = [Sheet(table=table, data=table.data(results)) for table in experiment.tables]
        sections.append(
            _Section(experiment=experiment, results=results, figures=drawings, sheets=sheets, rulings=rulings)
        )
    return sections


def _render(sections: list[_Section], specs: dict[str, dict[str, Any]], drawn_at: str, formats: Sequence[str]) -> str:
    loader = jinja2.PackageLoader("decaylab.reporting", "template")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)

    def read(name: str) -> Markup:
        return Markup(loader.get_source(environment, name)[0])

    template = environment.get_template("page.html.jinja")
    words = Words()
    for name in ("95 % interval", "seed", "verdict"):  # they stand at the page's foot, below the list of words
        words.link(name)
    return template.render(
        sections=sections,
        multiplicity=multiplicity({(r.experiment.id, r.claim.id): r.evidence for s in sections for r in s.rulings}),
        tally=Counter(r.evidence.verdict for s in sections for r in s.rulings),
        verdicts=Verdict,
        badges=BADGES,
        classes=_CLASSES,
        numbers=numbers,
        picture=forest.picture,
        varying=settings.varying,
        shared=settings.shared,
        dashes=look.DASHES,
        key=key,
        formats=formats,
        words=words,
        declared=all(_is_declared(s.experiment) for s in sections),
        specs=Markup(json.dumps(specs, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")),
        style=read("style.css"),
        script=read("page.js"),
        library=Markup(_library()),
        version=decaylab.__version__,
        today=drawn_at,
    )


def _is_declared(experiment: Experiment) -> bool:
    """Whether an experiment is one of decaylab's own, whose rules are known to be older than the runs."""
    return experiment.id in studies.all_ids() and studies.get(experiment.id) is experiment


def _drawing(figure: Figure, kind: str, title: bool) -> str | bytes:
    """Draw a chart as a file of its own."""
    spec, version = figures.static_view(figure, title=title), _vega_lite_version()
    if kind == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(spec, vl_version=version))
    if kind == "png":
        return bytes(vl_convert.vegalite_to_png(spec, vl_version=version, scale=2))
    return str(vl_convert.vegalite_to_svg(spec, vl_version=version))


def _table(figure: Figure) -> str:
    """The numbers of a chart at full resolution, under the names of its columns."""
    chart = figure.chart
    names = {"panel": chart.panel, "color": chart.color, "dash": chart.dash}
    table = figure.points.drop(columns=[*(n for n, column in names.items() if not column), "each"])
    taken: dict[str, str] = {}
    for name, column in (*names.items(), ("x", chart.x), ("y", chart.y)):
        if column and column not in taken.values() and column not in ("low", "high", "count"):
            taken[name] = column
    named = table.rename(columns={**taken, "count": "seeds"})
    return str(cells(named).to_csv(index=False, float_format="%.8g"))


@cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed in one script that needs no network."""
    script = vl_convert.javascript_bundle(vl_version=_vega_lite_version())  # type: ignore[call-arg]  # its stubs lie
    return str(script).replace("</script", "<\\/script")


def _vega_lite_version() -> str:
    """The version that Altair writes for, or the newest one that the converter has."""
    wanted = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    known = vl_convert.get_vegalite_versions()
    return wanted if wanted in known else str(known[-1])
