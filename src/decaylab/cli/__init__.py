"""The command line: find the command, parse its arguments, call it, set the exit code. Nothing is computed here.

Only the module of the command that was asked for is imported, so ``decaylab --help`` and ``decaylab list`` answer
without loading torch.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress

from decaylab import __version__
from decaylab.errors import DecaylabError, printable, shown, unknown
from decaylab.extras import missing_extra

# name -> (module:function, one line for the overview)
COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("decaylab.cli.catalogue:catalogue", "every experiment, and how many of its runs are finished"),
    "show": ("decaylab.cli.show:show", "one experiment: its claims, its recipe and every setting of its runs"),
    "reproduce": ("decaylab.cli.reproduce:reproduce", "train what is missing of an experiment and write its page"),
    "report": ("decaylab.cli.report:report", "draw the page again from the store alone"),
    "sweep": ("decaylab.cli.sweep:sweep", "train a grid of settings with seeds, and say which are better"),
    "compare": ("decaylab.cli.compare:compare", "compare runs of a store, seed by seed"),
    "train": ("decaylab.cli.train:train", "train one run from flags or from a file"),
    "sample": ("decaylab.cli.sample:sample", "continue a prompt with a trained language model"),
    "convert": ("decaylab.cli.sample:convert", "save a trained language model for transformers"),
    "runs": ("decaylab.cli.runs:runs", "the runs of a store: status, step, last metrics"),
    "release": ("decaylab.cli.release:release", "give back runs that a dead worker holds, to be trained at once"),
    "export": ("decaylab.cli.export:export", "the metrics of a store as a CSV or parquet file"),
    "judge": ("decaylab.cli.judge:judge", "verdicts on a table of your own runs"),
    "explain": ("decaylab.cli.explain:explain", "what a weight decay does in a run, in every convention"),
    "advise": ("decaylab.cli.advise:advise", "which weight decay, learning rate and batch size to use, and why"),
    "tune": ("decaylab.cli.tune:tune", "the weight decay of your own training, from short runs of its script"),
    "audit": ("decaylab.cli.audit:audit", "every parameter of a model: role, decayed or not, and why"),
    "doctor": ("decaylab.cli.doctor:doctor", "what weight decay did in a finished training, from its checkpoints"),
    "probe": ("decaylab.cli.probe:probe", "measure a checkpoint, or any model, with the probes"),
    "rules": ("decaylab.cli.rules:rules", "every decay rule: equation, what it is for, its memory, its paper"),
    "data": ("decaylab.cli.data:data", "the data sets: which are here, and how to get the others"),
    "glossary": ("decaylab.cli.glossary:glossary", "what a term means, as the report and the docs use it"),
    "conformance": ("decaylab.cli.conformance:conformance", "hold an optimizer class to the identities of its decay"),
    "completion": ("decaylab.cli.completion:completion", "print a shell's script that completes commands and options"),
}
# What a message quotes may be a URL: user:password@host, in any spelling, or password=...
_PASSWORDS = (
    (re.compile(r":[^\s'\"]*@"), ":***@"),
    (re.compile(r"(passw(?:or)?d=)[^\s'\"&]+", re.IGNORECASE), r"\1***"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0 when the command did its work (a claim that fails is a result, not an error), 2 for a mistake of the caller
        or a file that cannot be read or written, 1 for anything that nobody foresaw, 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a pipe may know fewer characters than a terminal
        sys.stdout.reconfigure(errors="replace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    try:
        code = _run(arguments)
        sys.stdout.flush()  # a reader that went away shows here, not after the last line of Python
        return code
    except BrokenPipeError:  # the reader (head, less) went away: not an error of ours
        with suppress(OSError):  # what is still in the buffer has to go somewhere when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich's way of saying the same
            return 0
        raise
    except KeyboardInterrupt:
        print("decaylab: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        line, code = _said(error)
        print(f"decaylab: {_presentable(line)}", file=sys.stderr)
        return code


def _said(error: Exception) -> tuple[str, int]:
    """Return an error's one line, and the exit code."""
    if isinstance(error, DecaylabError):
        return str(error), 2
    if (missing := missing_extra(error)) is not None:
        return str(missing), 2
    if isinstance(error, OSError) and error.strerror:
        path = shown(str(error.filename2 or error.filename or ""), quoted=False, longest=1000)
        return (f"{path} cannot be used: {error.strerror}" if path else f"the system refuses: {error.strerror}"), 2
    return f"unforeseen {type(error).__name__}: {error}; --debug shows where", 1


def _presentable(line: str) -> str:
    """Return an error as one line, without what a terminal would obey or a password in a URL."""
    for pattern, masked in _PASSWORDS:
        line = pattern.sub(masked, line)
    return printable(" ".join(line.split()))


def _run(words: list[str]) -> int:
    name, arguments = (words[0], words[1:]) if words else ("help", [])
    if name == "help" and arguments:  # help COMMAND is COMMAND --help
        name, arguments = arguments[0], [*arguments[1:], "--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if name in ("-V", "--version"):
        print(f"decaylab {__version__}")
        return 0
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    from decaylab.cli.parse import parse

    module, function = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), function)
    if getattr(command, "parses_itself", False):
        return int(command(arguments))
    result = parse(command, arguments, prog=f"decaylab {name}")()
    return result if isinstance(result, int) else 0


def _overview() -> str:
    width = max((len(name) for name in COMMANDS), default=0)
    lines = [
        "usage: decaylab COMMAND [--help] [--debug]",
        "       decaylab help COMMAND",
        "       decaylab --version",
        "",
        "What weight decay does to your training, and how much of it to use.",
        "",
        *(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()),
        "",
        "decaylab COMMAND --help lists a command's options; --debug shows the traceback of an error.",
    ]
    return "\n".join(lines)
