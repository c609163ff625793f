"""Everything there is to know about decaylab on one GPU: is it right there, and how fast is it?

    python benchmarks/gpu.py [--peer FOLDER] [--budget 540] [--out results/gpu]

One command, under ten minutes on one H100 or H200. First what must be right on CUDA: every decay rule against float64
on the CPU, compiled steps, CUDA graphs, gradient scalers, `watch`, bfloat16, data parallelism, resumed runs, commands.
These checks run side by side with the compilation of what is timed later. Then the numbers, one section after another:
GPT-2 small at context 256 and 1024 against the paper authors' training script, the cost of each rule over torch's fused
AdamW, curvature, `watch`, and DistributedDataParallel on one card.

Each section is a process of its own with a time limit: one that fails or hangs is recorded and the others go on. After
each, all is written to ``OUT/<hardware>.json``, and as tables to ``OUT/<hardware>.md``. The exit status is 1 where a
check failed.

The authors' script is not part of this project: give the folder ``large_language_models`` of the repository
``tml-epfl/why-weight-decay`` as ``--peer``. Without a GPU, ``--size smoke`` walks through all of it on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Nothing here imports torch: each section is a process of its own, and this one only waits.
from gpu_kit import page
from gpu_kit.sections import SECTIONS, Section, run


class Kit:
    """Runs sections and keeps what they found.

    Args:
        arguments: The command's.
        scratch: Folder for what sections leave.
    """

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self._arguments, self._scratch = arguments, scratch
        self._until = time.monotonic() + arguments.budget
        self.done: set[str] = set()
        self.results: dict[str, Any] = {"hardware": {}, "settings": {"size": arguments.size}, "sections": {}}

    def together(self, sections: Sequence[Section]) -> None:
        """Run sections at the same time and take their results as they end."""
        started = [(section, time.monotonic(), self._start(section)) for section in sections]
        for section, began, process in started:
            self._finish(section, began, process)

    def _start(self, section: Section) -> subprocess.Popen[bytes]:
        print(f"-- {section.name}", flush=True)
        command = [sys.executable, __file__, "--section", section.name, "--size", self._arguments.size]
        command += ["--device", self._arguments.device, "--scratch", str(self._scratch)]
        if self._arguments.peer is not None:
            command += ["--peer", str(self._arguments.peer.resolve())]
        with self._log(section).open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def _log(self, section: Section) -> Path:
        return self._scratch / f"{section.name}.log"

    def _finish(self, section: Section, began: float, process: subprocess.Popen[bytes]) -> None:
        limit = min(section.seconds, max(self._until - time.monotonic(), 1.0))
        try:
            code = process.wait(max(began + limit - time.monotonic(), 1.0))
            ended = "done" if code == 0 else f"ended with status {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {time.monotonic() - began:.0f} seconds"
            _end(process)
        lines = self._rows(section)
        found = {"status": ended, "seconds": round(time.monotonic() - began, 1), "rows": lines}
        if ended != "done" or not all(row.get("ok", True) for row in lines):
            said = self._log(section).read_text(errors="replace")[-12_000:]
            found["log"] = said.replace(f"{Path(__file__).parents[1]}/", "").splitlines()  # no folder of this machine
        for row in [row for row in lines if row["kind"] == "hardware"]:
            if not self.results["hardware"]:
                self._begin(row["value"])
        found["rows"] = [row for row in lines if row["kind"] != "hardware"]
        self.results["sections"][section.name] = found
        self.done.add(section.name)
        print(page.section(section.name, found), flush=True)
        self.write()

    def _begin(self, hardware: dict[str, Any]) -> None:
        """Note the hardware, and with ``--only`` keep what an earlier run on it has found in other sections."""
        self.results["hardware"] = hardware
        path = self._arguments.out / f"{page.slug(hardware['name'])}.json"
        if self._arguments.only and path.exists():
            earlier = json.loads(path.read_text(encoding="utf-8"))
            if earlier["hardware"] == hardware and earlier["settings"] == self.results["settings"]:
                self.results["sections"] = earlier["sections"] | self.results["sections"]

    def _rows(self, section: Section) -> list[dict[str, Any]]:
        path = self._scratch / f"{section.name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write(self) -> None:
        """Write all that is known so far, as JSON and as tables."""
        name = page.slug(self.results["hardware"].get("name", "unknown"))
        self._arguments.out.mkdir(parents=True, exist_ok=True)
        for suffix, text in ((".json", json.dumps(self.results, indent=1) + "\n"), (".md", page.whole(self.results))):
            path = self._arguments.out / f"{name}{suffix}"
            half = path.with_suffix(path.suffix + ".part")
            half.write_text(text, encoding="utf-8")
            os.replace(half, path)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self._until - time.monotonic()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a section and what it has started: it leads a session of its own."""
    import signal
    from contextlib import suppress

    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder large_language_models of the authors' repository")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for all; sections beyond it are left out")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument(
        "--only", nargs="*", help=f"only these sections, others stay as they are in the file: {', '.join(SECTIONS)}"
    )
    parser.add_argument("--size", choices=("full", "smoke"), default="full", help="smoke: seconds, also without a GPU")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    for name, kind in (("--section", str), ("--scratch", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)  # what the processes of their own do
    arguments = parser.parse_args()
    if arguments.section:
        return run(arguments.section, arguments.size, arguments.device, arguments.scratch, arguments.peer)
    unknown = set(arguments.only or ()) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {sorted(unknown)[0]!r}; known: {', '.join(SECTIONS)}")
    chosen = [section for name, section in SECTIONS.items() if not arguments.only or name in arguments.only]
    if arguments.peer is None:
        chosen = [section for section in chosen if not section.needs_peer]
    with tempfile.TemporaryDirectory() as scratch:
        kit = Kit(arguments, Path(scratch))
        checks = [section for section in chosen if not section.timed]
        # On a CPU the checks would only be in each other's way.
        batches = [checks] if arguments.device != "cpu" and arguments.size == "full" else [[c] for c in checks]
        for batch in [*batches, *([section] for section in chosen if section.timed)]:
            if kit.left < 5:
                kit.results["left_out"] = [s.name for s in chosen if s.name not in kit.done]
                print(f"out of time: left out {', '.join(kit.results['left_out'])}")
                break
            if batch:
                kit.together(batch)
        kit.write()
    failed = page.failures(kit.results)
    print("\n".join(failed) or "every check holds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
