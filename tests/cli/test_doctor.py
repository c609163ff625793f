"""``decaylab doctor`` on checkpoints that other programs made."""

import json
import math
import pickle

import pytest
import torch
from torch import nn

from decaylab.cli import main
from decaylab.cli.json_output import SCHEMAS


def _doctor(capsys, *words):
    code = main(["doctor", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def _report(capsys, *words):
    code, out, error = _doctor(capsys, *words, "--json")
    assert code == 0, error
    found = json.loads(out)
    assert set(found) == {"schema", *SCHEMAS["doctor"][1]}
    return found


@pytest.fixture(scope="module")
def trainer_folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    out = tmp_path_factory.mktemp("trainer") / "out"
    config = transformers.GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)} for _ in range(16)]
    arguments = transformers.TrainingArguments(
        output_dir=str(out), max_steps=9, per_device_train_batch_size=2, save_steps=3, logging_steps=2,
        learning_rate=1e-2, weight_decay=0.1, warmup_steps=2, report_to="none", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    transformers.Trainer(model=model, args=arguments, train_dataset=rows).train()
    return out, model


def test_a_folder_of_transformers(trainer_folder, capsys):
    out, model = trainer_folder
    found = _report(capsys, out)
    assert found["kind"] == "transformers" and [c["step"] for c in found["checkpoints"]] == [3, 6, 9]
    # the linear schedule with a warm-up of 2, exact between the logged points
    rates = [1e-2 * (t / 2 if t < 2 else (9 - t) / 7) for t in range(9)]
    rows = {t["name"]: t for t in found["tensors"]}
    assert set(rows) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        decayed = parameter.dim() > 1
        assert rows[name]["weight_decay"] == (0.1 if decayed else 0.0)
        assert rows[name]["timescales"] == pytest.approx(0.1 * sum(rates) if decayed else 0.0, rel=1e-6)
        assert rows[name]["norms"][-1] == pytest.approx(float(parameter.detach().norm()), rel=1e-5)
    taken = 1 - math.prod(1 - 0.1 * lr for lr in rates)
    assert rows["transformer.h.0.mlp.c_fc.weight"]["removed"] == pytest.approx(taken, rel=1e-6)
    assert rows["transformer.wte.weight"]["role"] == "embedding" and rows["transformer.ln_f.weight"]["role"] == "norm"
    # the rotation of the last update, as its own moments give it
    assert 0 < rows["transformer.h.0.mlp.c_fc.weight"]["rotation"] < 1
    assert found["settings"]["schedule"]["kind"] == "linear" and "close to idle" in " ".join(found["explain"])


def test_words_for_a_reader(trainer_folder, capsys):
    code, out, error = _doctor(capsys, trainer_folder[0])
    assert code == 0 and "checkpoint 3 of 3" in error
    assert "What decay did" in out and "three seeds each" in out and "timescales have passed" in out


def test_without_the_order_of_the_weights_shapes_do(trainer_folder, capsys, monkeypatch):
    monkeypatch.setattr("decaylab.monitor.doctor_model._from_config", lambda checkpoint: None)
    found = _report(capsys, trainer_folder[0] / "checkpoint-9")
    rows = {t["name"]: t for t in found["tensors"]}
    assert rows["transformer.h.1.attn.c_attn.weight"]["weight_decay"] == 0.1
    assert rows["transformer.h.1.ln_1.bias"]["weight_decay"] == 0 and rows["transformer.ln_f.weight"]["role"] == "norm"
    assert any("by shape alone" in text for text in found["assumed"])


class Small(nn.Module):
    """A tied language model with a buffer, as nanoGPT's is."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(8, 4)
        self.ln = nn.LayerNorm(4)
        self.fc = nn.Linear(4, 4)
        self.lm_head = nn.Linear(4, 8, bias=False)
        self.lm_head.weight = self.wte.weight
        self.register_buffer("bias", torch.tril(torch.ones(4, 4)))

    def forward(self, x):
        return self.lm_head(self.fc(self.ln(self.wte(x))))


def _trained(steps, make):
    torch.manual_seed(0)
    model = Small()
    optimizer = make(model)
    x = torch.randint(0, 8, (16,))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x.roll(1)).backward()
        optimizer.step()
    return model, optimizer


def _two_groups(model, **settings):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.5}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-2, **settings)


def _nanogpt_file(path, steps=6, **settings):
    model, optimizer = _trained(steps, _two_groups)
    config = {"learning_rate": 1e-2, "min_lr": 1e-3, "warmup_iters": 2, "lr_decay_iters": 8, "max_iters": 8}
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "model_args": {}, "iter_num": steps}
    torch.save(content | {"best_val_loss": torch.tensor(1.0), "config": config | settings}, path)
    return model


def test_a_file_of_nanogpt(tmp_path, capsys):
    model = _nanogpt_file(tmp_path / "ckpt.pt")
    found = _report(capsys, tmp_path / "ckpt.pt")
    rows = {t["name"]: t for t in found["tensors"]}
    assert found["kind"] == "nanoGPT" and set(rows) == {"wte.weight", "ln.weight", "ln.bias", "fc.weight", "fc.bias"}
    cosine = [1e-3 + 0.5 * (1 + math.cos(math.pi * (t - 2) / 6)) * 9e-3 for t in range(2, 6)]
    rates = [1e-2 * 1 / 3, 1e-2 * 2 / 3, *cosine]
    assert rows["fc.weight"]["timescales"] == pytest.approx(0.5 * sum(rates), rel=1e-6)
    assert rows["ln.weight"]["weight_decay"] == 0 and found["total_steps"] == 8
    # the length of AdamW's last update at right angles, by the optimizer's own arithmetic
    state = torch.load(tmp_path / "ckpt.pt", weights_only=True)["optimizer"]["state"][1]
    update = (state["exp_avg"] / (1 - 0.9**6)) / ((state["exp_avg_sq"] / (1 - 0.999**6)).sqrt() + 1e-8)
    w = model.fc.weight.detach()
    across = update - (update * w).sum() / (w * w).sum() * w
    assert rows["fc.weight"]["rotation"] == pytest.approx(rates[-1] * float(across.norm() / w.norm()), rel=1e-4)


def test_the_users_model_gives_names_and_roles(tmp_path, capsys, monkeypatch):
    _nanogpt_file(tmp_path / "ckpt.pt")
    (tmp_path / "small_model.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Small(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.wte = nn.Embedding(8, 4)\n        self.ln = nn.LayerNorm(4)\n        self.fc = nn.Linear(4, 4)\n"
        "        self.lm_head = nn.Linear(4, 8, bias=False)\n        self.lm_head.weight = self.wte.weight\n"
        "        self.register_buffer('bias', torch.ones(4, 4))\n"
    )
    found = _report(capsys, tmp_path / "ckpt.pt", "--load", f"{tmp_path}/small_model.py:Small")
    assert {t["name"]: t["role"] for t in found["tensors"]}["wte.weight"] == "embedding"
    code, _, error = _doctor(capsys, tmp_path / "ckpt.pt", "--load", "torch.nn:Identity")
    assert code == 2 and error.startswith("decaylab: ") and error.count("\n") == 1


def test_checkpoints_of_lightning(tmp_path, capsys):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch), batch.roll(1))

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.5, weight_decay=0.2)
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    keep = lightning.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    trainer = lightning.Trainer(
        max_steps=6, accelerator="cpu", logger=False, callbacks=[keep], enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.randint(0, 8, (48,)), batch_size=8))
    found = _report(capsys, tmp_path)
    rates = [0.05 * (1 + math.cos(math.pi * t / 8)) for t in range(6)]
    assert found["kind"] == "Lightning" and [c["step"] for c in found["checkpoints"]] == [2, 4, 6]
    rows = {t["name"]: t for t in found["tensors"]}
    assert rows["net.fc.weight"]["timescales"] == pytest.approx(0.2 / 0.5 * sum(rates), rel=1e-5)
    assert "norms, biases or scalars" in " ".join(found["change"]) and found["optimizer"] == "sgd"


def test_adams_l2_has_no_timescale(tmp_path, capsys):
    model, optimizer = _trained(3, lambda m: torch.optim.Adam(m.parameters(), lr=1e-3, weight_decay=0.1))
    torch.save(
        {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, tmp_path / "a.pt"
    )
    found = _report(capsys, tmp_path / "a.pt")
    assert found["checkpoints"][0]["step"] == 3 and all(t["timescales"] is None for t in found["tensors"])
    assert "L2 penalty" in " ".join(found["did"]) and "Use AdamW" in " ".join(found["change"])


def test_decay_below_the_spacing_of_bfloat16_is_said(tmp_path, capsys):
    torch.manual_seed(0)
    model = nn.Linear(8, 8, bias=False).bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    model(torch.ones(1, 8, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "b.pt")
    found = _report(capsys, tmp_path / "b.pt")
    assert found["tensors"][0]["lost"] == "wholly" and "bfloat16" in " ".join(found["did"])
    assert "float32 masters" in " ".join(found["change"])


def test_no_decay_is_said(tmp_path, capsys):
    model, optimizer = _trained(2, lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=0.0))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "n.pt")
    found = _report(capsys, tmp_path / "n.pt")
    assert "No weight decay was in force" in found["did"][0]


class Program:
    """What a pickle would run."""

    def __reduce__(self):
        return (print, ("executed",))


def _make(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


_WEIGHTS = {"w": torch.ones(2, 2)}
_STATE = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "weight_decay": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "is damaged"),
        (b"not a checkpoint", "is damaged"),
        (pickle.dumps(Program()), "c.pt is "),
        ({"model": _WEIGHTS, "optimizer": {"state": {}, "param_groups": Program()}, "iter_num": 1}, "is refused"),
        ({"epoch": 3}, "does not hold a state dict"),
        ({"model": _WEIGHTS, "optimizer": [1, 2], "iter_num": 1}, "where a state is expected"),
        ({"model": _WEIGHTS, "optimizer": {"state": {}}, "iter_num": 1}, "no param_groups"),
        ({"model": _WEIGHTS, "optimizer": _STATE, "iter_num": 10**15}, "more than 20,000,000"),
        ({"model": _WEIGHTS, "optimizer": _STATE, "global_step": torch.tensor(math.nan)}, "is no number of steps"),
        (
            {"model": _WEIGHTS, "optimizer": {"state": {}, "param_groups": [{"lr": "fast", "params": [0]}]}, "step": 1},
            "lr of a param group",
        ),
        ({"model": {"w": torch.ones(1).expand(10**6, 10**6)}, "iter_num": 1}, "claims more values"),
        ({"model": _WEIGHTS}, "say it with --steps"),
    ],
)
def test_bad_files_are_one_line(content, said, tmp_path, capsys):
    _make(tmp_path / "c.pt", content)
    code, out, error = _doctor(capsys, tmp_path / "c.pt")
    assert code == 2 and error.startswith("decaylab: ") and error.count("\n") == 1, error
    assert said in error and "executed" not in out


def test_missing_paths_are_one_line(tmp_path, capsys):
    for words, said in (((tmp_path / "no",), "there is no file or folder"), ((tmp_path,), "holds no checkpoint")):
        code, _, error = _doctor(capsys, *words)
        assert code == 2 and said in error and error.count("\n") == 1


def test_a_damaged_one_among_several_is_left_out_and_said(tmp_path, capsys):
    _nanogpt_file(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"cut short")
    found = _report(capsys, tmp_path)
    assert len(found["checkpoints"]) == 1 and any("b.pt is left out" in text for text in found["assumed"])


def test_checkpoints_of_two_models_are_refused(tmp_path, capsys):
    _nanogpt_file(tmp_path / "a.pt")
    torch.save({"model": {"wte.weight": torch.ones(3, 3)}, "iter_num": 9}, tmp_path / "b.pt")
    code, _, error = _doctor(capsys, tmp_path)
    assert code == 2 and "of different models" in error


def test_weights_alone_still_show_their_norms(tmp_path, capsys):
    torch.save({"model": _WEIGHTS, "iter_num": 4}, tmp_path / "w.pt")
    found = _report(capsys, tmp_path / "w.pt")
    assert found["tensors"][0]["norms"] == [2.0] and "Without the optimizer's state" in found["did"][0]


def _damaged(content, path, value):
    """Put a value deep into a copy of a checkpoint's content."""
    copied = {key: dict(part) if isinstance(part, dict) else part for key, part in content.items()}
    copied["optimizer"] = {"state": dict(content["optimizer"]["state"]), "param_groups": [
        dict(group) for group in content["optimizer"]["param_groups"]
    ]}  # fmt: skip
    *way, last = path
    place = copied
    for key in way:
        place = place[key]
    place[last] = value
    return copied


@pytest.mark.parametrize(
    "path, value",
    [
        (("optimizer", "state", 1), b"bytes"),
        (("optimizer", "state", 1), {"step": torch.ones(3), "exp_avg": torch.ones(4, 4).to_sparse()}),
        (("optimizer", "param_groups", 0, "betas"), (5.0, 5.0)),
        (("optimizer", "param_groups", 0, "params"), [[1], [2]]),
        (("optimizer", "param_groups", 0, "weight_decay"), 1e300),
        (("optimizer", "param_groups", 0, "weight_decay"), -0.1),
        (("optimizer", "param_groups", 0, "lr"), torch.ones(2)),
        (("config", "warmup_iters"), -1),
        (("config", "min_lr"), -1e300),
        (("config", "learning_rate"), [1]),
        (("config", "max_iters"), "many"),
        (("lr_scheduler",), torch.ones(2)),
        (("iter_num",), True),
    ],
)
def test_odd_values_anywhere_are_one_line_or_an_answer(path, value, tmp_path, capsys):
    _nanogpt_file(tmp_path / "c.pt")
    torch.save(_damaged(torch.load(tmp_path / "c.pt", weights_only=True), path, value), tmp_path / "c.pt")
    code, out, error = _doctor(capsys, tmp_path / "c.pt")
    assert (code == 0 and out and not error) or (code == 2 and error.count("\n") == 1), (code, error)


@pytest.mark.parametrize(
    "change", [{"n_layer": 10**9}, {"num_labels": 10**9}, {"architectures": ["os"]}, {"n_embd": "wide"}, {"n_head": 0}]
)
def test_hostile_settings_of_a_model_do_no_harm(change, trainer_folder, tmp_path, capsys):
    source = trainer_folder[0] / "checkpoint-9"
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    found = _report(capsys, tmp_path)
    assert any("by shape alone" in text for text in found["assumed"])  # no model was made from such settings
    assert {t["name"]: t["weight_decay"] for t in found["tensors"]}["transformer.h.0.mlp.c_fc.weight"] == 0.1


def test_weights_that_are_not_finite_are_said(tmp_path, capsys):
    _nanogpt_file(tmp_path / "c.pt")
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    content["model"]["fc.weight"][0, 0] = math.nan
    torch.save(content, tmp_path / "c.pt")
    found = _report(capsys, tmp_path / "c.pt")
    assert found["verdict"] == "not finite" and "not finite" in found["did"][0]


def test_a_folder_in_parts_and_an_adapter(tmp_path, capsys):
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    config = transformers.GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "parts", max_shard_size="2KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    found = _report(capsys, tmp_path / "parts", "--steps", "5")
    assert len(found["tensors"]) == len(list(model.parameters()))
    lora = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    optimizer = torch.optim.AdamW([p for p in lora.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1)
    lora(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    lora.save_pretrained(tmp_path / "lora")
    torch.save(optimizer.state_dict(), tmp_path / "lora" / "optimizer.pt")
    found = _report(capsys, tmp_path / "lora")
    assert [(t["role"], t["weight_decay"]) for t in found["tensors"]] == [("matrix", 0.1)] * 2
