"""Public names have their types: mypy finds the mistakes in a script of a user's."""

import subprocess
import sys
from pathlib import Path

import pytest

import decaylab

pytest.importorskip("mypy")

SOURCE = Path(decaylab.__file__).parent

SCRIPT = """
import torch
from decaylab import attach, audit, watch
from decaylab.decay import Decoupled, Decuopled
from decaylab.experiments import Claim, final, lower
from decaylab.probes import measure
m = torch.nn.Linear(2, 2)
o = torch.optim.AdamW(m.parameters())
log = watch(m, o, evry=5)
attach(o, Decoupled(weight_dcay=0.1))
print(log.sumary())
print(audit(m).rowz)
Claim(id="a", sentense="b", check=lower(final("val/loss"), this={"wd": 0.1}, than={"wd": 0.0}))
measure("norms", m, wieghts={})
good = watch(m, o, every=5).summary().upper()
reveal_type(good)
"""
MISTAKES = {4: "Decuopled", 9: "evry", 10: "weight_dcay", 11: "sumary", 12: "rowz", 13: "sentense", 14: "wieghts"}


# What the script's mistakes do not depend on is not read, which takes most of mypy's time.
CONFIG = """
[mypy]
strict = True
[mypy-torch.*,pandas.*,numpy.*,altair.*,rich.*,sqlalchemy.*]
follow_imports = skip
"""


def test_mypy_catches_the_mistakes_of_a_script(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    monkeypatch.setenv("MYPYPATH", str(SOURCE.parent))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    errors = {int(line.split(":")[1]): line for line in lines if "error:" in line}
    assert errors.keys() == MISTAKES.keys(), done.stdout
    for line, word in MISTAKES.items():
        assert word in errors[line]
    assert any('Revealed type is "str"' in line or 'Revealed type is "builtins.str"' in line for line in lines)


def test_the_package_says_that_it_has_types():
    assert (SOURCE / "py.typed").exists()
