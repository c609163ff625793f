import pytest
import torch
from torch import nn

from decaylab import decay

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
