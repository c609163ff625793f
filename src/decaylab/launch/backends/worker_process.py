"""Worker process on this machine, seen from the launcher that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress

from decaylab.launch.worker import STORE_VARIABLE

_LOG_BYTES = 1 << 16  # of the end of what it wrote


class WorkerProcess:
    """A worker that gets its queue through its standard input and stops when that closes.

    What it writes goes to a file without a name, which the system removes with the last process that has it open: a
    launcher that is killed leaves nothing behind.

    Args:
        store_url: The store.
        listing: Its queue, as `Queue.to_json` gives it.
        device: Where it trains.
        threads: How many it may use.
        target: What trains a run.
        lease_seconds: How long its leases hold without a sign of life.

    Attributes:
        name: Its name in the store.
        device: See above.
        threads: See above.
        idle_deaths: How often in a row a worker in this place has died with nothing to train; the launcher counts.

    Raises:
        OSError: The machine has no room for another process.
    """

    def __init__(
        self, store_url: str, listing: str, *, device: str, threads: int, target: str, lease_seconds: float
    ) -> None:
        self.name, self.device, self.threads = uuid.uuid4().hex, device, threads
        self.idle_deaths = 0
        self._began = time.monotonic()
        self._unsent = b""
        command = [sys.executable, "-P", "-m", "decaylab.launch.worker", "--queue", "-"]
        command += ["--worker", self.name, "--device", device, "--threads", str(threads), "--target", target]
        command += ["--lease-seconds", str(lease_seconds)]
        # The URL may hold a password: a process's environment is its user's alone, its command line is everybody's.
        variables = {**os.environ, STORE_VARIABLE: store_url}
        variables |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        # A session of its own: Ctrl-C reaches the launcher alone, which then stops the workers in order.
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=variables,
            start_new_session=True,
        )
        assert self._popen.stdin is not None
        self._input = self._popen.stdin
        os.set_blocking(self._input.fileno(), False)
        self.send(listing)

    @property
    def seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._began

    @property
    def code(self) -> int | None:
        """Its exit code, negative after a signal; ``None`` while it runs."""
        return self._popen.poll()

    def send(self, listing: str) -> None:
        """Give it another queue; a worker that does not read gets it when it does."""
        self._unsent += listing.encode() + b"\n"
        self.pump()

    def pump(self) -> None:
        """Write what it has not been sent yet, as far as the pipe takes it; to be called now and then."""
        while self._unsent and not self._input.closed:
            try:
                written = os.write(self._input.fileno(), self._unsent)
            except BlockingIOError:
                return
            except OSError:  # it has died: whoever looks at its exit code is told
                self._unsent = b""
                return
            self._unsent = self._unsent[written:]

    def stop(self) -> None:
        """Make it write checkpoints and end."""
        self._unsent = b""
        with suppress(OSError):
            self._input.close()

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()
        self._popen.wait()

    def how_it_ended(self) -> str:
        """Say how a process that has ended did so."""
        code = self._popen.returncode
        if code >= 0:
            return f"with exit code {code}"
        known = {int(number) for number in signal.Signals}
        name = signal.Signals(-code).name if -code in known else f"signal {-code}"
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def log(self) -> str:
        """Return the end of what it has written."""
        # Not by seek: the place in the file is the worker's too.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), _LOG_BYTES, max(0, size - _LOG_BYTES)).decode(errors="replace").strip()

    def last_words(self) -> str:
        """Return the line that says why, of a traceback or a message; empty when it wrote nothing."""
        log = self.log()
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        # A crash in native code says why in the first line of faulthandler's trace.
        told = [line for line in lines if line.startswith(("Fatal Python error", "decaylab: "))]
        if told:
            return told[-1].removeprefix("decaylab: ")
        # After a signal the last line may be anything that it printed before.
        return lines[-1] if lines and (self._popen.returncode >= 0 or "Traceback (most recent" in log) else ""

    def close(self) -> None:
        """Let go of its files."""
        self.stop()
        self._log.close()
