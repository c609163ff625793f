"""Recorded norms go through their file as they were, and a file that is none is refused in a line."""

import pytest
import torch
from safetensors.torch import save_file

from decaylab.errors import DecaylabError
from decaylab.tensors.norm_trajectory import NormTrajectory

NORMS = torch.tensor([[1.0, 2.0], [1.5, 0.0], [3.0, 2.5]])
TRAJECTORY = NormTrajectory(NORMS, ("a", "b"), ((2, 3), (4,)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_file_gives_back_what_was_saved(tmp_path, dtype):
    NormTrajectory(NORMS.to(dtype), *(TRAJECTORY.names, TRAJECTORY.shapes)).save(tmp_path / "norms.safetensors")
    found = NormTrajectory.load(tmp_path / "norms.safetensors")
    assert torch.equal(found.norms, NORMS.to(dtype)) and found.norms.dtype == dtype
    assert (found.names, found.shapes, found.steps) == (("a", "b"), ((2, 3), (4,)), 3)
    assert [path.name for path in tmp_path.iterdir()] == ["norms.safetensors"]


def test_select_follows_the_names():
    found = TRAJECTORY.select(["b", "a"])
    assert found.norms.tolist() == [[2.0, 1.0], [0.0, 1.5], [2.5, 3.0]] and found.shapes == ((4,), (2, 3))
    with pytest.raises(DecaylabError, match="'aa'"):
        TRAJECTORY.select(["aa"])


@pytest.mark.parametrize(
    ("norms", "names", "words"),
    [
        (torch.ones(3), ("a", "b"), "shape"),
        (torch.ones(3, 3), ("a", "b"), "shape"),
        (torch.ones(3, 2), ("a", "a"), "twice"),
        (-torch.ones(3, 2), ("a", "b"), "not negative"),
        (torch.full((3, 2), torch.nan), ("a", "b"), "finite"),
    ],
)
def test_what_is_no_trajectory_is_refused(norms, names, words):
    with pytest.raises(DecaylabError, match=words):
        NormTrajectory(norms, names, ((2, 3), (4,)))


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    for name in ("missing", "text", "tensors", "whole numbers"):
        path = tmp_path / f"{name}.safetensors"
        if name == "text":
            path.write_text("norms")
        elif name != "missing":
            about = {"names": '["a", "b"]', "shapes": "[[2, 3], [4]]"} if name == "whole numbers" else None
            save_file({"norms": torch.ones(3, 2, dtype=torch.int64)}, path, metadata=about)
        with pytest.raises(DecaylabError, match="norms of a training") as caught:
            NormTrajectory.load(path)
        assert "\n" not in str(caught.value)
