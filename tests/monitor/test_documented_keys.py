"""Every key that a probe of this page gives is explained in docs/probes.md, and no other is."""

import re
from pathlib import Path

import torch
from torch import nn

from decaylab import watch
from decaylab.monitor import diagnosis, thresholds
from decaylab.params import ROLES
from decaylab.probes import PROBES

PAGE = (Path(__file__).parents[2] / "docs" / "probes.md").read_text()
TABLE = PAGE.partition("## Every key")[2].partition("## Measure any model once")[0]


def test_every_key_is_explained():
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    names = [name for name, row in PROBES.items() if "loss" not in row.needs] + ["gradient_noise"]
    tokens = torch.arange(5)

    def loss(model, batch):
        return model(batch[0]).square().mean()

    log = watch(net, optimizer, every=1, probes=names, loss_fn=loss, batches=[(tokens,)])
    for _ in range(2):
        loss(net, (tokens,)).backward()
    optimizer.step()
    keys = [key for key in log.records[0] if key != "step"]
    split = [
        re.fullmatch(rf"(?!(?:weights|gradients|update|decayed)/norm$)(.+)/({'|'.join(ROLES)})", key) for key in keys
    ]
    rows = [row.split("|")[1] for row in TABLE.splitlines() if row.startswith("| `")]
    assert {found[1] if found else key for key, found in zip(keys, split, strict=True)} == set(_codes(rows))
    assert {found[1] for found in split if found} == set(_codes(row for row in rows if row.rstrip().endswith("*")))


def _codes(cells):
    return [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]


def test_thresholds_are_those_of_the_code():
    assert f"above {thresholds.STRONG_ROTATION:.2f} radians" in PAGE
    assert (
        f"under {diagnosis.IDLE_TIMESCALES} timescales" in PAGE
        and f"less than {diagnosis.IDLE_CHANGE:.0%}".replace("%", " %") in PAGE
    )
    assert f"under {thresholds.SETTLED_TIMESCALES} timescales" in PAGE
    assert f"more than {diagnosis.FLAT_PER_TIMESCALE:.0%}".replace("%", " %") in PAGE
    assert diagnosis.ANNEALED == 1 / (1 - 1 / 5)  # a fifth
