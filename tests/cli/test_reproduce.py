"""Every experiment at the smallest budget, through the command that users type."""

import json

import pytest

from decaylab import studies
from decaylab.cli import main
from decaylab.store.store import Store


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_experiment_runs_and_the_second_time_nothing_is_trained(tmp_path, capsys):
    store, out = str(tmp_path / "runs.db"), tmp_path / "page"
    command = ["reproduce", "all", "--budget", "smoke", "--store", store, "--out", str(out)]
    assert main(command) == 0
    first = capsys.readouterr()
    assert first.out.strip() == str((out / "index.html").resolve())
    verdicts = json.loads((out / "verdicts.json").read_text())
    assert {v["experiment"] for v in verdicts} == {i for i in studies.all_ids() if studies.get(i).claims}
    assert {v["verdict"] for v in verdicts} == {"not testable at this budget"}
    for identity in studies.all_ids():
        for chart in studies.get(identity).charts:
            assert (out / "charts" / f"{identity}-{chart.id}.csv").stat().st_size > 0
    with Store(store) as database:
        before = {row.id: (row.status, row.ended) for row in database.rows()}
    assert {status for status, _ in before.values()} <= {"done", "diverged"}
    assert main(command) == 0
    with Store(store) as database:
        assert {row.id: (row.status, row.ended) for row in database.rows()} == before
    assert main(["report", "fig5", "--budget", "smoke", "--store", store, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "index.html").exists()


def test_an_illustration_has_nothing_to_train(tmp_path, capsys):
    out = tmp_path / "page"
    assert main(["reproduce", "fig10", "--store", str(tmp_path / "runs.db"), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str((out / "index.html").resolve()) and "runs" not in printed.err
