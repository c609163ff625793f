"""Step Law (Li et al. 2025, arXiv 2503.04715): learning rate from parameters and tokens, batch size from tokens."""

from __future__ import annotations

from decaylab.advice.recommendation import Recommendation, outside
from decaylab.quantities import format_count

SOURCE = "Step Law, Li et al. 2025, arXiv 2503.04715"
FITTED_ON = "3,700 models up to 1B parameters and 100B tokens, AdamW, final learning rate held at 1e-5"
_PARAMS = (0.0, 1.1e9)
_TOKENS = (0.0, 100e9)


def optimal_learning_rate(params_non_embedding: float, tokens: float) -> float:
    """Return the best peak learning rate, 1.79 N^-0.713 D^0.307."""
    return float(1.79 * params_non_embedding**-0.713 * tokens**0.307)


def optimal_batch_size_tokens(tokens: float) -> float:
    """Return the best batch size in tokens, 0.58 D^0.571."""
    return float(0.58 * tokens**0.571)


def recommend(*, params: int, tokens: int, seq_len: int, layers: int | None, width: int | None) -> list[Recommendation]:
    """Recommend learning rate and batch size.

    Args:
        params: Parameters of the model, taken where the shape is not given.
        tokens: Tokens seen in the run.
        seq_len: Tokens per sequence.
        layers: Transformer blocks.
        width: Width of the residual stream; 12 L d^2 are the non-embedding parameters.
    """
    if layers is not None and width is not None:
        count, meaning = 12 * layers * width**2, "non-embedding parameters, 12 L d²"
        notes: tuple[str, ...] = ()
    else:
        count, meaning = params, "all parameters"
        notes = ("The fit's N is without embeddings: --layers and --width give it.",)
    warnings = outside("N =", count, *_PARAMS, "parameters") + outside("D =", tokens, *_TOKENS, "tokens")
    batch = optimal_batch_size_tokens(tokens)
    return [
        Recommendation(
            quantity="learning_rate",
            value=optimal_learning_rate(count, tokens),
            unit="",
            method="Step Law",
            formula="1.79 N^-0.713 D^0.307",
            worked=f"N = {format_count(count)} ({meaning}), D = {format_count(tokens)} tokens",
            source=SOURCE,
            fitted_on=FITTED_ON,
            warnings=warnings,
            notes=notes,
        ),
        Recommendation(
            quantity="batch_size",
            value=batch / seq_len,
            unit=f"sequences of {seq_len:,} tokens",
            method="Step Law",
            formula="0.58 D^0.571 tokens",
            worked=f"{format_count(round(batch))} tokens",
            source=SOURCE,
            fitted_on=FITTED_ON,
            warnings=outside("D =", tokens, *_TOKENS, "tokens"),
        ),
    ]
