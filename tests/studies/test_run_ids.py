"""Every declared run keeps its id: a stored list holds them, so that a change that moves one is made on purpose."""

import json
from pathlib import Path

import pytest

from decaylab import studies

IDS = json.loads(Path(__file__).with_name("run_ids.json").read_text())


@pytest.mark.parametrize("name", sorted(IDS))
def test_declared_runs_keep_their_ids(name):
    experiment = studies.get(name)
    assert {budget: [spec.id for spec in experiment.runs(budget)] for budget in IDS[name]} == IDS[name]
