"""The launcher with real processes: every run is trained once, whoever dies, and Ctrl-C loses nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import decaylab
from decaylab.errors import DecaylabError
from decaylab.launch.backends.local import launch
from decaylab.launch.scheduler import Queue, Run
from decaylab.store.store import Store

ROOT = Path(__file__).parents[3]
PLACES = os.pathsep.join([str(Path(decaylab.__file__).parents[1]), str(ROOT)])
THIS_FILE = "import sys; sys.path.insert(0, sys.argv[1]); import tests.launch.backends.test_local as t"
TARGET = "tests.support.engine:train"


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PLACES)  # where the workers find the engine


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def _launch(path, runs, **options):
    options = {"workers": 2, "device": "cpu", "progress": False, "target": TARGET, "lease_seconds": 5} | options
    return launch(str(path), runs, **options)


def _run(name, *, needs=(), **config):
    return Run(id=name, config=config, needs=tuple(needs), cost=config.get("steps", 3))


def test_every_run_is_trained_once_and_then_skipped(path, capsys):
    runs = [_run(f"r{n}", steps=4) for n in range(4)] + [_run("d", end="diverged")]
    report = _launch(path, runs, progress=True)
    assert sorted(report.done) == ["r0", "r1", "r2", "r3"] and report.diverged == ("d",)
    assert not report.failed and not report.skipped and not report.interrupted
    assert "5 runs: 4 done, 1 diverged" in capsys.readouterr().err
    with Store(path) as store:
        frame = store.table(keys=["sum"])
        assert frame.groupby("run")["value"].apply(list).to_dict() == {
            **{f"r{n}": [1, 3, 6, 10] for n in range(4)},
            "d": [1, 3, 6],
        }
        row = store.get("r0")
        assert (row.status, row.step, row.summary) == ("done", 4, {"sum": 10})
        assert row.environment["threads"] == 1 and row.environment["python"]
        assert all(_starts(path, run.id) == [0] for run in runs)
    began = time.monotonic()
    again = _launch(path, runs)
    assert sorted(again.skipped) == ["d", "r0", "r1", "r2", "r3"] and not again.done and not again.diverged
    assert time.monotonic() - began < 1


def test_a_failing_run_and_those_that_need_it_are_reported_and_the_others_go_on(path, capsys):
    runs = [
        _run("bad", steps=9, raise_at=2),
        _run("child", needs=["bad"]),
        _run("grandchild", needs=["child", "good"]),
        _run("good"),
        _run("orphan", needs=["nowhere"]),
        _run("heir", needs=["good"], origin="good"),
    ]
    report = _launch(path, runs, progress=True)
    assert sorted(report.done) == ["good", "heir"]
    assert report.failed == {
        "bad": "ValueError: the loss",
        "child": "needs run bad, which failed: ValueError: the loss",
        "grandchild": "needs run child, which failed: needs run bad, which failed: ValueError: the loss",
        "orphan": "needs run nowhere, which the store does not know",
    }
    said = capsys.readouterr().err
    assert "failed: vision bad (bad): ValueError: the loss; see " in said
    with Store(path) as store:
        assert "raise ValueError" in (store.folder("bad") / "error.txt").read_text()
        assert store.table(["bad"], ["sum"])["value"].tolist() == [1, 3]
        assert store.last(["heir"])["heir"]["sum"] == 12


def test_what_an_earlier_attempt_left_is_gone_when_a_run_is_done(path):
    run = _run("a", steps=9, raise_at=7, raises=1)
    assert _launch(path, [run]).failed
    with Store(path) as store:
        folder = store.folder("a")
    (folder / "checkpoint-5").mkdir()
    assert (folder / "error.txt").exists()
    assert _launch(path, [run]).done == ("a",)
    assert not (folder / "error.txt").exists() and not (folder / "checkpoint-5").exists()
    (folder / "checkpoint-8").mkdir()  # as if the worker had died right after the end
    assert _launch(path, [run]).skipped == ("a",)
    assert not (folder / "checkpoint-8").exists()


def test_a_killed_workers_run_goes_on_from_its_checkpoint(path):
    report = _launch(path, [_run("a", steps=20, die_at=12), _run("b", steps=4)], lease_seconds=600)
    assert sorted(report.done) == ["a", "b"]
    with Store(path) as store:
        assert _starts(path, "a") == [0, 10]
        frame = store.table(["a"], ["sum"])
        assert frame["step"].tolist() == list(range(1, 21))
        assert frame["value"].tolist() == [n * (n + 1) / 2 for n in range(1, 21)]
        pids = store.table(["a"], ["pid"])["value"]
        assert pids[:10].nunique() == 1 and pids[10:].nunique() == 1 and pids[0] != pids[19]


def test_a_run_that_keeps_killing_its_worker_fails(path):
    report = _launch(path, [_run("a", steps=20, die_at=2, deaths=99), _run("b", steps=4)], attempts=2)
    assert report.done == ("b",)
    assert report.failed == {"a": "its worker process died 2 times, the last time killed by SIGKILL (out of memory?)"}


def test_deaths_with_progress_between_them_do_not_fail_a_run(path):
    report = _launch(path, [_run("a", steps=14, die_at=[6, 11], every=5)], attempts=2, workers=1)
    assert report.done == ("a",) and _starts(path, "a") == [0, 5, 10]


def test_the_last_words_of_a_dead_worker_are_kept_and_quoted(path, capsys):
    report = _launch(path, [_run("a", steps=9, abort_at=3)], attempts=1, workers=1, progress=True)
    reason = "its worker process died 1 time, killed by SIGABRT: Fatal Python error: Aborted"
    assert report.failed == {"a": reason}
    with Store(path) as store:
        kept = store.folder("a") / "error.txt"
    assert "engine.py" in kept.read_text() and "in train" in kept.read_text()
    assert f"failed: vision a (a): {reason}; see {kept}" in capsys.readouterr().err


def test_an_idle_worker_that_dies_takes_nobody_with_it(path, capsys):
    """The worker that waits for a run of the other is killed; the other one and the launch go on."""
    runs = [_run("a", steps=60, seconds=0.1), _run("b", needs=["a"])]
    killed = []

    def kill_the_idle():
        with Store(path) as store:
            while not killed:
                time.sleep(0.05)
                row = store.get("a")
                workers = {name: pid for pid, name in _workers_of(os.getpid())}
                if row is not None and row.alive and len(workers) == 2:
                    killed.extend(pid for name, pid in workers.items() if name != row.worker)
                    os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_idle, daemon=True)
    killer.start()
    report = _launch(path, runs, attempts=1, progress=True)
    killer.join()
    assert sorted(report.done) == ["a", "b"] and _starts(path, "a") == [0]
    said = capsys.readouterr().err
    assert "one worker less: it died with nothing to train, killed by SIGKILL" in said


def _workers_of(parent):
    """The worker processes that a process has started: their numbers and names."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in children.read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if "--worker" in words:
                yield int(pid), words[words.index("--worker") + 1]


def test_a_launch_that_waits_lives_through_a_restart_of_the_server(postgresql_database, capsys):
    """Connections end and new ones are refused while it waits for the run of another launch."""
    import psycopg

    name = psycopg.conninfo.conninfo_to_dict(postgresql_database)["dbname"]
    server = postgresql_database.replace(f"/{name}", "/postgres")
    with Store(postgresql_database) as store:
        store.add("restart", {"steps": 3}, kind="vision")
        store.lease("restart", "ghost", seconds=3.0)

    def restart():
        time.sleep(0.7)
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            time.sleep(1.5)
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    server_down = threading.Thread(target=restart)
    server_down.start()
    report = _launch(postgresql_database, [_run("restart", steps=3)], workers=1, lease_seconds=1, progress=True)
    server_down.join()
    assert report.done == ("restart",)
    assert "waiting for it, 10 minutes at most" in capsys.readouterr().err


def test_a_run_that_kills_its_company_is_found_out(path):
    """Who dies with several runs trains each by itself from then on, so the others do not fail with the culprit."""
    runs = [_run("culprit", steps=6, die_at=2, deaths=99)] + [_run(f"r{n}", steps=6) for n in range(3)]
    report = _launch(path, [replace(run, company="small") for run in runs], workers=1, attempts=2)
    assert sorted(report.done) == ["r0", "r1", "r2"]
    assert list(report.failed) == ["culprit"] and "died 2 times" in report.failed["culprit"]
    assert _starts(path, "culprit") == [0, 0, 0]  # once in company, twice alone


def test_an_error_in_the_common_part_fails_those_it_took_down(path):
    runs = [_run("a", steps=6), _run("b", steps=5, crash=1), _run("c", steps=4), _run("d", steps=1)]
    report = _launch(path, [replace(run, company="abc" if run.id != "d" else None) for run in runs], workers=1)
    assert sorted(report.done) == ["a", "d"]
    assert report.failed == dict.fromkeys("bc", "RuntimeError: the wide network burst")


@pytest.mark.parametrize(
    "target, said",
    [
        ("tests.support.engine:nothing", "unknown name in tests.support.engine 'nothing'"),
        ("no_such_module:train", "No module named"),
    ],
)
def test_workers_that_cannot_start_are_an_error(path, target, said):
    with pytest.raises(DecaylabError, match=f"workers cannot work .*cannot load --target .*{said}"):
        _launch(path, [_run("a")], target=target, workers=1, attempts=1)


def test_a_worker_lets_a_custom_engine_finish_what_it_has_begun(path, tmp_path):
    (tmp_path / "late.py").write_text(
        "import concurrent.futures, pathlib, time\n"
        "pool = concurrent.futures.ThreadPoolExecutor()\n"
        "def later(place):\n"
        "    time.sleep(0.3)\n"
        "    place.write_text('written')\n"
        "def train(config, record, *, folder, **options):\n"
        "    from tests.support import engine\n"
        "    print('said', end='')\n"
        "    pool.submit(later, pathlib.Path(__file__).with_name('later'))\n"
        "    return engine.Outcome('done')\n"
    )
    with Store(path) as store:
        store.add("a", {}, kind="vision")
        (tmp_path / "queue.json").write_text(Queue(store, [_run("a")]).to_json(1))
    command = [sys.executable, "-m", "decaylab.launch.worker", "--store", str(path), "--target", "late:train"]
    places = os.pathsep.join([str(tmp_path), PLACES])
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"PYTHONPATH": places}
    command += ["--queue", str(tmp_path / "queue.json")]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert ended.stdout == "said"
    assert (tmp_path / "later").read_text() == "written"


def test_a_run_of_a_dead_launch_is_waited_for_and_taken_over(path, capsys):
    with Store(path) as store:
        store.add("a", {"steps": 3}, kind="vision")
        assert store.lease("a", "ghost", seconds=1.0)
    assert _launch(path, [_run("a", steps=3)], progress=True).done == ("a",)
    assert capsys.readouterr().err.count("1 run is in the hands of another launch, and taken over when") == 1


def test_two_launchers_share_the_runs(path):
    code = f"{THIS_FILE}; t.share(sys.argv[2])"
    command = [sys.executable, "-c", code, str(ROOT), str(path)]
    launchers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    done = [launcher.communicate(timeout=60)[0].split() for launcher in launchers]
    assert {run for part in done for run in part} == {f"r{n}" for n in range(8)}
    with Store(path) as store:
        assert store.counts() == {"done": 8}
        for n in range(8):
            assert _starts(path, f"r{n}") == [0]


def share(path):
    report = _launch(path, [_run(f"r{n}", steps=5, seconds=0.02) for n in range(8)], workers=1)
    print(*report.done, *report.skipped)


def slow(path):
    """Train two runs that take long, and say how it ended."""
    report = _launch(path, [_run(f"r{n}", steps=10**4, seconds=0.02) for n in range(2)], progress=True)
    print("interrupted" if report.interrupted else "ended")


def _start_slow(path, attempt=1):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tests.launch.backends.test_local as t; t.slow(sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(path)]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with Store(path) as store:
        while len(store.table(keys=["sum"])["run"].unique()) < 2 or len(_starts(path, "r0")) < attempt:
            time.sleep(0.05)
            assert launcher.poll() is None, launcher.communicate()
    return launcher


def _starts(path, run):
    """The step at which each attempt at a run began."""
    file = path.with_suffix("") / run / "attempts"
    return [int(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def test_ctrl_c_writes_checkpoints_and_the_same_call_goes_on(path):
    launcher = _start_slow(path)
    launcher.send_signal(signal.SIGINT)
    out, err = launcher.communicate(timeout=30)
    assert out == "interrupted\n" and "the same command goes on" in err and "Traceback" not in err
    with Store(path) as store:
        for row in store.rows():
            reached = int((store.folder(row.id) / "checkpoint").read_text().split()[0])
            assert (row.status, row.step, row.worker) == ("interrupted", reached, "") and reached > 0
            frame = store.table([row.id], ["sum"])
            assert frame["step"].tolist() == list(range(1, reached + 1))
    launcher = _start_slow(path, attempt=2)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.communicate(timeout=30)[0] == "interrupted\n"
    starts = _starts(path, "r0")
    assert len(starts) == 2 and starts[0] == 0 < starts[1]


def test_workers_stop_when_their_launcher_is_killed_and_nothing_stays(path, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    launcher = _start_slow(path)
    launcher.kill()
    launcher.communicate()
    until = time.monotonic() + 20
    with Store(path) as store:
        while any(row.status == "running" for row in store.rows()) and time.monotonic() < until:
            time.sleep(0.05)
        assert {row.status for row in store.rows()} == {"interrupted"}
        pids = {int(line.split()[0]) for n in range(2) for line in (store.folder(f"r{n}") / "attempts").open()}
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(_lives(pid) for pid in pids)
    assert list(scratch.iterdir()) == []


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path(f"/proc/{pid}").exists() else False
