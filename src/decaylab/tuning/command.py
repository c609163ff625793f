"""A training command with placeholders, and one run of it: its words, its process, its log, its time limit."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from decaylab.errors import DecaylabError, unknown
from decaylab.tuning.coordinates import Point
from decaylab.tuning.metric import LOG, REPORTS
from decaylab.tuning.progress_file import VARIABLE

PLACEHOLDERS = ("weight_decay", "lr", "steps", "seed", "out")
_ONE_VALUE = re.compile(r"(?:[^{}]*=)?\{([A-Za-z_]\w*)\}")  # {name} or --option={name}; other braces are the script's
_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0
_LARGEST_SCRIPT = 1 << 20


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, and whether it was stopped for its time limit or because somebody asked."""

    code: int
    timed_out: bool = False
    stopped: bool = False


def check(words: Sequence[str], *, lr_is_searched: bool) -> frozenset[str]:
    """Return the placeholders of a command.

    Raises:
        DecaylabError: There is no command, one without a placeholder that is needed, or with an unknown one.
    """
    if not words:
        raise DecaylabError("give the training command behind --, such as: -- python train.py --wd {weight_decay} ...")
    found: set[str] = set()
    for word in words:
        found |= {name for name in PLACEHOLDERS if "{" + name + "}" in word}  # as `filled` takes them
        other = _ONE_VALUE.fullmatch(word)
        if other is not None and other[1] not in PLACEHOLDERS:
            raise unknown("placeholder", other[1], PLACEHOLDERS)
    needed = ["weight_decay", "steps"] + (["lr"] if lr_is_searched else [])
    missing = [f"{{{name}}}" for name in needed if name not in found]
    if missing:
        raise DecaylabError(
            f"the command has no {' and no '.join(missing)}: write the placeholder where the script takes that value, "
            "such as --weight-decay {weight_decay} --max-steps {steps}"
        )
    return frozenset(found)


def filled(words: Sequence[str], point: Point, out: Path | str) -> list[str]:
    """Return the words of a command with the settings of a trial in their places."""
    values = {
        "weight_decay": _decimal(point.weight_decay),
        "lr": _decimal(point.lr),
        "steps": str(point.steps),
        "seed": str(point.seed),
        "out": str(out),
    }
    found = []
    for word in words:
        for name, value in values.items():
            word = word.replace("{" + name + "}", value)
        found.append(word)
    return found


def _decimal(number: float) -> str:
    """Write a number so that a script that tells types apart, as nanoGPT's does, sees no whole number."""
    text = format(number, ".6g")
    return f"{text}.0" if text.isdigit() else text


def content_of_files(words: Sequence[str], cwd: Path) -> dict[str, str]:
    """Return a digest of each file that the command names: a changed script is another study."""
    found = {}
    for word in words:
        path = cwd / word.rpartition("=")[2]
        with suppress(OSError, ValueError):
            if path.is_file() and path.stat().st_size < _LARGEST_SCRIPT:  # larger files are data or programs
                found[word] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def run(
    words: Sequence[str],
    folder: Path,
    *,
    cwd: Path,
    timeout: float | None,
    variables: Mapping[str, str],
    go_on: Callable[[], bool],
) -> Ended:
    """Run a command in a process group of its own until it ends, takes too long, or nobody wants it any more.

    Args:
        words: Command and arguments; no shell sees them.
        folder: For the log of its output, and for what the script reports of itself.
        cwd: Working directory.
        timeout: Seconds; None for no limit.
        variables: Added to the environment.
        go_on: Asked a few times a second; the process group is ended when it says no.

    Raises:
        DecaylabError: The program cannot be started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORTS).unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **variables, VARIABLE: str(folder / REPORTS)}
    with (folder / LOG).open("wb") as log:
        try:
            process = subprocess.Popen(
                list(words), cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise DecaylabError(f"cannot start {words[0]!r}: {error.strerror}") from None
    began = time.monotonic()
    wait = 0.005
    try:
        while process.poll() is None:
            time.sleep(wait)
            wait = min(_POLL_SECONDS, 1.5 * wait)
            if timeout is not None and time.monotonic() - began > timeout:
                return Ended(_end(process), timed_out=True)
            if not go_on():
                return Ended(_end(process), stopped=True)
    except BaseException:
        _end(process)
        raise
    return Ended(process.returncode)


def _end(process: subprocess.Popen[bytes]) -> int:
    for name in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, name)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_KILL_SECONDS)
    return process.wait()


def last_words(folder: Path) -> str:
    """Return the last line of a log that says something, for an error's message."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-50:]
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return "".join(c for c in said[-1] if c.isprintable())[:200] if said else ""
