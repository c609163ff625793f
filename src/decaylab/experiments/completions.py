"""What language models said: a row a setting, with its result over the seeds and the prompt that one seed completed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from decaylab.experiments.quantity import Quantity
from decaylab.experiments.statistics import t_interval

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results


def completions(by: Sequence[str], quantity: Quantity) -> Callable[[Results], pd.DataFrame]:
    """Give one row for each setting of which a run is done, ready for a ``Table``.

    Args:
        by: Labels that tell the settings apart: with them there is one run a seed.
        quantity: The number beside the text, such as the final validation loss.

    Returns:
        A function of the results. Its columns: those of ``by``; value, value_low and value_high, the mean over the runs
        that are done with its 95 % t interval (NaN for a single one); seeds, how many these are; diverged, how many
        are not among them for that reason; seed, the first one that has a completion, and its ``completion``.
    """

    def data(results: Results) -> pd.DataFrame:
        import pandas as pd

        rows = []
        for setting in results.runs[list(by)].drop_duplicates().to_dict("records"):
            where = {str(name): value for name, value in setting.items()}
            runs = results.by_seed(where)
            diverged = [seed for seed, run in runs.items() if results.diverged(run)]
            numbers = quantity.by_seed(results, where)
            values = [v for seed, v in numbers.items() if seed not in diverged and not math.isnan(v)]
            if not values and not diverged:
                continue
            mean, low, high = t_interval(values)
            said = {seed: results.summaries.get(run, {}).get("completion") for seed, run in runs.items()}
            seed = next((seed for seed, text in said.items() if text is not None), None)
            several = len(values) > 1
            rows.append(
                {
                    **where,
                    "value": mean,
                    "value_low": low if several else math.nan,
                    "value_high": high if several else math.nan,
                    "seeds": len(values),
                    "diverged": len(diverged),
                    "seed": seed if seed is not None else "",
                    "completion": said[seed] if seed is not None else "",
                }
            )
        names = [*by, "value", "value_low", "value_high", "seeds", "diverged", "seed", "completion"]
        return pd.DataFrame(rows, columns=names)

    return data
