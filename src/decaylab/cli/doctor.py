"""``decaylab doctor``: what weight decay did in a training that is over, from its checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from decaylab.cli.json_output import print_json
from decaylab.errors import DecaylabError, printable

if TYPE_CHECKING:
    from torch import nn

    from decaylab.monitor.doctor import Examination

_FEW = 24


def doctor(
    paths: Annotated[tuple[str, ...], tyro.conf.Positional],
    /,
    *,
    load: str | None = None,
    optimizer: Literal["adamw", "adam", "sgd", "lion", "muon"] | None = None,
    steps: int | None = None,
    tensors: bool = False,
    json: bool = False,
) -> None:
    """Say what weight decay did in a finished training, from the checkpoints that it left.

    decaylab doctor out/ reads a Trainer folder, decaylab doctor ckpt.pt a file of nanoGPT, Lightning or torch. Nothing
    that is read executes: files that hold more than tensors are refused.

    Args:
        paths: Checkpoints of one training, or folders of them.
        load: The model, package.module:function without arguments: for exact roles, and the order of the parameters.
        optimizer: Where the state does not tell: Adam's L2 looks as AdamW does in older files.
        steps: Updates before the checkpoint, where it does not tell.
        tensors: List every tensor, however many.
        json: Print the result as JSON.
    """
    if not paths:
        raise DecaylabError("name a checkpoint, or a folder of them: decaylab doctor PATH")
    from decaylab.monitor.doctor import examine

    found = examine(
        [Path(path).expanduser() for path in paths],
        model=_model(load),
        optimizer=optimizer,
        steps=steps,
        say=lambda line: print(printable(line), file=sys.stderr),
    )
    if json:
        _print_json(found)
    else:
        print(printable("\n".join(_lines(found, tensors))))


def _model(load: str | None) -> nn.Module | None:
    if load is None:
        return None
    from torch import nn

    from decaylab.cli.target import built

    model = built(load)
    if not isinstance(model, nn.Module):
        raise DecaylabError(f"--load {load} gave {type(model).__name__}, not a torch module")
    return model


def _lines(found: Examination, every: bool) -> list[str]:
    from decaylab.monitor import doctor_text as text
    from decaylab.quantities import format_number

    count = len(found.steps)
    steps = f"{found.steps[0]:,} to {found.steps[-1]:,}" if count > 1 else f"{found.steps[0]:,}"
    of = f" of {found.total_steps:,}" if found.total_steps and found.total_steps != found.steps[-1] else ""
    lines = [f"{found.kind}: {count} checkpoint{'s' if count > 1 else ''}, step{'s' if count > 1 else ''} {steps}{of}"]
    for i, group in enumerate(found.groups):
        lr = found.rates[i]
        peak = format_number(float(lr.max()), 3) if len(lr) else "?"
        lines.append(
            f"group {i}: {group.optimizer}, weight decay {format_number(group.weight_decay)}, {len(group.ids)} "
            f"tensors, learning rate up to {peak} ({found.source})"
        )
    lines += ["", *text.table(text.role_rows(found))]
    if every or len(found.tensors) <= _FEW:
        lines += ["", *text.table(text.tensor_rows(found))]
    for heading, said in (
        ("What decay did", text.what_decay_did(found)),
        ("What these settings do", text.what_explain_says(found)),
        ("What to change", text.what_to_change(found)),
        ("Assumed", list(found.assumed)),
    ):
        if said:
            lines += ["", heading, *(f"- {line}" for line in said)]
    if not every and len(found.tensors) > _FEW:
        lines += ["", f"--tensors lists each of the {len(found.tensors)} tensors."]
    return lines


def _print_json(found: Examination) -> None:
    from dataclasses import asdict

    from decaylab.monitor import doctor_text as text

    own = text.settings(found)
    print_json(
        "doctor",
        {
            "kind": found.kind,
            "checkpoints": [{"path": str(p), "step": s} for p, s in zip(found.paths, found.steps, strict=True)],
            "total_steps": found.total_steps,
            "optimizer": found.optimizer,
            "learning_rate": {
                "source": found.source,
                "peak": [float(lr.max()) if len(lr) else None for lr in found.rates],
                "last": [float(lr[-1]) if len(lr) else None for lr in found.rates],
            },
            "verdict": found.diagnosis.verdict,
            "timescales": found.diagnosis.state.passed,
            "settings": asdict(own) if own is not None else None,
            "tensors": [asdict(t) for t in found.tensors],
            "did": text.what_decay_did(found),
            "explain": text.what_explain_says(found),
            "change": text.what_to_change(found),
            "assumed": list(found.assumed),
        },
    )
