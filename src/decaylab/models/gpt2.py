"""How is a GPT-2 built and evaluated: the decoder-only transformer of every language figure.

Shapes: B sequences, T positions, D width, H heads, K = D / H, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decaylab.errors import DecaylabError

Attention = Literal["auto", "flash", "math"]
Activation = Literal["gelu", "gelu_tanh", "relu"]

Norm = Callable[[int], nn.LayerNorm]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
# On a CPU the fused kernel's backward costs more than writing the T x T probabilities, up to about these contexts.
_MATH_CONTEXT_ON_CPU = {torch.bfloat16: 512, torch.float16: 512, torch.float32: 64, torch.float64: 64}
# Nearly half of the T x T probabilities are zeros above the diagonal. Blocks of so many rows, but no more blocks than
# these, leave out most of them; smaller ones cost more in calls than they save.
_ROWS, _MOST_PARTS = 128, 4


class GPT(nn.Module):
    """The GPT-2 decoder (Radford et al. 2019), with the switches that the weight-decay experiments turn.

    Plain (pre-norm) block:     h = h + attn(ln_1(h));             h = h + mlp(ln_2(h))
    With ``branch_norm=True``:  h = h + ln_3(attn(ln_1(h)));       h = h + ln_4(mlp(ln_2(h)))

    With ``branch_norm`` and ``qk_norm`` (and ReLU, which is homogeneous) every hidden matrix is followed by a
    normalisation that takes its scale out, so the function depends on the directions of these matrices only: weight
    decay on them acts through the effective learning rate alone.

    Weights are drawn from N(0, ``init_std``^2); the two projections of a block that end in the residual stream from
    N(0, ``init_std``^2 / (2 ``num_layers``)), as GPT-2 does to keep the stream's variance at initialisation.

    Parameter names follow the usual GPT-2 ones (``transformer.wte``, ``transformer.h.0.attn.c_attn``, ``lm_head`` ...),
    so that filters by substring written for other GPT-2 code select the same parameters.

    Args:
        vocab_size: Number of token ids, V. GPT-2 has 50,257; 50,304 (a multiple of 64) is faster on a GPU.
        context: Longest sequence, the number of learned positions.
        num_layers: Number of blocks.
        num_heads: Attention heads; divides ``width``.
        width: Size of the residual stream, D.
        bias: Whether linear maps and LayerNorms have biases. The paper trains without.
        tied: Whether the output head is the token embedding (one parameter with two uses).
        init_std: Standard deviation of the initial weights.
        activation: ``"gelu"`` (exact), ``"gelu_tanh"`` (the released GPT-2 checkpoints) or ``"relu"``.
        branch_norm: Normalise the output of each residual branch.
        qk_norm: Normalise queries and keys over the K entries of each head.
        dropout: Probability of dropping an entry of the embedding, attention weights and branch outputs.
        attention: ``"flash"`` is the fused kernel, ``"math"`` writes the T x T probabilities (cheaper on a CPU at short
            context, and the only one that can be differentiated twice), ``"auto"`` picks the faster one by device and
            length. May be changed on a built model: ``model.attention = "math"``.
        norm_eps: Added to the variance in every LayerNorm.

    Raises:
        DecaylabError: For sizes that do not fit together.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        num_layers: int,
        num_heads: int,
        width: int,
        *,
        bias: bool = False,
        tied: bool = True,
        init_std: float = 0.02,
        activation: Activation = "gelu",
        branch_norm: bool = False,
        qk_norm: bool = False,
        dropout: float = 0.0,
        attention: Attention = "auto",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if min(vocab_size, context, num_layers, num_heads, width) < 1:
            raise DecaylabError("a GPT needs vocab_size, context, num_layers, num_heads and width of at least 1")
        if width % num_heads:
            raise DecaylabError(f"width {width} is not a multiple of num_heads {num_heads}")
        if not 0 <= dropout < 1:
            raise DecaylabError(f"dropout must be in [0, 1), not {dropout}")
        if activation not in _ACTIVATIONS:
            raise DecaylabError(f"activation must be one of {', '.join(_ACTIVATIONS)}, not {activation!r}")
        self.vocab_size = vocab_size
        self.context = context
        self.num_layers = num_layers
        self.dropout = dropout
        self.attention = attention
        norm = partial(nn.LayerNorm, eps=norm_eps, bias=bias)
        block = partial(_Block, width, num_heads, norm, bias, activation, branch_norm, qk_norm, dropout)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab_size, width),
                "wpe": nn.Embedding(context, width),
                "h": nn.ModuleList(block() for _ in range(num_layers)),
                "ln_f": norm(width),
            }
        )
        self.lm_head = nn.Linear(width, vocab_size, bias=False)
        if tied:
            self.lm_head.weight = cast(nn.Parameter, self.transformer["wte"].weight)
        # Added to the attention scores; kept beside the model because making it costs as much as a small layer.
        self._causal_TT: Tensor
        self.register_buffer("_causal_TT", torch.full((context, context), -math.inf).triu(1), persistent=False)
        self._initialise(init_std)

    def _initialise(self, std: float) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                residual = name.endswith("c_proj.weight")
                nn.init.normal_(parameter, std=std / math.sqrt(2 * self.num_layers) if residual else std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def _materialised(self, tokens_BT: Tensor) -> bool:
        if self.attention == "auto":
            if tokens_BT.device.type != "cpu":
                return False
            autocast = torch.is_autocast_enabled("cpu")
            dtype = torch.get_autocast_dtype("cpu") if autocast else self.lm_head.weight.dtype
            return tokens_BT.shape[1] <= _MATH_CONTEXT_ON_CPU.get(dtype, 0)
        if self.attention in ("flash", "math"):
            return self.attention == "math"
        raise DecaylabError(f"attention must be auto, flash or math, not {self.attention!r}")

    def features(self, tokens_BT: Tensor) -> Tensor:
        """Return the residual stream after the last LayerNorm, (B, T, D): the head's input.

        Raises:
            DecaylabError: When the sequences are longer than the context.
        """
        length = tokens_BT.shape[1]
        if length > self.context:
            raise DecaylabError(f"sequences of {length} tokens do not fit into a context of {self.context}")
        wte, wpe = (cast(Tensor, self.transformer[name].weight) for name in ("wte", "wpe"))
        mask_TT = self._causal_TT[:length, :length] if self._materialised(tokens_BT) else None
        h_BTD = F.embedding(tokens_BT, wte) + wpe[:length]
        if self.dropout:
            h_BTD = F.dropout(h_BTD, self.dropout, self.training)
        for block in cast(nn.ModuleList, self.transformer["h"]):
            h_BTD = block(h_BTD, mask_TT)
        normalised_BTD: Tensor = self.transformer["ln_f"](h_BTD)
        return normalised_BTD

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits of each next token, (B, T, V), for int64 tokens (B, T) with T at most ``context``."""
        logits_BTV: Tensor = self.lm_head(self.features(tokens_BT))
        return logits_BTV

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats per token, always computed in float32.

        Targets of -1 are left out of the mean.
        """
        logits_NV = self(tokens_BT).flatten(0, 1).float()
        return F.cross_entropy(logits_NV, targets_BT.reshape(-1), ignore_index=-1)

    @torch.no_grad()
    def generate(
        self,
        tokens_BT: Tensor,
        num_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
        num_ids: int | None = None,
    ) -> Tensor:
        """Continue each sequence by ``num_tokens`` sampled tokens.

        Args:
            tokens_BT: The prompts, at least one token each; only the last ``context`` tokens are seen.
            num_tokens: How many tokens to add.
            temperature: Divides the logits; 0 always takes the most likely token.
            top_k: Sample among the k most likely tokens only.
            generator: Source of randomness, on the model's device; the global one if None.
            num_ids: Sample among the first so many ids only, where the vocabulary is padded; all if None.

        Returns:
            The prompts with their continuations, (B, T + num_tokens). Dropout is off while sampling, and the mode of
            the model is as it was afterwards.
        """
        was_training = self.training
        self.eval()
        try:
            for _ in range(num_tokens):
                logits_BV = self.lm_head(self.features(tokens_BT[:, -self.context :])[:, -1])[:, :num_ids].float()
                if temperature == 0:
                    next_B1 = logits_BV.argmax(-1, keepdim=True)
                else:
                    if top_k is not None:
                        smallest_kept = logits_BV.topk(min(top_k, logits_BV.shape[1])).values[:, -1:]
                        logits_BV = logits_BV.masked_fill(logits_BV < smallest_kept, -math.inf)
                    probabilities_BV = (logits_BV / temperature).softmax(-1)
                    next_B1 = torch.multinomial(probabilities_BV, 1, generator=generator)
                tokens_BT = torch.cat([tokens_BT, next_B1], dim=1)
        finally:
            self.train(was_training)
        return tokens_BT


class _Block(nn.Module):
    def __init__(
        self,
        width: int,
        num_heads: int,
        norm: Norm,
        bias: bool,
        activation: str,
        branch_norm: bool,
        qk_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.ln_1 = norm(width)
        self.attn = _Attention(width, num_heads, norm, bias, qk_norm, dropout)
        self.ln_2 = norm(width)
        self.mlp = _MLP(width, bias, activation, dropout)
        self.ln_3 = norm(width) if branch_norm else None
        self.ln_4 = norm(width) if branch_norm else None

    def forward(self, h_BTD: Tensor, mask_TT: Tensor | None) -> Tensor:
        attended_BTD: Tensor = self.attn(self.ln_1(h_BTD), mask_TT)
        h_BTD = h_BTD + (attended_BTD if self.ln_3 is None else self.ln_3(attended_BTD))
        mixed_BTD: Tensor = self.mlp(self.ln_2(h_BTD))
        return h_BTD + (mixed_BTD if self.ln_4 is None else self.ln_4(mixed_BTD))


class _Attention(nn.Module):
    """Causal self-attention, softmax(q k^T / sqrt(K) + mask) v per head."""

    def __init__(self, width: int, num_heads: int, norm: Norm, bias: bool, qk_norm: bool, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.dropout = dropout
        self.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.c_proj = nn.Linear(width, width, bias=bias)
        self.ln_q = norm(self.head_width) if qk_norm else None
        self.ln_k = norm(self.head_width) if qk_norm else None

    def forward(self, x_BTD: Tensor, mask_TT: Tensor | None) -> Tensor:
        B, T, D = x_BTD.shape
        heads_BT3HK = self.c_attn(x_BTD).view(B, T, 3, self.num_heads, self.head_width)
        if mask_TT is None:
            y_BTD = self._fused(heads_BT3HK).reshape(B, T, D)
        else:
            y_BTD = self._materialised(heads_BT3HK, mask_TT).reshape(B, T, D)
        y_BTD = cast(Tensor, self.c_proj(y_BTD))
        return F.dropout(y_BTD, self.dropout, self.training) if self.dropout else y_BTD

    def _normalise(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return (q, k) if self.ln_q is None or self.ln_k is None else (self.ln_q(q), self.ln_k(k))

    def _fused(self, heads_BT3HK: Tensor) -> Tensor:
        q, k, v = heads_BT3HK.transpose(1, 3).unbind(2)  # each (B, H, T, K), no copy
        # LayerNorm gives float32 under autocast, and the fused kernel wants one dtype.
        q, k = (z.to(v.dtype) for z in self._normalise(q, k))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0, is_causal=True)
        return y.transpose(1, 2)

    def _materialised(self, heads_BT3HK: Tensor, mask_TT: Tensor) -> Tensor:
        B, T, _, H, K = heads_BT3HK.shape
        # One copy puts q, k and v where batched matrix products can read them without further copies; N = B H.
        q_NTK, k_NTK, v_NTK = heads_BT3HK.permute(2, 0, 3, 1, 4).reshape(3, B * H, T, K).unbind()
        q_NTK, k_NTK = self._normalise(q_NTK, k_NTK)
        parts = []
        rows = max(_ROWS, -(-T // _MOST_PARTS))
        for first in range(0, max(T, 1), rows):  # R queries, which see the S positions up to the last of them
            seen = min(first + rows, T)
            mask_RS, q_NRK = mask_TT[first:seen, :seen], q_NTK[:, first:seen]
            scores_NRS = torch.baddbmm(mask_RS, q_NRK, k_NTK[:, :seen].mT, alpha=1 / math.sqrt(K))
            weights_NRS = scores_NRS.softmax(-1)
            if self.dropout:
                weights_NRS = F.dropout(weights_NRS, self.dropout, self.training)
            parts.append(torch.bmm(weights_NRS, v_NTK[:, :seen]))
        y_NTK = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return y_NTK.view(B, H, T, K).transpose(1, 2)


class _MLP(nn.Module):
    def __init__(self, width: int, bias: bool, activation: str, dropout: float) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width, bias=bias)
        self.c_proj = nn.Linear(4 * width, width, bias=bias)
        self.activation = _ACTIVATIONS[activation]
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c_proj(self.activation(self.c_fc(x)))
        return F.dropout(y, self.dropout, self.training) if self.dropout else y
