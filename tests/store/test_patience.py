"""One policy of waiting, for launchers and workers."""

import pytest

from decaylab.errors import DecaylabError
from decaylab.store import patience
from decaylab.store.database import StoreUnreachable


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def _fails(times, error=None):
    left, error = [times], error or StoreUnreachable("the server is down")

    def action():
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "done"

    return action


def test_it_waits_and_says_so_once(_clock):
    said = []
    assert patience.insist(_fails(12), say=said.append) == "done"
    assert said == ["the server is down; waiting for it, 10 minutes at most"] and 60 < _clock[0] < 600


def test_ten_minutes_are_enough(_clock):
    with pytest.raises(StoreUnreachable):
        patience.insist(_fails(10**9))
    assert 600 <= _clock[0] < 640


def test_who_is_asked_to_stop_waits_no_longer(_clock):
    with pytest.raises(StoreUnreachable):
        patience.insist(_fails(10**9), lambda: _clock[0] > 5)
    assert _clock[0] < 6


def test_other_errors_are_not_waited_for(_clock):
    with pytest.raises(DecaylabError, match="wrong"):
        patience.insist(_fails(1, DecaylabError("wrong")))
    assert _clock[0] == 0
