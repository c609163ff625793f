"""JSON that commands print: one object each, with the name and version of its form, described here and in the docs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

# command -> (version, field -> what it is). A version is raised when a field goes, or means something else.
SCHEMAS: dict[str, tuple[int, dict[str, str]]] = {
    "advise": (
        1,
        {
            "*": "the run as it was understood (lr, size, params, ...), recommendations with value, unit, formula, "
            "source and warnings, and the weight decays to try",
        },
    ),
    "audit": (1, {"parameters": "one object a parameter: name, role, shape, whether it decays and why"}),
    "conformance": (1, {"*": "the optimizer, and for each identity whether it holds, with the deviation"}),
    "data": (1, {"datasets": "one object a data set: name, kind, size, licence, and whether it is on this machine"}),
    "doctor": (
        1,
        {
            "kind": "the program that wrote the checkpoints: transformers, nanoGPT, Lightning or torch",
            "checkpoints": "one object a checkpoint: path, step",
            "total_steps": "length of the training, where a checkpoint tells it",
            "optimizer": "adamw, adam, sgd, lion, muon or other; several joined by 'and'",
            "learning_rate": "source, and for each param group its peak and its value in the last update",
            "verdict": "of the diagnosis over the checkpoints, as `watch` gives it",
            "timescales": "of decay that passed, mean over the weights that decay",
            "settings": "of the group that decays the most weights, as `explain` takes them",
            "tensors": "one object a tensor: name, role, shape, weight_decay, timescales, removed, stored, lost, "
            "norms and effective_lr by checkpoint, rotation, rms, and both in equilibrium",
            "did": "sentences: what decay did",
            "explain": "sentences of `explain` about the settings",
            "change": "sentences: what to change",
            "assumed": "what the checkpoints do not say",
        },
    ),
    "explain": (1, {"*": "the run as it was understood, what one step takes, timescales, and the other conventions"}),
    "glossary": (1, {"terms": "one object a term: name, text, forms"}),
    "judge": (1, {"judgements": "one object a claim: claim, verdict, rule, reason, comparisons with their intervals"}),
    "list": (1, {"experiments": "one object an experiment: id, title, paper, question, version, and runs by budget"}),
    "probe": (1, {"measured": "key to value; null where it is not finite"}),
    "probes": (1, {"probes": "one object a probe: name, needs, help, cost"}),
    "rules": (1, {"rules": "one object a rule: name, aliases, equation, options, memory, paper, ..."}),
    "runs": (
        1,
        {"runs": "one object a run: id, kind, status, reason, step, times, last metrics, summary, config, environment"},
    ),
    "sweep": (
        1,
        {
            "metric": "what is compared",
            "baseline": "the combination that the others are compared with",
            "rows": "one object a combination: setting, standing, mean and difference with intervals and by seed",
            "answer": "the same in a sentence",
            "page": "path of the page",
        },
    ),
    "compare": (
        1,
        {
            "metric": "what is compared",
            "baseline": "the setting that the others are compared with",
            "rows": "one object a setting: setting, standing, mean and difference with intervals and by seed",
            "answer": "the same in a sentence",
        },
    ),
    "show": (
        1,
        {
            "id": "the experiment",
            "title": "one line",
            "paper": "what it reproduces",
            "question": "what it asks",
            "version": "of the experiment",
            "budget": "of the runs",
            "recipe": "how they were chosen",
            "claims": "one object a claim: id, sentence, rule, budgets at which it is tested",
            "runs": "one object a run: id, labels, and the config that `decaylab train --config` takes",
        },
    ),
}


def print_json(command: str, content: Mapping[str, Any]) -> None:
    """Print a command's answer as one JSON object, its schema first; numbers that JSON has not become null.

    Args:
        command: A key of `SCHEMAS`.
        content: The fields.
    """
    version, _ = SCHEMAS[command]
    named = {"schema": f"decaylab.{command}/{version}", **content}
    print(json.dumps(_finite(named), indent=2, allow_nan=False))


def markdown() -> str:
    """Return the page of the docs."""
    lines = [
        "# JSON output",
        "",
        "Every command with `--json` prints one JSON object. Its field `schema` names its form and the form's version,",
        "`decaylab.runs/1` for example; the version is raised when a field goes or means something else, not when one",
        "is added. Numbers that are not finite are `null`.",
        "",
        "| schema | field | what it is |",
        "| --- | --- | --- |",
    ]
    for command, (version, fields) in SCHEMAS.items():
        lines += [
            f"| `decaylab.{command}/{version}` | {'(all)' if name == '*' else f'`{name}`'} | {text} |"
            for name, text in fields.items()
        ]
    lines += [
        "",
        "Beside a report: `verdicts.json` (`decaylab.verdicts/1`: `rulings`) and `page.json` (`decaylab.page/1`).",
    ]
    return "\n".join(lines) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
