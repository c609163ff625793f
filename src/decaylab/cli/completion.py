"""``decaylab completion``: the script with which a shell completes commands, options and their values."""

from __future__ import annotations

import importlib
import io
from contextlib import redirect_stdout
from typing import Annotated, Any, Literal

import tyro

from decaylab.errors import DecaylabError

Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Annotated[Shell, tyro.conf.Positional]) -> None:
    """Print a script that completes decaylab's commands and options.

    bash: decaylab completion bash > ~/.local/share/bash-completion/completions/decaylab.
    zsh: decaylab completion zsh > ~/.zfunc/_decaylab, with ~/.zfunc in fpath.
    fish: decaylab completion fish > ~/.config/fish/completions/decaylab.fish.

    Args:
        shell: The shell that reads it.
    """
    with redirect_stdout(io.StringIO()) as out:
        try:
            _commands().cli(prog="decaylab", args=["--tyro-print-completion", shell])
        except SystemExit as stop:
            if stop.code:
                raise DecaylabError(f"tyro cannot write a script for {shell}: update it") from None
    print(out.getvalue(), end="")


def _commands() -> Any:
    """Return all commands as subcommands of one program."""
    from decaylab.cli import COMMANDS

    app = tyro.extras.SubcommandApp()
    for name, (target, text) in COMMANDS.items():
        module, function = target.split(":")
        try:
            command = getattr(importlib.import_module(module), function)
        except (ImportError, DecaylabError):  # of an extra that is not installed
            continue
        kinds = getattr(command, "kinds", None)
        if kinds is None:
            app.command(command, name=name, help=text)
            continue
        part = tyro.extras.SubcommandApp()
        for kind, arguments in kinds.items():
            part.command(arguments, name=kind, help=f"{name} a {kind} run")
        app.command(part, name=name, help=text)
    return app
