"""What works without the extras, and the line that names the extra where something does not."""

import csv
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import decaylab
from decaylab.extras import EXTRAS, MissingExtra, missing_extra, optional

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Import names of distributions that are called otherwise.
IMPORTED_AS = {
    "scikit-learn": "sklearn",
    "vl-convert-python": "vl_convert",
    "psycopg[binary]": "psycopg",
    "submitit": "submitit",
    "pillow": "PIL",
}
SOURCE = Path(decaylab.__file__).parents[1]


def _closure(requirements):
    """The distributions that pip installs for some requirements."""
    found, waiting = {}, list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found[requirement.name] = importlib.metadata.distribution(requirement.name)
            waiting += found[requirement.name].requires or []
    return found.values()


def _environment(folder, requirements):
    """Lay out what some requirements bring, and nothing else, in a folder of its own."""
    for distribution in _closure(requirements):
        for file in distribution.files:
            top = folder / file.parts[0]
            if file.parts[0] not in ("..", "__pycache__") and not top.exists():
                top.symlink_to(distribution.locate_file(file.parts[0]))
    return folder


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return _environment(tmp_path_factory.mktemp("core"), PROJECT["dependencies"])


@pytest.fixture(scope="module")
def with_torch(tmp_path_factory):
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["torch"]]
    return _environment(tmp_path_factory.mktemp("torch"), requirements)


def run(packages, *arguments):
    """Run Python with these packages alone."""
    path = f"{SOURCE}{os.pathsep}{packages}"
    command = [sys.executable, "-S", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "wd", "val/loss"])
        writer.writerows([s, wd, 3 - wd + 0.01 * s + 0.001 * wd * s] for s in range(4) for wd in (0.0, 0.1))
    return path


def test_judge_needs_no_extra(core, table):
    claim = "val/loss is lower with wd=0.1 than with wd=0"
    code, out, err = run(core, "-m", "decaylab", "judge", table, "--claim", claim)
    assert (code, err) == (0, "")
    assert out.startswith("holds: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("advise", "--params", "124M", "--tokens", "3.26B", "--seq-len", "1024", "--batch-size", "96", "--lr", "4e-4"),
        ("explain", "--lr", "4e-4", "--weight-decay", "0.1", "--steps", "1000"),
        ("rules",),
        ("rules", "decoupled"),
        ("list",),
        ("show", "fig5"),
        ("--help",),
    ],
)
def test_commands_that_need_no_extra(core, arguments):
    code, out, err = run(core, "-m", "decaylab", *arguments)
    assert (code, err) == (0, "")
    assert len(out) > 100


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("reproduce", "fig5"), "lab"),
        (("train", "vision"), "lab"),
        (("report",), "lab"),
        (("runs",), "lab"),
        (("audit", "collections:Counter"), "torch"),
        (("conformance", "torch.optim.NAdam"), "torch"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(core, arguments, extra):
    code, _, err = run(core, "-m", "decaylab", *arguments)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert f"pip install 'decaylab[{extra}]'" in err


def test_list_says_that_it_cannot_count(core, tmp_path, monkeypatch):
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path))
    (tmp_path / "runs.db").write_bytes(b"")
    code, out, err = run(core, "-m", "decaylab", "list")
    assert code == 0
    assert "fig1" in out
    assert "finished runs are not counted" in err
    assert "decaylab[lab]" in err
    code, _, err = run(core, "-m", "decaylab", "list", "--store", tmp_path / "runs.db")
    assert code == 2
    assert "decaylab[lab]" in err


def test_public_names_say_which_extra_they_need(core):
    code, out, err = run(
        core,
        "-c",
        "import decaylab\nfrom decaylab import advise, explain\n"
        "try:\n    decaylab.watch\nexcept ImportError as error:\n    print(type(error).__name__, error)",
    )
    assert (code, err) == (0, "")
    assert out.startswith("MissingExtra torch is not installed")
    assert "pip install 'decaylab[torch]'" in out


SCRIPT = """
import torch
from decaylab import attach, audit, decay_groups, watch
from decaylab.decay import Cautious

model = torch.nn.Linear(4, 2)
optimizer = torch.optim.AdamW(decay_groups(model), lr=0.01, weight_decay=0)
attach(optimizer, Cautious(weight_decay=0.1))
log = watch(model, optimizer, every=1)
for _ in range(3):
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
print(log.summary(), audit(model))
for act in (log.table, log.plot):
    try:
        act()
    except ImportError as error:
        print("MISSING", error)
"""


def test_torch_alone_watches_and_acts(with_torch):
    code, out, err = run(with_torch, "-W", "ignore", "-c", SCRIPT)
    assert code == 0, err
    assert out.count("MISSING") == 2
    assert "decaylab[lab]" in out


def test_every_dependency_of_an_extra_is_known_to_it():
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra in ("test", "dev", "docs"):
            continue
        for requirement in requirements:
            name = requirement.partition(">")[0]
            if not name.startswith("decaylab"):
                assert EXTRAS.get(IMPORTED_AS.get(name, name)) == extra, requirement
    assert set(EXTRAS.values()) <= set(PROJECT["optional-dependencies"])


def test_other_missing_modules_are_not_ours_to_explain():
    assert missing_extra(ModuleNotFoundError("No module named 'nonesuch'", name="nonesuch")) is None
    assert missing_extra(ValueError()) is None
    with pytest.raises(ModuleNotFoundError, match="nonesuch"):
        optional("nonesuch")
    assert isinstance(missing_extra(ModuleNotFoundError(name="scipy.special")), MissingExtra)


def test_constraints_hold_only_what_an_extra_asks_for():
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    names = {_plain(pin.partition("==")[0]) for pin in pins}
    assert len(names) == len(pins)
    waiting = [Requirement(each) for each in (*PROJECT["dependencies"], "hatchling")]
    waiting += [Requirement(each) for extra in PROJECT["optional-dependencies"].values() for each in extra]
    asked, absent = set(), set()
    while waiting:
        requirement = waiting.pop()
        key = (_plain(requirement.name), *sorted(requirement.extras))
        if key in asked or key[0] == "decaylab":
            continue
        asked.add(key)
        try:
            requires = importlib.metadata.distribution(requirement.name).requires or []
        except importlib.metadata.PackageNotFoundError:
            absent.add(key[0])
            continue
        for each in map(Requirement, requires):
            extras = requirement.extras or {""}
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(each)
    known = {key[0] for key in asked}
    installed = {_plain(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    strange = (names & installed) - known
    assert not strange or absent, strange  # what an absent package would bring is not known here
    assert {_plain(Requirement(each).name) for each in PROJECT["dependencies"]} <= names


def _plain(name):
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()
