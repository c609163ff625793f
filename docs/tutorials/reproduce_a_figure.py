# %% [markdown]
# # Reproduce a figure
#
# A figure of the paper is one declaration with three budgets. `smoke` takes seconds and proves that the path works, `mini`
# minutes on a laptop, `paper` has the paper's own sizes.

# %%
from decaylab import studies

experiment = studies.get("fig5")
print(experiment.title)
for claim in experiment.claims:
    print("-", claim.sentence)

# %%
runs = experiment.runs("smoke")
print(len(runs), "runs at smoke,", len(experiment.runs("mini")), "at mini")
print(experiment.recipe["mini"])

# %% [markdown]
# From the command line: `decaylab reproduce fig5 --budget mini` trains what is missing and writes the page with charts and
# verdicts; Ctrl-C stops it cleanly and the same command goes on. Here, the smallest budget into a folder of this notebook:

# %%
import tempfile
from pathlib import Path

from decaylab.cli import main

folder = Path(tempfile.mkdtemp())
main(["reproduce", "fig10", "--budget", "mini", "--store", str(folder / "runs.db"), "--out", str(folder / "page")])
sorted(path.name for path in (folder / "page").iterdir())

# %% [markdown]
# `fig10` needs no training: it is a computed illustration. The verdicts behind every published figure stand in
# [the results](../results.md).
