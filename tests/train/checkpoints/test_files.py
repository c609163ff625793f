import pytest
import torch
from torch import nn

from decaylab.config.schema import LanguageRun
from decaylab.errors import DecaylabError
from decaylab.train.checkpoints import files as checkpoint
from decaylab.train.checkpoints import layout as run_folder


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False), nn.BatchNorm1d(3)
        self.b.weight = self.a.weight


def test_round_trip_with_tied_weights_and_buffers(tmp_path):
    one, two = Tied(), Tied()
    one.norm.running_mean.fill_(7.0)
    checkpoint.save(
        tmp_path / "checkpoint-3", LanguageRun(), checkpoint.model_tensors(one), {"number": 3, "tensor": torch.ones(2)}
    )
    checkpoint.load_model_tensors(two, checkpoint.load_weights(tmp_path / "checkpoint-3"), "it")
    for (name, x), y in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(x, y), name
    assert checkpoint.load_state(tmp_path / "checkpoint-3")["number"] == 3
    assert checkpoint.load_config(tmp_path / "checkpoint-3") == LanguageRun()


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save(tmp_path / "checkpoint-1", LanguageRun(), checkpoint.model_tensors(Tied()), {"f": lambda: 0})
    assert list(tmp_path.iterdir()) == []


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 20, 3):
        checkpoint.save(
            run_folder.checkpoint_folder(tmp_path, step), LanguageRun(), checkpoint.model_tensors(Tied()), {}
        )
    run_folder.prune(tmp_path)
    assert [step for step, _ in run_folder.checkpoints(tmp_path)] == [20, 3]


def test_damage_names_the_file_and_what_was_expected(tmp_path):
    folder = tmp_path / "checkpoint-1"
    with pytest.raises(DecaylabError, match=r"weights\.safetensors"):
        checkpoint.load_weights(folder)
    checkpoint.save(folder, LanguageRun(), checkpoint.model_tensors(Tied()), {})
    for name in ("weights.safetensors", "state.pt", "config.json"):
        (folder / name).write_bytes(b"{broken")
    for load in (checkpoint.load_weights, checkpoint.load_state, checkpoint.load_config):
        with pytest.raises(DecaylabError, match="expected"):
            load(folder)


def test_nothing_that_executes_is_loaded(tmp_path):
    folder = tmp_path / "checkpoint-1"
    checkpoint.save(folder, LanguageRun(), checkpoint.model_tensors(Tied()), {})

    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"x": Evil()}, folder / "state.pt")
    with pytest.raises(DecaylabError):
        checkpoint.load_state(folder)


def test_weights_of_another_model_are_refused():
    with pytest.raises(DecaylabError, match="other settings"):
        checkpoint.load_model_tensors(Tied(), {"a.weight": torch.zeros(1)}, "it")


@pytest.mark.parametrize(
    "content", [b"{", b"[1]", b"\xff\xfe", b'{"kind": "vision", "x": 1}', b'{"kind": "vision", "epochs": 0}']
)
def test_damaged_settings_are_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(
        DecaylabError, match=r"config.json is damaged .*; expected the run's settings as JSON"
    ) as caught:
        checkpoint.load_config(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_damaged_state_is_named_in_one_short_line(tmp_path):
    checkpoint.save(tmp_path / "checkpoint-1", LanguageRun(), checkpoint.model_tensors(Tied()), {})
    path = tmp_path / "checkpoint-1" / "state.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DecaylabError, match=r"state.pt is damaged .*; expected a torch archive: remove") as caught:
        checkpoint.load_state(tmp_path / "checkpoint-1")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200 + 2 * len(str(path))
