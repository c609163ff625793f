"""A worker process and its launcher talk through a pipe: no file, and no waiting for one that does not read."""

import os
import signal
import time

from decaylab.launch.backends.worker_process import WorkerProcess
from decaylab.launch.lifeline import Lifeline
from decaylab.launch.scheduler import Queue
from decaylab.store.store import Store


def test_a_suspended_worker_does_not_hold_its_launcher_up(tmp_path):
    with Store(tmp_path / "runs.db") as store:
        text = Queue(store, []).to_json(1)
    long = text[:-1] + " " * (1 << 20) + "}"
    process = WorkerProcess(
        str(tmp_path / "runs.db"),
        text,
        device="cpu",
        threads=1,
        target="decaylab.launch.worker:train_nothing",
        lease_seconds=1,
    )
    try:
        os.kill(process._popen.pid, signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(3):
            process.send(long)
        assert time.monotonic() - began < 5
        os.kill(process._popen.pid, signal.SIGCONT)
        while process.code is None:
            process.pump()
            time.sleep(0.02)
        assert process.code == 2 and "cannot load --target" in process.last_words()
        process.send(long)  # to one that is dead
    finally:
        process.kill()
        process.close()


def test_lines_come_in_pieces_and_end(tmp_path):
    reader, writer = os.pipe()
    lifeline, heard = Lifeline(reader), []
    os.write(writer, b'{"a"')
    os.write(writer, b': 1}\n{"b": 2}\n{"c"')
    assert lifeline.line() == '{"a": 1}'
    lifeline.watch(heard.append, lambda: heard.append("end"))
    os.write(writer, b": 3}\nhalf a line")
    os.close(writer)
    until = time.monotonic() + 10
    while "end" not in heard and time.monotonic() < until:
        time.sleep(0.01)
    assert heard == ['{"b": 2}', '{"c": 3}', "end"]
    os.close(reader)
