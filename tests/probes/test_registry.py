import dataclasses
import importlib
import subprocess
import sys

import pytest

from decaylab.errors import DecaylabError
from decaylab.probes.registry import DEFAULT_PROBES, PROBES, rows


@pytest.mark.parametrize("name", PROBES)
def test_every_row_names_a_frozen_probe_with_the_same_name_and_needs(name):
    module, cls = PROBES[name].path.split(":")
    probe = getattr(importlib.import_module(module), cls)()
    assert dataclasses.is_dataclass(probe) and type(probe).__dataclass_params__.frozen
    assert (probe.name, probe.needs) == (name, PROBES[name].needs)
    assert PROBES[name].needs <= {"gradients", "previous", "optimizer", "loss", "microbatches"}


def test_the_table_loads_without_torch():
    code = "import sys, decaylab.probes.registry, decaylab.probes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rows():
    assert [row.name for row in rows(["norms", "timescale", "norms"])] == ["norms", "timescale"]
    assert set(DEFAULT_PROBES) <= set(PROBES)
    with pytest.raises(DecaylabError, match="unknown probe 'rotatoin'; did you mean 'rotation'"):
        rows(["rotatoin"])
