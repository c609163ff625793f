"""One page with the answer of a search: loss over weight decay by length, the optimum over the length, the trials."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from decaylab.files import atomic_write_text
from decaylab.quantities import format_number
from decaylab.tuning.answer import Answer

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-size: .85rem; } td, th { padding: .15rem .7rem; text-align: right; }
tr:nth-child(even) { background: #f4f4f4; } .answer { font-size: 1.15rem; } .chart { overflow-x: auto; }
.chart svg { max-width: 100%; height: auto; }
@media print { details { display: block; } }
"""


def write(answer: Answer, folder: Path, *, name: str = "loss") -> Path:
    """Write the page, its charts and its numbers.

    Args:
        answer: Of a search.
        folder: It is made if it is missing.
        name: Of the metric, for the axes.

    Returns:
        The page ``index.html``; beside it are ``answer.json``, ``curves.svg`` and ``optimum.svg``.
    """
    import vl_convert

    charts = {"curves": curves(answer, name), "optimum": optimum(answer)}
    drawn = {}
    for key, spec in charts.items():
        if spec is not None:
            drawn[key] = str(vl_convert.vegalite_to_svg(spec))
            atomic_write_text(folder / f"{key}.svg", drawn[key])
    atomic_write_text(folder / "answer.json", answer.as_json())
    page = folder / "index.html"
    atomic_write_text(page, _html(answer, drawn))
    return page


def curves(answer: Answer, name: str) -> dict[str, Any] | None:
    """Return the chart of the metric over weight decay, a line a length: every seed's trials and their mean.

    Values are less the mean over the smallest decay's seeds of the same length, so that the lengths share an axis.
    """
    rows = []
    for steps in sorted({t.steps for t in answer.trials}):
        mine = [t for t in answer.trials if t.steps == steps and t.value is not None]
        positive = sorted({t.weight_decay for t in mine if t.weight_decay > 0})
        if len(positive) < 2:
            continue
        none = {t.seed: t.value for t in mine if t.weight_decay == 0}
        for trial in mine:
            base = none.get(trial.seed)
            if trial.weight_decay > 0 and base is not None and trial.value is not None:
                change = trial.value - base
                rows.append(
                    {"wd": trial.weight_decay, "change": change, "steps": f"{steps:,} steps", "seed": trial.seed}
                )
    if not rows:
        return None
    x = {"field": "wd", "type": "quantitative", "scale": {"type": "log"}, "title": "weight decay"}
    y = {"type": "quantitative", "title": f"change of {name} against no decay", "scale": {"zero": False}}
    color = {
        "field": "steps",
        "type": "nominal",
        "sort": None,
        "title": "complete runs of",
        "scale": {"scheme": "viridis"},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": 560,
        "height": 320,
        "data": {"values": rows},
        "layer": [
            {
                # One legend for both: Vega merges those of the same field, sorting and title.
                "encoding": {
                    "x": x,
                    "color": color,
                    "strokeDash": {"field": "steps", "type": "nominal", "sort": None, "title": color["title"]},
                },
                "layer": [
                    {"mark": {"type": "point", "opacity": 0.5}, "encoding": {"y": y | {"field": "change"}}},
                    {"mark": {"type": "line"}, "encoding": {"y": y | {"field": "change", "aggregate": "mean"}}},
                ],
            },
            {"mark": {"type": "rule", "color": "#888"}, "encoding": {"y": {"datum": 0}}},
        ],
    }


def optimum(answer: Answer) -> dict[str, Any] | None:
    """Return the chart of the best weight decay over the length: each rung's vertex, the band, and the answer."""
    value = answer.weight_decay
    if not answer.band or value.value is None:
        return None
    places = [
        *(asdict(place) | {"what": "complete runs of this length alone"} for place in answer.vertices),
        {**asdict(answer.band[-1]), "what": "full run, predicted"},
    ]
    x = {"field": "steps", "type": "quantitative", "scale": {"type": "log"}, "title": "steps of the complete run"}
    y = {"type": "quantitative", "scale": {"type": "log"}, "title": "best weight decay"}
    ends = {"y": y | {"field": "low"}, "y2": {"field": "high"}}
    color = {"field": "what", "type": "nominal", "title": None, "sort": None}
    band = {"values": [asdict(place) for place in answer.band]}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": 560,
        "height": 260,
        "layer": [
            {"data": band, "mark": {"type": "area", "opacity": 0.15}, "encoding": {"x": x, **ends}},
            {
                "data": band,
                "mark": {"type": "line", "strokeDash": [4, 4]},
                "encoding": {"x": x, "y": y | {"field": "value"}},
            },
            {
                "data": {"values": places},
                "encoding": {"x": x, "color": color},
                "layer": [
                    {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": ends},
                    {
                        "mark": {"type": "point", "filled": True, "size": 70},
                        "encoding": {"y": y | {"field": "value"}},
                    },
                ],
            },
        ],
    }


def _html(answer: Answer, drawn: dict[str, str]) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in answer.lines()[1:])
    figures = "".join(
        f'<h2>{title}</h2><div class="chart">{drawn[key]}</div>'
        for key, title in (
            ("curves", "Loss over weight decay, paired by seed"),
            ("optimum", "The optimum over the length of the run, with its 95 % predictive band"),
        )
        if key in drawn
    )
    cells = "".join(
        f"<tr><td>{t.steps:,}</td><td>{format_number(t.weight_decay)}</td><td>{format_number(t.lr)}</td><td>{t.seed}</td>"
        f"<td>{'' if t.value is None else format_number(t.value, 5)}</td><td>{t.status}</td><td>{t.run}</td></tr>"
        for t in answer.trials
    )
    data = json.dumps(answer.as_dict(), allow_nan=False).replace("</", "<\\/")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>decaylab tune: {answer.verdict}</title><style>{_STYLE}</style>"
        f'<h1>Which weight decay? <em>{answer.verdict}</em></h1><p class="answer">{html.escape(answer.sentence)}</p>'
        f"<ul>{lines}</ul>{figures}<h2>Trials</h2><details><summary>{len(answer.trials)} complete runs</summary>"
        "<table><tr><th>steps</th><th>weight decay</th><th>lr</th><th>seed</th><th>metric</th><th>status</th>"
        f"<th>run</th></tr>{cells}</table></details>"
        f'<script type="application/json" id="answer">{data}</script></html>'
    )
