"""Public names of the packages."""

import importlib
import pkgutil
from contextlib import suppress
from types import ModuleType

import pytest

import decaylab
from decaylab.errors import DecaylabError

PACKAGES = ["decaylab", *(m.name for m in pkgutil.walk_packages(decaylab.__path__, "decaylab.") if m.ispkg)]
MODULES_ON_PURPOSE = {("decaylab.data", "sampling")} | {
    ("decaylab.advice", law) for law in ("deepseek", "power_lines", "step_law", "timescale")
}


@pytest.mark.parametrize("name", PACKAGES)
def test_no_public_name_is_hidden_by_a_module_of_that_name(name):
    # Loading a module puts it into its package, in the place of a function that is loaded on first use.
    package = importlib.import_module(name)
    public = set(getattr(package, "__all__", []))
    for module in pkgutil.iter_modules(package.__path__):
        if module.name in public:
            importlib.import_module(f"{name}.{module.name}")
    hidden = set()
    for each in public:
        with suppress(DecaylabError):  # a name that needs an extra which is not installed
            hidden |= {each} if isinstance(getattr(package, each), ModuleType) else set()
    assert {(name, each) for each in hidden} <= MODULES_ON_PURPOSE
