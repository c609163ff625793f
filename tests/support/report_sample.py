"""A made-up experiment with every kind of chart and every kind of ending, for tests only."""

import numpy as np
import pandas as pd
from tests.support import synthetic
from tests.support.synthetic import Row

from decaylab.config.schema import LanguageRun, VisionRun
from decaylab.experiments import checks
from decaylab.experiments.chart_data import curves, finals
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import at, final
from decaylab.experiments.results import Results
from decaylab.experiments.spec import Chart, Claim, Experiment, Table

WITH, WITHOUT = {"lr": "large", "wd": "with"}, {"lr": "large", "wd": "none"}
SMALL, SMALL_WITHOUT = {"lr": "small", "wd": "with"}, {"lr": "small", "wd": "none"}
ERROR = final("test/error", name="test error")
SAID = "if a < b:\n    print('<b>&amp;</b>')\n\tend\x0b\r  "

VISION = Experiment(
    id="vision",
    title="Errors with and without weight decay, at a large and at a small learning rate",
    paper="Fig. 1",
    question="Is it enough to minimise the regularised loss, or does weight decay need the noise of a large step?",
    seeds={"mini": (0, 1, 2, 3)},
    plan=lambda budget, seeds: synthetic.specs(seeds),
    charts=(
        Chart(
            id="error",
            title="Test error along training",
            data=curves("test/error", setting="LR {lr}, WD {wd}"),
            color="setting",
            panel="lr",
            x_title="epoch",
            y_title="test error (%)",
            rules=lambda results: [(5.0, "LR drops")],
            caption="Mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="loss",
            title="Training loss",
            data=curves("train/loss"),
            color="wd",
            dash="lr",
            palette="wd",
            log_y=True,
            color_title="weight decay",
            dash_title="learning rate",
            y_title="cross-entropy (nats)",
        ),
        Chart(
            id="final",
            title="Final test error",
            data=finals("test/error", setting="LR {lr}, WD {wd}"),
            kind="bars",
            x="setting",
            color="wd",
            palette="wd",
            x_title="",
            y_title="test error (%)",
        ),
        Chart(
            id="by-rate",
            title="Final test error by learning rate",
            data=finals("test/error"),
            kind="points",
            x="lr_value",
            color="wd",
            palette="wd",
            log_x=True,
            x_title="learning rate",
            y_title="test error (%)",
        ),
    ),
    claims=(
        Claim(
            id="lower",
            sentence="A large learning rate with weight decay ends with a lower test error than without.",
            check=checks.lower(ERROR, this=WITH, than=WITHOUT),
        ),
        Claim(
            id="lowest",
            sentence="A large learning rate with weight decay ends with the lowest test error of the four, by far.",
            check=checks.all_of(
                checks.lower(ERROR, this=WITH, than=WITHOUT),
                checks.lower(ERROR, this=WITH, than=SMALL_WITHOUT, by=20),
            ),
        ),
        Claim(
            id="same",
            sentence="With a small learning rate, decay changes the final error by less than half a point.",
            check=checks.equal(ERROR, this=SMALL, that=SMALL_WITHOUT, margin=0.5),
        ),
        Claim(
            id="gap",
            sentence="With a small learning rate, decay makes the error fall more in the second half.",
            check=checks.lower(ERROR - at("test/error", 0.5), this=SMALL, than=SMALL_WITHOUT),
        ),
    ),
    recipe={"mini": "Made up from a formula, to see how a report looks."},
)


def said(results):
    """One row with an interval, one without, and a text that HTML would take for its own."""
    bounds = {"value_low": [1.5, float("nan")], "value_high": [1.5625, float("nan")]}
    return pd.DataFrame({"wd": [0.1, 0.33724], "value": [1.53125, 2.0], **bounds, "seeds": [5, 1], "text": [SAID, ""]})


LANGUAGE = Experiment(
    id="language",
    title="Training loss of a small transformer for several weight decays",
    paper="Fig. 5",
    question="Does weight decay help when every token is seen once?",
    seeds={"mini": (0, 1, 2)},
    plan=lambda budget, seeds: grid(
        LanguageRun(steps=4000), {"decay.weight_decay": [0.0, 0.1, 0.3], "seed": list(seeds)}
    ),
    charts=(
        Chart(
            id="loss",
            title="Training loss",
            data=curves("train/loss", start=0.05),
            x="step",
            color="wd",
            palette="wd",
            color_title="weight decay",
            x_title="step",
            y_title="training loss (nats a token)",
        ),
        Chart(id="nothing", title="Gap", data=curves("gap"), x="step", color="wd", y_title="nats"),
    ),
    claims=(
        Claim(
            id="lower-loss",
            sentence="Weight decay 0.3 ends with a lower training loss than none.",
            check=checks.lower(final("train/loss"), this={"wd": 0.3}, than={"wd": 0.0}),
        ),
        Claim(
            id="crosses",
            sentence="The curve with weight decay 0.3 is above during the first half.",
            check=checks.crosses("train/loss", this={"wd": 0.3}, than={"wd": 0.0}, between=(0.5, 1.0), start=0.05),
        ),
        Claim(
            id="diverges",
            sentence="Without decay more seeds diverge than with a decay of 0.1.",
            check=checks.diverges_more(this={"wd": 0.0}, than={"wd": 0.1}),
        ),
        Claim(
            id="never", sentence="This asks for <more> than this budget has.", check=checks.all_of(), budgets=("paper",)
        ),
    ),
    tables=(
        Table(
            id="said",
            title="What <they> said",
            data=said,
            columns={"wd": "weight decay", "value": "loss", "text": "text"},
            literal=("text",),
            caption="Made up.",
        ),
        Table(id="silence", title="Nobody", data=lambda results: said(results)[:0], columns={"wd": "weight decay"}),
    ),
    recipe={"mini": "Made up from a formula & <not> a run."},
)


def vision_results() -> Results:
    return synthetic.results(seeds=(0, 1, 2, 3))


def language_results(*, unfinished: bool = False) -> Results:
    """Long noisy curves; the seed 1 without decay diverges at a third of the way."""
    plan = LANGUAGE.runs("mini")
    rows, found = {}, []
    rng = np.random.default_rng(0)
    for spec in plan:
        wd, seed = float(spec.labels["wd"]), int(spec.labels["seed"])
        last = 4000
        row = Row(step=last, total_steps=4000)
        if wd == 0.0 and seed == 1:
            last, row = 1400, Row(status="diverged", reason="loss is nan", step=1400, total_steps=4000)
        elif unfinished and wd == 0.3:
            last, row = 2500, Row(status="running", step=2500, total_steps=4000)
        rows[spec.id] = row
        steps = np.arange(1, last + 1, 2)
        f = steps / 4000
        loss = 1.8 + 2.5 * np.exp(-9 * f) + 0.3 * wd * (1 - 1.8 * f) + 0.01 * seed + rng.normal(0, 0.01, len(steps))
        found.append(pd.DataFrame({"run": spec.id, "step": steps, "key": "train/loss", "value": loss}))
    table = pd.concat(found)
    return Results(plan, rows, lambda keys: table[table["key"].isin(keys)], budget="mini")


def items(*, unfinished: bool = False):
    return [(VISION, vision_results()), (LANGUAGE, language_results(unfinished=unfinished))]


__all__ = ["LANGUAGE", "VISION", "VisionRun", "items", "language_results", "vision_results"]
