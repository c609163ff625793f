"""``decaylab judge``: verdicts on a table of anybody's runs."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from decaylab.cli.json_output import print_json
from decaylab.errors import DecaylabError


def judge(
    table: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CSV")],
    claim: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    seed: tuple[str, ...] = ("seed",),
    status: str | None = None,
    run: str | None = None,
    step: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Judge claims on runs that any tool recorded, by the rules of the experiments: seeds are pairs, intervals decide.

    A claim is a sentence: "val/loss is lower with wd=0.1 than with wd=0", "... lower by 0.01 ...", "val/loss is equal
    within 0.01 with wd=0.1 and wd=0", "gap is between -0.05 and 0.05 with wd=0.1", "norm falls with wd where lr=0.1".

    Args:
        table: One row a run: a column for its seed, for each setting and for each number measured at its end.
        claim: What is claimed; give it several times for several claims.
        seed: Column that pairs runs, or several.
        status: Column that says how a run ended: done or finished, or diverged; others have not ended.
        run: Column that tells runs apart, where a run has several rows.
        step: Column of the step of such a row.
        as_json: Print JSON.
    """
    from decaylab.experiments.judging import FORMS
    from decaylab.experiments.judging import judge as judged

    if not claim:
        raise DecaylabError(f'say what is claimed: --claim "SENTENCE", such as {FORMS[0]}')
    found = judged(_read(table), claim, seed=seed[0] if len(seed) == 1 else seed, status=status, run=run, step=step)
    if as_json:
        print_json("judge", {"judgements": [{"claim": j.sentence, **asdict(j.evidence)} for j in found]})
        return
    for number, judgement in enumerate(found):
        print(f"{'' if number == 0 else chr(10)}{judgement}")


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, dialect=_dialect(path)))
    except OSError as error:
        raise DecaylabError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DecaylabError(f"{path} is not a table in CSV: {error}") from None
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DecaylabError(f"{path}: line {number} has not as many cells as the heading")
    return rows


def _dialect(path: Path) -> type[csv.Dialect]:
    """Return a dialect with the separator of the heading: a comma, a tab or a semicolon."""
    heading = path.open(encoding="utf-8-sig").readline()

    class Own(csv.excel):
        delimiter = max(",\t;", key=heading.count)

    return Own
