"""Pages that are written from the package before the site is built: commands with their help, public names."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
from pathlib import Path
from typing import Any

from decaylab.cli import COMMANDS, main
from decaylab.files import atomic_write_text

# The documented packages, in the order of the reference. What is not in their ``__all__`` is private.
PACKAGES = {
    "decaylab": "The names that a training script needs.",
    "decaylab.decay": "Rules, and what installs them.",
    "decaylab.params": "Roles, groups, audit, scale invariance.",
    "decaylab.monitor": "Logs of any training, and their diagnosis.",
    "decaylab.probes": "What can be measured at a step.",
    "decaylab.curvature": "Traces, eigenvalues, densities, Jacobians, noise.",
    "decaylab.components": "Optimizers, architectures and data sets, a row each.",
    "decaylab.conventions": "What a lambda means.",
    "decaylab.advice": "Which lambda published fits recommend.",
    "decaylab.conformance": "Whether an optimizer decays as it says.",
    "decaylab.tuning": "The lambda of one's own training, measured.",
    "decaylab.experiments": "Declaring and judging a study.",
    "decaylab.store": "The database of runs.",
    "decaylab.launch": "Training what a store lacks.",
    "decaylab.reporting": "Charts and pages.",
    "decaylab.integrations": "transformers, Lightning and trackers.",
}


def write(app: Any) -> None:
    """Write the generated pages into the source folder; unchanged ones are left alone."""
    folder = Path(app.srcdir)
    _write(folder / "commands.md", commands())
    _write(folder / "reference" / "index.md", index())
    for package in PACKAGES:
        _write(folder / "reference" / f"{package}.md", reference(package))


def commands() -> str:
    """Return the page with every command's help, as it stands in a terminal of 100 columns."""
    parts = ["# Commands", "", "Every command takes `--help`, and `--debug` for the traceback of an error.", ""]
    for name, (_, text) in COMMANDS.items():
        parts += [f"## {name}", "", f"{text[0].upper()}{text[1:]}.", "", "```text", _help(name), "```", ""]
    return "\n".join(parts)


def _help(name: str) -> str:
    heard = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(heard), contextlib.suppress(SystemExit):
            main([name, "--help"] if name not in ("train",) else [name, "language", "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return re.sub(r"\x1b\[[0-9;]*m", "", heard.getvalue()).rstrip()


def index() -> str:
    """Return the first page of the reference."""
    rows = [f"| [`{name}`]({name}.md) | {text} |" for name, text in PACKAGES.items()]
    names = "\n".join(PACKAGES)
    return "\n".join(
        [
            "# Python reference",
            "",
            "These names are public: they keep their meaning between versions; the changelog says when one changes.",
            "What is not listed is private.",
            "",
            "| package | what it is for |",
            "| --- | --- |",
            *rows,
            "",
            "```{toctree}",
            ":hidden:",
            "",
            names,
            "```",
            "",
        ]
    )


def reference(package: str) -> str:
    """Return the page of a package: its names with their docstrings."""
    module = importlib.import_module(package)
    parts = [f"# {package}", "", PACKAGES[package], ""]
    for name in sorted(n for n in module.__all__ if not n.startswith("__")):
        found = getattr(module, name)
        if getattr(found, "__module__", "decaylab").partition(".")[0] != "decaylab":
            continue  # an alias of a type
        if type(found).__name__ == "module":
            kind, target, options = "automodule", found.__name__, ["   :members:"]
        elif isinstance(found, type):
            kind, target, options = "autoclass", f"{package}.{name}", ["   :members:"]
        elif callable(found):
            kind, target, options = "autofunction", f"{package}.{name}", []
        else:
            continue  # a table or constant: the pages and commands show what is in it
        # What the top of the package lends stands in the room of its own too.
        options += ["   :no-index:"] if package == "decaylab" else []
        parts += [f"## {name}", "", "```{eval-rst}", f".. {kind}:: {target}", *options, "```", ""]
    return "\n".join(parts)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        atomic_write_text(path, text)


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write)
    return {"version": "1", "parallel_read_safe": True}
