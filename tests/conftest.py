"""One thread a test process, and a home of its own: tests neither read nor write the user's data folder."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from tests.support.databases import postgresql_database, postgresql_server, store, url  # noqa: F401
from tests.support.in_process import in_process  # noqa: F401


@pytest.fixture(autouse=True)
def _home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)
