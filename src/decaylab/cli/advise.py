"""``decaylab advise``: which weight decay, learning rate and batch size published fits recommend for a run."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro

from decaylab.advice import Advice, Recommendation, Reference
from decaylab.advice import advise as advise_run
from decaylab.advice.advising import Stage
from decaylab.cli import COMMANDS
from decaylab.cli.json_output import print_json
from decaylab.conventions import run_size
from decaylab.errors import DecaylabError
from decaylab.quantities import format_count, format_number, parse_count, parse_steps, rounding
from decaylab.schedules import Kind, Schedule

Size = Annotated[str | None, tyro.conf.arg(metavar="SIZE", help_behavior_hint="")]
Number = Annotated[float | None, tyro.conf.arg(metavar="NUMBER", help_behavior_hint="")]
_HEADINGS = {"weight_decay": "Weight decay", "learning_rate": "Peak learning rate", "batch_size": "Batch size"}
_MARKED = ("close to idle", "too strong")
_NAMES = {"adamw": "AdamW", "sgd": "SGD", "lion": "Lion", "muon": "Muon"}


def advise(
    params: Size = None,
    tokens: Size = None,
    seq_len: Size = None,
    batch_size: Size = None,
    lr: Number = None,
    optimizer: Literal["adamw", "sgd", "lion", "muon"] = "adamw",
    schedule: Kind = "constant",
    layers: Size = None,
    width: Size = None,
    dataset_size: Size = None,
    epochs: Number = None,
    steps: Size = None,
    warmup: str = "0",
    final_ratio: Number = None,
    final_lr: Number = None,
    drop_at: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SHARE ...", help_behavior_hint="")] = (),
    momentum: float = 0.0,
    from_weight_decay: Number = None,
    from_lr: Number = None,
    from_batch_size: Size = None,
    from_tokens: Size = None,
    from_dataset_size: Size = None,
    from_epochs: Number = None,
    from_width: Size = None,
    stage: Stage = "auto",
    load: Annotated[str | None, tyro.conf.arg(metavar="MODULE:NAME", help_behavior_hint="")] = None,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False,
) -> None:
    """Recommend weight decay, learning rate and batch size, each with its formula, source and limits.

    A language model: --params (or --load, or --layers and --width), --tokens, --seq-len, --batch-size and --lr. Several
    epochs of a data set: --dataset-size, --epochs, --batch-size and --lr. From a run that worked: --from-weight-decay
    and what was different there. Fine-tuning: --stage fine-tuning, --steps and --lr. Sizes may be written as 124M,
    3.26B, 1e9 or 2^19.

    Args:
        params: Parameters of the model; 12 L d² by --layers and --width where it is missing.
        tokens: Tokens seen in the run.
        seq_len: Tokens per sequence.
        batch_size: Sequences (text) or examples (images) per update.
        lr: Peak learning rate. A language model without it gets DeepSeek's.
        optimizer: Which optimizer; the scaling laws were fitted with AdamW.
        schedule: Learning rate after the warm-up: cosine ends at a tenth of the peak, linear and wsd (stable, then a
            line down) at 0, unless told.
        layers: Transformer blocks; with --width, compute is counted as in the fits.
        width: Width of the residual stream.
        dataset_size: Examples in the data set.
        epochs: Passes over the data set.
        steps: Updates of the run, where they do not follow from the rest.
        warmup: Linear warm-up from 0, in steps or as a share of the run (2%).
        final_ratio: Final learning rate as a share of the peak.
        final_lr: Final learning rate itself.
        drop_at: Fractions of the run at which the learning rate drops (two_phase, step) or begins to (wsd, 0.8).
        momentum: SGD's.
        from_weight_decay: Weight decay of a run that worked, to carry over at a constant timescale and, for other
            tokens, by Power Lines' exponent.
        from_lr: Its peak learning rate, where it was another.
        from_batch_size: Its batch size, where it was another.
        from_tokens: Its tokens, where they were other.
        from_dataset_size: Its data set's size, where it was another.
        from_epochs: Its epochs, where they were other.
        from_width: Its width, where it was another (muP: without --from-lr, --lr is the old one).
        stage: pre-training (any training from scratch), fine-tuning, or auto: by the sizes.
        load: package.module:function that returns your model, to count its parameters.
        json: Print JSON instead of text.
    """
    count = _count
    number_of_params = count(params, "--params", "parameters")
    if load is not None:
        if params is not None:
            raise DecaylabError("--load counts the parameters: leave --params out")
        number_of_params = _parameters(load)
    sizes = {
        "steps": count(steps, "--steps", "steps"),
        "batch_size": count(batch_size, "--batch-size", "examples" if dataset_size else "sequences"),
        "tokens": count(tokens, "--tokens", "tokens"),
        "seq_len": count(seq_len, "--seq-len", "tokens"),
        "dataset_size": count(dataset_size, "--dataset-size", "examples"),
    }
    accuracy = rounding(tokens) if tokens else 0.0
    length = run_size(**sizes, epochs=epochs, tokens_rounding=accuracy)
    reference = None
    if from_weight_decay is not None:
        reference = Reference(
            weight_decay=from_weight_decay,
            lr=from_lr,
            batch_size=count(from_batch_size, "--from-batch-size", "sequences"),
            tokens=count(from_tokens, "--from-tokens", "tokens"),
            dataset_size=count(from_dataset_size, "--from-dataset-size", "examples"),
            epochs=from_epochs,
            width=count(from_width, "--from-width", ""),
        )
    elif any(
        one is not None for one in (from_lr, from_batch_size, from_tokens, from_dataset_size, from_epochs, from_width)
    ):
        raise DecaylabError("which weight decay is to be carried over? give --from-weight-decay too")
    advice = advise_run(
        **sizes,
        params=number_of_params,
        epochs=epochs,
        lr=lr,
        schedule=Schedule(
            kind=schedule,
            warmup_steps=parse_steps(warmup, "--warmup", length.steps),
            final_ratio=final_ratio,
            final_lr=final_lr,
            drop_at=drop_at,
        ),
        optimizer=optimizer,
        momentum=momentum,
        layers=count(layers, "--layers", "layers"),
        width=count(width, "--width", ""),
        reference=reference,
        tokens_rounding=accuracy,
        stage=stage,
    )
    if json:
        written = dataclasses.asdict(advice) | {"weight_decays_to_try": advice.weight_decays_to_try}
        print_json("advise", written)
    else:
        _print(advice, schedule)


def _parameters(target: str) -> int:
    """Parameters of the model that a function of the user's returns, each tensor once."""
    from torch import nn

    from decaylab.cli.target import built

    found = built(target)
    model = found[0] if isinstance(found, tuple) and found else found
    if not isinstance(model, nn.Module):
        raise DecaylabError(f"{target} returns {type(found).__name__}: a torch module is needed")
    return sum(parameter.numel() for parameter in model.parameters())


def _count(text: str | None, name: str, unit: str) -> int | None:
    return None if text is None else parse_count(text, name, unit)


def _print(advice: Advice, schedule: str) -> None:
    from rich.console import Console
    from rich.padding import Padding

    console = Console(highlight=False)
    size = advice.size
    run = f"{_NAMES[advice.optimizer]}, {schedule.replace('_', ' ')} lr {format_number(advice.lr)}"
    if advice.lr_from != "given":
        run += f" (by {advice.lr_from}, as --lr is missing)"
    run += f"; {format_count(advice.params)} parameters" if advice.params else ""
    run += f"; {size.steps:,} steps"
    run += f" x {size.batch_size:,}" if size.batch_size else ""
    run += f" x {size.seq_len:,} tokens" if size.seq_len else ""
    if size.tokens:
        product = size.steps * (size.batch_size or 0) * (size.seq_len or 0)
        run += f" {'=' if abs(product - size.tokens) < 0.005 * size.tokens else '≈'} {format_count(size.tokens)} tokens"
    run += (
        f" = {format_number(size.epochs)} epochs of {size.dataset_size:,}" if size.epochs and size.dataset_size else ""
    )
    console.print(run)
    for note in advice.notes:
        console.print(f"Mind: {note}", style="yellow")
    quantity = None
    for one in advice.recommendations:
        if one.quantity != quantity:
            quantity = one.quantity
            console.print(f"\n[bold]{_HEADINGS[quantity]}[/]{_yours(advice, one)}")
        console.print(f"  {one.method:<24} [bold]{_value(one)}[/]")
        for label, text in _details(one):
            style = "yellow" if label == "mind" else "dim"
            console.print(Padding(f"{label}: {text}", (0, 0, 0, 4)), style=style)
    if advice.recommendations:
        console.print("\n[bold]Sources and where they were fitted[/]")
    for source, fitted_on in dict.fromkeys((one.source, one.fitted_on) for one in advice.recommendations):
        console.print(Padding(f"{source}: {fitted_on}", (0, 0, 0, 2)), style="dim")
    if advice.measured:
        console.print("\n[bold]Measured against it[/]")
        console.print(Padding(advice.measured, (0, 0, 0, 2)))
    if advice.to_try:
        tried = ", ".join(format_number(value, 3) for value in advice.weight_decays_to_try)
        console.print(f"\n[bold]Weight decays to try: {tried}[/]; what decay alone does in this run:")
        for candidate in advice.to_try:
            line = (
                f"  {format_number(candidate.weight_decay, 3):<8} removes {format_number(100 * candidate.removed, 3)}"
                f" % of a weight in {format_number(candidate.timescales, 2)} timescales"
            )
            line += f", {candidate.verdict}" if candidate.verdict in _MARKED else ""
            console.print(line, style="yellow" if candidate.verdict in _MARKED else None)
            console.print(Padding(candidate.because, (0, 0, 0, 11)), style="dim")
    if "tune" in COMMANDS and advice.to_try:
        console.print("\n[bold]What would decide[/]")
        for line in _tune(advice, schedule):
            console.print(line, soft_wrap=True, markup=False)


def _tune(advice: Advice, schedule: str) -> tuple[str, str]:
    """The command that measures instead of recommending, on two lines."""
    run = f"--steps {advice.size.steps} --lr {format_number(advice.lr)}"
    if schedule != "constant":  # tune knows two by name, and takes the mean of any other
        run += f" --schedule {schedule if schedule in ('cosine', 'linear') else f'{advice.mean_lr_ratio:.2f}'}"
    return (
        f"  decaylab tune {run} -- python train.py \\",
        "    --lr {lr} --weight-decay {weight_decay} --steps {steps} --seed {seed}",
    )


def _yours(advice: Advice, one: Recommendation) -> str:
    if one.quantity == "batch_size" and advice.size.batch_size:
        return f" in {one.unit}; yours is {advice.size.batch_size:,}"
    if one.quantity == "learning_rate" and advice.lr_from == "given":
        return f"; yours is {format_number(advice.lr)}"
    return ""


def _value(one: Recommendation) -> str:
    if one.quantity == "batch_size":
        return format_number(one.value, 3)
    if one.method == "fine-tuning":
        return "0, or what the recipe has"
    if one.low is not None and one.high is not None:
        return f"{format_number(one.low, 3)} to {format_number(one.high, 3)}, middle {format_number(one.value, 3)}"
    return format_number(one.value)


def _details(one: Recommendation) -> list[tuple[str, str]]:
    return [
        ("formula", one.formula),
        ("here", one.worked),
        *(("mind", text) for text in one.warnings),
        *(("note", text) for text in one.notes),
    ]
