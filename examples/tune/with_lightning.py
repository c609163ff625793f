"""A Lightning training that `decaylab tune` can drive: the schedule ends at --max-steps, the seed decides the run."""

import argparse
import json

import lightning.pytorch as lightning
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--weight-decay", type=float, default=0.0)
parser.add_argument("--max-steps", type=int, default=3200)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", default="out-lightning")
args = parser.parse_args()

task = torch.Generator().manual_seed(0)
teacher, x = torch.randn(20, 5, generator=task), torch.randn(800, 20, generator=task)
y = (x @ teacher + 3 * torch.randn(800, 5, generator=task)).argmax(1)


class Classifier(lightning.LightningModule):
    """A small classifier."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))

    def training_step(self, batch, index):
        """Return the loss."""
        return cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        """AdamW with a cosine to 0 over the whole run."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=args.lr, weight_decay=args.weight_decay)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


lightning.seed_everything(args.seed, verbose=False)
model = Classifier()
loader = DataLoader(TensorDataset(x[:300], y[:300]), batch_size=32, shuffle=True)
trainer = lightning.Trainer(
    max_steps=args.max_steps, max_epochs=-1, default_root_dir=args.out, accelerator="cpu", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(model, loader)
with torch.no_grad():
    print(json.dumps({"loss": cross_entropy(model.net(x[300:]), y[300:]).item()}))
