"""DeepSeek LLM (2024, arXiv 2401.02954): learning rate and batch size from the training compute C.

The meaning of C matters: the fit counts the non-embedding FLOPs of a token with attention, M = 72 L d^2 + 12 L d l, and
C = M x tokens; the usual C = 6 N D leaves attention out and, with all parameters, counts embeddings.
"""

from __future__ import annotations

from decaylab.advice.recommendation import Recommendation, outside
from decaylab.quantities import format_count, format_number

SOURCE = "DeepSeek LLM, 2024, arXiv 2401.02954"
FITTED_ON = "1e17 to 2e19 FLOPs, AdamW, settings within 0.25 % of the best loss; checked at 1e20"
_COMPUTE = (1e17, 2e19)


def flops_per_token(layers: int, width: int, seq_len: int) -> int:
    """Return M = 72 L d^2 + 12 L d l: non-embedding training FLOPs per token, attention included.

    Examples:
        >>> flops_per_token(12, 768, 1024)
        622854144
    """
    return 72 * layers * width**2 + 12 * layers * width * seq_len


def optimal_learning_rate(compute_flops: float) -> float:
    """Return the best peak learning rate, 0.3118 C^-0.1250."""
    return float(0.3118 * compute_flops**-0.1250)


def optimal_batch_size_tokens(compute_flops: float) -> float:
    """Return the best batch size in tokens, 0.2920 C^0.3271."""
    return float(0.2920 * compute_flops**0.3271)


def recommend(*, params: int, tokens: int, seq_len: int, layers: int | None, width: int | None) -> list[Recommendation]:
    """Recommend learning rate and batch size.

    Args:
        params: Parameters of the model; used for C = 6 N D where the shape is not given.
        tokens: Tokens seen in the run.
        seq_len: Tokens per sequence.
        layers: Transformer blocks.
        width: Width of the residual stream.
    """
    if layers is not None and width is not None:
        per_token = flops_per_token(layers, width, seq_len)
        compute: float = per_token * tokens
        meaning = (
            f"C = M D = {format_number(compute, 3)}, M = 72 L d² + 12 L d l = {format_number(per_token, 3)} "
            "non-embedding FLOPs a token, attention included, as in the fit"
        )
        notes: tuple[str, ...] = ()
    else:
        compute = 6 * params * tokens
        meaning = f"C = 6 N D = {format_number(compute, 3)}, N = all {format_count(params)} parameters"
        notes = ("The fit's C is of non-embedding FLOPs with attention: --layers and --width give it.",)
    warnings = outside("C =", compute, *_COMPUTE, "FLOPs")
    batch = optimal_batch_size_tokens(compute)
    lr = optimal_learning_rate(compute)
    return [
        Recommendation(
            quantity="learning_rate",
            value=lr,
            unit="",
            method="DeepSeek",
            formula="0.3118 C^-0.1250",
            worked=meaning,
            source=SOURCE,
            fitted_on=FITTED_ON,
            warnings=warnings,
            notes=notes,
        ),
        Recommendation(
            quantity="batch_size",
            value=batch / seq_len,
            unit=f"sequences of {seq_len:,} tokens",
            method="DeepSeek",
            formula="0.2920 C^0.3271 tokens",
            worked=f"{format_count(round(batch))} tokens; C as for the learning rate",
            source=SOURCE,
            fitted_on=FITTED_ON,
            warnings=warnings,
        ),
    ]
