"""Optional dependencies by extra, and the error that names the extra which is missing."""

from __future__ import annotations

import importlib
from typing import Any

from decaylab.errors import DecaylabError

# Import name of an optional dependency to the extra that brings it. A package in two extras has the smaller one.
EXTRAS: dict[str, str] = {
    "torch": "torch",
    **dict.fromkeys(
        (
            "PIL", "altair", "jinja2", "pandas", "pooch", "psutil", "pyarrow", "safetensors", "scipy", "sklearn",
            "sqlalchemy", "tokenizers", "vl_convert",
        ),
        "lab",
    ),
    "psycopg": "postgres",
    "datasets": "openwebtext",
    "transformers": "transformers",
    "accelerate": "transformers",
    "lightning": "lightning",
    "tensorboardX": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "ray": "ray",
    "submitit": "slurm",
    "optuna": "search",
}  # fmt: skip


class MissingExtra(DecaylabError, ImportError):
    """An optional dependency that is not installed; the message is the line that installs it."""


def missing_extra(error: BaseException | None) -> MissingExtra | None:
    """Return the error that names the extra of a package that could not be imported; None for any other error.

    Args:
        error: What an import raised; an error that was raised from it counts too.
    """
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    package = (error.name or "").partition(".")[0] if error is not None else ""
    if package not in EXTRAS:
        return None
    extra = EXTRAS[package]
    return MissingExtra(f"{package} is not installed, which this needs: `pip install 'decaylab[{extra}]'` brings it")


def optional(module: str) -> Any:
    """Import and return a module that an extra brings.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from error
