"""``decaylab explain``: what a weight decay does in a run, and the same decay in every other convention."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro

from decaylab.cli.json_output import print_json
from decaylab.conventions import CONVENTIONS
from decaylab.conventions import explain as explain_decay
from decaylab.conventions.explanation import Explanation
from decaylab.conventions.length import run_size
from decaylab.conventions.reading import reading
from decaylab.quantities import format_count, format_number, parse_count, parse_steps, rounding
from decaylab.schedules import Kind, Schedule

Size = Annotated[str | None, tyro.conf.arg(metavar="SIZE", help_behavior_hint="")]
Number = Annotated[float | None, tyro.conf.arg(metavar="NUMBER", help_behavior_hint="")]
_NAMES = {"adamw": "AdamW", "sgd": "SGD", "lion": "Lion", "muon": "Muon"}
_MATCHES = {"exact": "at every step", "long_run": "momentum settled", "peak": "at the peak", None: ""}


def explain(
    lr: float,
    weight_decay: float,
    optimizer: Literal["adamw", "sgd", "lion", "muon", "adam"] = "adamw",
    schedule: Kind = "constant",
    steps: Size = None,
    batch_size: Size = None,
    tokens: Size = None,
    seq_len: Size = None,
    dataset_size: Size = None,
    epochs: Number = None,
    convention: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None,
    warmup: str = "0",
    decay_steps: Size = None,
    final_ratio: Number = None,
    final_lr: Number = None,
    drop_at: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SHARE ...", help_behavior_hint="")] = (),
    betas: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="B1 B2", help_behavior_hint="")] = None,
    momentum: float = 0.0,
    dampening: float = 0.0,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False,
) -> None:
    """Explain what a weight decay does in a run, and give the same decay in every other convention.

    Sizes may be written as 124M, 3.26B, 1e9 or 2^19. The run's length: --steps, or --batch-size with --tokens and
    --seq-len, or --batch-size with --dataset-size and --epochs. What is given twice is checked.

    Args:
        lr: Peak learning rate.
        weight_decay: Lambda.
        optimizer: Which optimizer; adam (its L2) has no answer, and says why.
        schedule: Learning rate after the warm-up: cosine ends at a tenth of the peak, linear and wsd (stable, then a
            line down) at 0, unless told.
        steps: Updates of the run.
        batch_size: Sequences (text) or examples (images) per update.
        tokens: Tokens seen in the run.
        seq_len: Tokens per sequence.
        dataset_size: Examples in the data set.
        epochs: Passes over the data set.
        convention: What lambda means: torch, optax, keras, independent, constant, palm, l2 ... By default what PyTorch
            means for this optimizer.
        warmup: Linear warm-up from 0, in steps or as a share of the run (2%).
        decay_steps: Step at which cosine or linear ends, when not the run's last.
        final_ratio: Final learning rate as a share of the peak.
        final_lr: Final learning rate itself.
        drop_at: Fractions of the run at which the learning rate drops (two_phase, step) or begins to (wsd, 0.8).
        betas: AdamW's or Lion's, 0.9 0.999 and 0.9 0.99 by default.
        momentum: SGD's.
        dampening: SGD's.
        json: Print JSON instead of tables.
    """
    sizes = {
        "steps": _count(steps, "--steps", "steps"),
        "batch_size": _count(batch_size, "--batch-size", "sequences"),
        "tokens": _count(tokens, "--tokens", "tokens"),
        "seq_len": _count(seq_len, "--seq-len", "tokens"),
        "dataset_size": _count(dataset_size, "--dataset-size", "examples"),
    }
    accuracy = rounding(tokens) if tokens else 0.0
    length = run_size(**sizes, epochs=epochs, tokens_rounding=accuracy)  # what a warm-up in per cent refers to
    explanation = explain_decay(
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        convention=convention,
        schedule=Schedule(
            kind=schedule,
            warmup_steps=parse_steps(warmup, "--warmup", length.steps),
            decay_steps=_count(decay_steps, "--decay-steps", "steps"),
            final_ratio=final_ratio,
            final_lr=final_lr,
            drop_at=drop_at,
        ),
        **sizes,
        epochs=epochs,
        tokens_rounding=accuracy,
        betas=betas,
        momentum=momentum,
        dampening=dampening,
    )
    if json:
        print_json("explain", dataclasses.asdict(explanation))
    else:
        _print(explanation)


def _count(text: str | None, name: str, unit: str) -> int | None:
    return None if text is None else parse_count(text, name, unit)


def _print(run: Explanation) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    meaning = CONVENTIONS[run.convention]
    console.print(
        f"[bold]{_NAMES[run.optimizer]}, weight decay {format_number(run.weight_decay)}[/] as in: {meaning.name}"
    )
    console.print(f"Each step: {meaning.equation}   Learning rate: {_learning_rate(run)}")
    console.print(f"Run: {_length(run)}")
    for note in run.notes:
        console.print(f"Mind: {note}", style="yellow")
    console.print()

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "at the peak", "at the end"):
        table.add_column(heading, justify="left" if not heading else "right")
    for label, peak, end in _rows(run):
        table.add_row(label, peak, end)
    console.print(table)
    console.print()
    sentences = Table.grid(padding=(0, 1))  # a grid, so that wrapped lines stay behind the dash
    for line in reading(run):
        sentences.add_row("-", line)
    console.print(sentences)
    if run.timescales_in_run == 0:
        return  # no decay is 0 in every convention
    console.print("\n[bold]The same decay in other conventions[/]")
    console.print(_equivalents(run, wide=console.width >= 110))
    for note in (
        "same: where it does exactly what yours does. whole run: the value that shrinks a weight as much in total.",
        f"SGD's rows: at the same learning rate, with momentum {run.momentum or 0:g}.",
        "Adam's weight_decay (L2) has no equal setting: Adam divides it by the size of the gradient.",
    ):
        console.print(note, style="dim")


def _learning_rate(run: Explanation) -> str:
    text = f"{format_number(run.peak.lr)}, {run.schedule.kind.replace('_', ' ')}"
    if run.end.lr != run.peak.lr:
        text += f" to {format_number(run.end.lr)}"
    return text + (f", warm-up {run.schedule.warmup_steps:,}" if run.schedule.warmup_steps else "")


def _length(run: Explanation) -> str:
    size = run.size
    text = f"{size.steps:,} steps"
    if size.batch_size is not None:
        text += f" x {size.batch_size:,}"
    if size.seq_len is not None:
        text += f" x {size.seq_len:,} tokens"
    if size.tokens is not None:
        text += f" = {format_count(size.tokens)} tokens"
    if size.epochs is not None:
        text += f" = {format_number(size.epochs, 4)} epochs"
        text += f" of {size.dataset_size:,}" if size.dataset_size else ""
    return text


def _rows(run: Explanation) -> list[tuple[str, str, str]]:
    def row(label: str, write: str, field: str, unit: str = "") -> None:
        cells = []
        for moment in (run.peak, run.end):
            number = getattr(moment, field)
            cells.append("-" if number is None else _written(number, write) + unit)
        if cells != ["-", "-"]:
            rows.append((label, cells[0], cells[1]))

    rows: list[tuple[str, str, str]] = []
    row("learning rate", "number", "lr")
    row("factor per step", "factor", "factor_per_step")
    row("timescale", "count", "timescale_steps", " steps")
    row("  as a share of the run", "percent", "timescale_share_of_run", " %")
    row("  in tokens", "count", "timescale_tokens")
    if run.size.epochs is not None:
        row("  in epochs", "number", "timescale_epochs")
    elif run.size.tokens is not None:
        row("  in epochs, each token seen once", "number", "timescale_epochs")
    rows.append(("left of a weight by decay alone", "", f"{format_number(100 * run.total_shrinkage, 3)} %"))
    row("rotation per step at equilibrium", "number", "rotation_per_step_degrees", "°")
    row("  in radians", "number", "relative_update_per_step")  # the same number: the angle of a small turn
    row("relative update at equilibrium", "percent", "relative_update_per_step", " %")
    row("RMS weight at equilibrium", "number", "equilibrium_rms_weight")
    return rows


def _written(number: float, how: str) -> str:
    if how == "count":
        return format_count(round(number))
    if how == "percent":
        return format_number(100 * number, 3)
    if how == "factor":  # 1 - 4e-5 needs more digits than 0.99 does
        return f"{number:.10f}".rstrip("0").ljust(4, "0")
    return format_number(number, 4)


def _equivalents(run: Explanation, wide: bool) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("convention", no_wrap=True)
    if wide:
        table.add_column("each step", no_wrap=True)
    table.add_column("weight decay", justify="right", no_wrap=True)
    table.add_column("same", no_wrap=True)
    table.add_column("whole run", justify="right", no_wrap=True)
    for row in run.equivalents:
        convention = CONVENTIONS[row.convention]
        total = "" if row.value_same_total is None or row.match == "exact" else format_number(row.value_same_total)
        cells = [
            convention.name,
            *([convention.equation] if wide else []),
            "-" if row.value is None else format_number(row.value),
            _MATCHES[row.match],
            total,
        ]
        table.add_row(*cells, style="bold" if row.convention == run.convention else None)
    return table
