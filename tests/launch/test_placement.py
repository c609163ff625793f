"""Processes and threads for small and large runs, and for GPUs."""

import pytest

from decaylab.errors import DecaylabError
from decaylab.launch.devices import find_device
from decaylab.launch.placement import crews
from decaylab.launch.scheduler import Run


def _runs(*hints):
    return [Run(id=f"r{i}", threads_hint=hint) for i, hint in enumerate(hints)]


def _shape(found):
    return [(len(crew.runs), crew.devices, crew.threads) for crew in found]


@pytest.mark.parametrize(
    "hints, options, expected",
    [
        ([None] * 9, {"cores": 4}, [(9, ("cpu",) * 4, 1)]),
        ([1, 1], {"cores": 4}, [(2, ("cpu",) * 2, 1)]),
        ([0, 0], {"cores": 4}, [(2, ("cpu",), 4)]),
        ([2, 2, 2], {"cores": 4}, [(3, ("cpu",) * 2, 2)]),
        ([64], {"cores": 4}, [(1, ("cpu",), 4)]),
        ([1, 0, 1], {"cores": 2}, [(1, ("cpu",), 2), (2, ("cpu",) * 2, 1)]),
        ([0, 0, 0], {"cores": 4, "workers": 2}, [(3, ("cpu",) * 2, 2)]),
        ([1] * 9, {"cores": 2, "workers": 5}, [(9, ("cpu",) * 5, 1)]),
        ([1, 0, 1], {"cores": 8, "device": "cuda", "gpus": 1}, [(3, ("cuda:0",), 8)]),
        ([1] * 5, {"cores": 8, "device": "cuda", "gpus": 2}, [(5, ("cuda:0", "cuda:1"), 4)]),
        ([1] * 5, {"cores": 8, "device": "cuda", "gpus": 1, "workers": 3}, [(5, ("cuda:0",) * 3, 2)]),
        ([1] * 5, {"cores": 8, "device": "cuda:1"}, [(5, ("cuda:1",), 8)]),
        ([], {"cores": 8}, []),
    ],
)
def test_processes_and_threads(hints, options, expected):
    assert _shape(crews(_runs(*hints), **options)) == expected


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(DecaylabError, match="at least 1, not 0"):
        crews(_runs(1), cores=2, workers=0)
    assert find_device("cuda:3") == ("cuda:3", 0) and find_device("cpu") == ("cpu", 0)
