import pytest
import torch
from torch import nn

from decaylab import audit, decay

lightning = pytest.importorskip("lightning.pytorch", reason="needs the lightning extra")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]  # its import alone takes seconds


class _Module(lightning.LightningModule):
    def __init__(self, weight_decay):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))
        self.weight_decay = weight_decay

    def training_step(self, batch, index):
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        groups = [
            {"params": [self.net[0].weight, self.net[3].weight], "weight_decay": self.weight_decay},
            {"params": [self.net[0].bias, self.net[3].bias, *self.net[1].parameters()], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=0.01)


def _fit(folder, callbacks, weight_decay=0.0, steps=8, checkpoint=None, **options):
    torch.manual_seed(1)
    data = torch.utils.data.TensorDataset(torch.randn(32, 6))
    module = _Module(weight_decay)
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=callbacks, **options,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4), ckpt_path=checkpoint)
    return module, trainer


def test_watching_leaves_the_weights_bit_equal(tmp_path):
    from decaylab.integrations import LightningCallback

    plain, _ = _fit(tmp_path, [], weight_decay=0.1, accumulate_grad_batches=2)
    watcher = LightningCallback(every=3)
    watched, _ = _fit(tmp_path, [watcher], weight_decay=0.1, accumulate_grad_batches=2)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    (log,) = watcher.logs
    assert [record["step"] for record in log.records] == [0, 3, 6]
    assert log.records[-1]["timescale/passed"] == pytest.approx(7 * 0.01 * 0.1)
    assert log.records[-1]["gradients/norm"] > 0  # Lightning gives a closure to the step


def test_a_rule_equals_the_optimizers_own_decay(tmp_path):
    from decaylab.integrations import LightningCallback

    expected, _ = _fit(tmp_path, [], weight_decay=0.1)
    found, _ = _fit(tmp_path, [LightningCallback(rule=decay.Decoupled(0.1))])
    for a, b in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_resumed_fit_goes_on_counting(tmp_path):
    from decaylab.integrations import LightningCallback

    def watcher():
        return LightningCallback(every=2, rule=decay.WeightNormControl(0.1, ratio=0.5))

    whole = watcher()
    _fit(tmp_path, [whole], steps=16)
    _, trainer = _fit(tmp_path, [watcher()], steps=8)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = watcher()
    _fit(tmp_path, [resumed], steps=16, checkpoint=tmp_path / "half.ckpt")
    assert resumed.logs[0].step == 16
    for a, b in zip(whole.logs[0].records[:4], resumed.logs[0].records[:4], strict=True):
        assert a == pytest.approx(b, rel=1e-6, nan_ok=True)
    assert [r["step"] for r in resumed.logs[0].records] == [r["step"] for r in whole.logs[0].records]


class _Interrupt(lightning.Callback):
    """An error before a batch, once."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.at:
            raise RuntimeError("the cluster is full")


def _scheduled():
    schedule = decay.DecaySchedule(kind="cosine_to_zero")
    return decay.WeightNormControl(0.3, ratio=0.5, schedule=schedule, total_steps=16)


def test_a_checkpoint_saved_after_the_fit_carries_the_rule(tmp_path):
    from decaylab.integrations import LightningCallback

    data = {"steps": 8}
    _, trainer = _fit(tmp_path, [LightningCallback(rule=_scheduled())], **data)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    saved = torch.load(tmp_path / "after.ckpt", weights_only=True)["optimizer_states"][0]
    assert saved["param_groups"][0]["decaylab/weightnormcontrol/steps"] == 8
    assert not decay.handles(trainer.optimizers[0])
    resumed = LightningCallback(rule=_scheduled())
    _fit(tmp_path, [resumed], steps=10, checkpoint=tmp_path / "after.ckpt")
    assert resumed.handles[0].restored and resumed.handles[0].steps == 10


def test_hooks_go_on_exceptions_and_a_second_fit_starts_afresh(tmp_path):
    from decaylab.integrations import LightningCallback

    watcher = LightningCallback(every=1, rule=decay.Decoupled(0.1))
    with pytest.raises(RuntimeError, match="the cluster is full"):
        _fit(tmp_path, [_Interrupt(3), watcher])
    (log,), (handle,) = watcher.logs, watcher.handles
    assert len(log.records) == 3 and not handle._optimizer._optimizer_step_pre_hooks
    _fit(tmp_path, [watcher], steps=4)
    assert len(log.records) == 3 and len(watcher.logs[0].records) == 4 and watcher.handles[0].steps == 4


class _TwoOptimizers(_Module):
    def __init__(self, kinds=("SGD", "AdamW")):
        super().__init__(0.0)
        self.automatic_optimization, self.kinds = False, kinds

    def training_step(self, batch, index):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(self.net(batch[0]).square().mean())
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        one, two = self.kinds
        first = getattr(torch.optim, one)([self.net[0].weight], lr=0.01)
        return [first, getattr(torch.optim, two)([self.net[3].weight, self.net[0].bias], lr=0.01, weight_decay=0.0)]


@pytest.mark.parametrize(
    ("kinds", "prefixes"), [(("SGD", "AdamW"), ("sgd/", "adamw/")), (("AdamW", "AdamW"), ("adamw-0/", "adamw-1/"))]
)
def test_several_optimizers_share_a_sink_without_sharing_keys(tmp_path, kinds, prefixes):
    from decaylab.integrations import LightningCallback

    class Memory(list):
        write = list.append

        def close(self):
            self.append("closed")

    memory = Memory()
    module = _TwoOptimizers(kinds)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[LightningCallback(every=4, sinks=[memory])],
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(16, 6)), batch_size=4))
    assert memory.count("closed") == 1
    found = [{key.split("/")[0] + "/" for key in record if key != "step"} for record in memory[:-1]]
    assert found == [{prefixes[0]}, {prefixes[1]}]


def test_layers_unfrozen_later_decay_by_their_roles(tmp_path):
    from lightning.pytorch.callbacks import BaseFinetuning

    from decaylab.integrations import LightningCallback

    class Unfreeze(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.net[0])

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.net[0], optimizer, lr=0.01)

    class Module(_Module):
        def configure_optimizers(self):
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.01)

    module = Module(0.0)
    watcher = LightningCallback(rule=decay.Constant(0.5))
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[Unfreeze(), watcher],
    )  # fmt: skip
    norm = module.net[0].weight.norm().item()
    data = torch.utils.data.TensorDataset(torch.randn(16, 6))
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
    (handle,) = watcher.handles
    covered = {
        id(p) for group in trainer.optimizers[0].param_groups for p in group["params"] if handle.covers(group, p)
    }
    assert covered == {id(module.net[0].weight), id(module.net[3].weight)}
    assert module.net[0].weight.norm().item() < norm / 8  # four steps of 1/2, and small updates


def test_layers_unfrozen_later_whose_role_is_unknown_are_said():
    from decaylab.integrations.installing import Installation

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    model = nn.Sequential(nn.Linear(2, 2), Gate())
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    handle = Installation(rule=decay.Decoupled(0.1)).attach(model, optimizer)
    model[1].mix.requires_grad_(True)
    optimizer.add_param_group({"params": [model[1].mix]})
    with pytest.warns(UserWarning, match=r"of shape \(2, 2\) that joined the optimizer does not decay .*not known"):
        optimizer.step()
    assert not handle.covers(optimizer.param_groups[1], model[1].mix)


def test_lightnings_wrapper_is_taken_off():
    from lightning.pytorch.core.optimizer import LightningOptimizer

    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped = LightningOptimizer(optimizer)
    handle = decay.attach(wrapped, decay.Decoupled(0.1))
    assert decay.handles(optimizer) == decay.handles(wrapped) == (handle,)
    assert all(row.by == "Decoupled" for row in audit(model, optimizer))
