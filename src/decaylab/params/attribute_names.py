"""Roles of bare parameters from their shape and the words of their names.

A name is read as a compound is: split at underscores, capitals and digits, the last known word says what the thing is
(``mask_token`` is a token, ``token_mask`` a mask, ``gate_up_proj_bias`` a bias). Words are compared whole, so
``unbiased`` is no bias. A word for something that multiplies an input is believed only where the shape agrees: a vector
is never a matrix.
"""

from __future__ import annotations

import functools
import re
from typing import Literal

from torch import Tensor

NamedRole = Literal["matrix", "embedding", "bias", "scalar"]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# A weight that is called by its letter in the equation: W, w1, wq, Wqkv, W_in, hada_w1_a; qkvo_w, but not rel_pos_w.
_LETTER_WEIGHT = re.compile(r"[wW](?:qkv|kv|out|in|[qkvoi]|\d+)?(?:_\w+)?|\w*_[wW]\d+(?:_\w+)?")
_ENDS_IN_W = re.compile(r"\w+_[wW]")
_LETTER_BIAS = re.compile(r"b\d*(?:_\w+)?")


def word_set(text: str) -> frozenset[str]:
    """Words written with spaces between them, as a set."""
    return frozenset(text.split())


_BIAS = word_set("bias biases shift shifts offset offsets translate translation intercept sink sinks")
_BIAS_VECTOR = word_set("base b loc")
# Learned tokens, positions, latents and prompts are looked up or added, never multiplied with an input.
_EMBEDDING = word_set(
    "embed embeds embedding embeddings emb embs token tokens pos position positions positional encoding encodings enc "
    "ape rel latent latents query queries prompt prompts prefix probe probes pointer newline separator sep register "
    "registers slot slots begin end codebook codebooks prototype prototypes centroid centroids memory memories table "
    "wte wpe cls bos eos sos"
)
# Multipliers, exponents, temperatures and step sizes, whatever their shape: one a head, a channel or an entry.
_SCALAR = word_set(
    "scale scales scaling scaler scalers scalar scalars gain gains gamma gammas beta betas alpha alphas lambda lambdas "
    "lam temperature temp tau sigma sigmas magnitude magnitudes slope slopes threshold thresholds multiplier "
    "multipliers std logstd var logvar variance decay decays mask masks ratio exponent curvature radius margin const "
    "constant log dt freq freqs frequency frequencies size sizes rate rates strength eps epsilon eta rho nu logit "
    "logits"
)
# The same where the shape is a vector's; a tensor of that name may be anything (a gate's matrix, a mixing matrix).
_SCALAR_VECTOR = word_set(
    "gate gates gating residual skip mix mixing factor factors step steps power momentum recurrent first a d g s "
    "coef coefs coeff coeffs coefficient coefficients sqk suv sz"
)
_MATRIX = word_set(
    "weight weights kernel kernels proj projs projection projections matrix matrices linear dense fc conv expert "
    "experts filter filters router qkv kv fn basis lora mlp ffn"
)


@functools.cache
def words(name: str) -> tuple[str, ...]:
    """Split a name at underscores, capitals and digits into lower-case words.

    Examples:
        >>> words("layer_scale_1"), words("A_log"), words("gateUpProj")
        (('layer', 'scale'), ('a', 'log'), ('gate', 'up', 'proj'))
    """
    return tuple(word.lower() for word in _WORD.findall(name))


def is_vector(parameter: Tensor) -> bool:
    """Tell whether at most one dimension is above 1, so that the tensor can only multiply or add entry by entry."""
    return sum(size > 1 for size in parameter.shape) <= 1


def named_role(attribute: str, parameter: Tensor) -> tuple[NamedRole, str] | None:
    """Return role and reason as far as name and shape say it, or None.

    Args:
        attribute: The parameter's name on its module.
        parameter: The tensor; only its shape is read.
    """
    vector = is_vector(parameter)
    found = _last_known(words(attribute), vector)
    if found in (None, "embedding"):  # W_pos and b_enc are a weight and a bias, whatever they are for
        if _LETTER_BIAS.fullmatch(attribute):
            found = "bias"
        elif _LETTER_WEIGHT.fullmatch(attribute) or (found is None and _ENDS_IN_W.fullmatch(attribute)):
            found = "matrix"
    if found == "matrix" and vector and not _is_low_rank(attribute, parameter):
        return "scalar", "a vector, which multiplies entry by entry"
    return None if found is None else (found, _REASONS[found])


def _is_low_rank(attribute: str, parameter: Tensor) -> bool:
    """Tell whether this is a factor of a LoRA, which at rank 1 has a vector's shape and is a matrix all the same."""
    found = words(attribute)
    return parameter.ndim == 2 and "lora" in found and found[-1] in ("a", "b", "down", "up")


_REASONS: dict[NamedRole, str] = {
    "matrix": "multiplied with an input",
    "embedding": "a learned token or position",
    "scalar": "a multiplier",
    "bias": "added to its output",
}


def _last_known(found: tuple[str, ...], vector: bool) -> NamedRole | None:
    for word in reversed(found):
        if len(word) == 1 and len(found) > 1 and not (word == "g" and vector):
            continue  # lambda_q, bias_u: a letter tells two of a kind apart; weight_g is weight norm's gain
        if word in _BIAS or (vector and word in _BIAS_VECTOR):
            return "bias"
        if word in _EMBEDDING:
            return "embedding"
        if word in _SCALAR or (vector and word in _SCALAR_VECTOR):
            return "scalar"
        if word in _MATRIX:
            return "matrix"
    return None
