"""The command line: find the command, parse its arguments, call it, set the exit code. Nothing is computed here.

Only the module of the command that was asked for is imported, so ``decaylab --help`` and ``decaylab list`` answer
without loading torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from decaylab import __version__
from decaylab.errors import DecaylabError, unknown

# name -> (module:function, one line for the overview)
COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("decaylab.cli.catalogue:catalogue", "every experiment, and how many of its runs are finished"),
    "show": ("decaylab.cli.show:show", "one experiment: its claims, its recipe and every setting of its runs"),
    "reproduce": ("decaylab.cli.reproduce:reproduce", "train what is missing of an experiment and write its page"),
    "report": ("decaylab.cli.report:report", "draw the page again from the store alone"),
    "train": ("decaylab.cli.train:train", "train one run from flags or from a file"),
    "sample": ("decaylab.cli.sample:sample", "continue a prompt with a trained language model"),
    "convert": ("decaylab.cli.sample:convert", "save a trained language model for transformers"),
    "runs": ("decaylab.cli.runs:runs", "the runs of a store: status, step, last metrics"),
    "export": ("decaylab.cli.export:export", "the metrics of a store as a CSV or parquet file"),
    "explain": ("decaylab.cli.explain:explain", "what a weight decay does in a run, in every convention"),
    "advise": ("decaylab.cli.advise:advise", "which weight decay, learning rate and batch size to use, and why"),
    "audit": ("decaylab.cli.audit:audit", "every parameter of a model: role, decayed or not, and why"),
    "probe": ("decaylab.cli.probe:probe", "measure a checkpoint, or any model, with the probes"),
    "rules": ("decaylab.cli.rules:rules", "every decay rule: equation, what it is for, its memory, its paper"),
    "data": ("decaylab.cli.data:data", "the data sets: which are here, and how to get the others"),
    "conformance": ("decaylab.cli.conformance:conformance", "hold an optimizer class to the identities of its decay"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0 when the command did its work (a claim that fails is a result, not an error), 2 for a mistake of the caller,
        130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"decaylab {__version__}")
        return 0
    try:
        return _run(arguments[0], arguments[1:])
    except DecaylabError as error:
        if debug:
            raise
        print(f"decaylab: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, less) went away: not an error of ours
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("decaylab: interrupted", file=sys.stderr)
        return 130


def _run(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    import tyro

    module, function = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), function)
    if getattr(command, "parses_itself", False):
        return int(command(arguments))
    result = tyro.cli(command, args=arguments, prog=f"decaylab {name}")
    return result if isinstance(result, int) else 0


def _overview() -> str:
    width = max((len(name) for name in COMMANDS), default=0)
    lines = [
        "usage: decaylab COMMAND [--help] [--debug]",
        "",
        "What weight decay does to your training, and how much of it to use.",
        "",
        *(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()),
        "",
        "decaylab COMMAND --help lists a command's options; --debug shows the traceback of an error.",
    ]
    return "\n".join(lines)
