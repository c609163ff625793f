"""The page about one's own components names what there is."""

import re
from pathlib import Path

from decaylab.components import Architecture, ImageData, OptimizerRow, TextData
from decaylab.references import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own.md").read_text()


def test_every_reference_of_the_page_leads_somewhere():
    found = set(re.findall(r"(examples/own/\w+\.py:\w+|torch\.optim:\w+)", PAGE))
    assert len(found) >= 5
    for name in found:
        assert callable(load(str(ROOT / name) if name.startswith("examples") else name)), name
    assert {row.__name__ for row in (OptimizerRow, Architecture, ImageData, TextData)} <= set(
        re.findall(r"`(\w+)`", PAGE)
    )


def test_every_example_stands_on_the_page():
    for path in (ROOT / "examples" / "own").glob("*.py"):
        assert path.stem in ("probe", "optimizer") or f"examples/own/{path.name}" in PAGE, path.name
