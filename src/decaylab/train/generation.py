"""What does a language model make of a text that it is given: the loss of each of its tokens, or its continuation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from decaylab.data.stream import TokenStream
from decaylab.data.tokenizer import Tokenizer
from decaylab.errors import DecaylabError


def text_batches(
    stream: TokenStream, text: str, context: int, batch_size: int, *, name: str = "the text"
) -> list[tuple[Tensor, Tensor]]:
    """Cut a text into sequences so that each of its tokens but the first is predicted once.

    Sequences lie one after the other, so a token is predicted from the tokens before it in its own sequence: 0 to
    ``context - 1`` of them besides the first. This is the usual measure with non-overlapping windows.

    Args:
        stream: Gives the tokenizer.
        text: At least two tokens of it.
        context: Tokens a sequence, T.
        batch_size: Sequences a batch, B.
        name: What a message calls the text.

    Returns:
        Tokens and the tokens that follow, int64 (B, T) each; the rest of the text comes as a batch of one shorter
        sequence.

    Raises:
        DecaylabError: The text has fewer than two tokens.
    """
    tokens = torch.tensor(stream.encode(text), dtype=torch.long)
    if len(tokens) < 2:
        raise DecaylabError(f"{name} has {len(tokens)} tokens: at least two are needed")
    whole = (len(tokens) - 1) // context
    x = tokens[: whole * context].view(whole, context)
    y = tokens[1 : whole * context + 1].view(whole, context)
    batches = list(zip(x.split(batch_size), y.split(batch_size), strict=True)) if whole else []
    rest = tokens[whole * context :][None]
    return batches + ([(rest[:, :-1], rest[:, 1:])] if rest.shape[1] > 1 else [])


def complete(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    num_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> str:
    """Return a prompt with the model's continuation.

    Ids that no text has (a vocabulary padded to a rounder number) are never drawn.

    Args:
        model: A `decaylab.models.GPT`; its mode and the random state stay as they are.
        tokenizer: Text to ids and back.
        prompt: At least one token.
        num_tokens: How many tokens to add.
        temperature: Divides the logits; 0 always takes the most likely token.
        top_k: Draw among the k most likely tokens only.
        seed: Decides the draw.

    Raises:
        DecaylabError: The prompt has no tokens.
    """
    ids = [int(i) for part in tokenizer.encode_documents([prompt.encode()]) for i in part]
    if not ids:
        raise DecaylabError("the prompt has no tokens: give at least one character")
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    gpt: Any = model
    tokens = gpt.generate(
        torch.tensor([ids], device=device),
        num_tokens,
        temperature=temperature,
        top_k=top_k,
        generator=generator,
        num_ids=tokenizer.vocab_size,
    )
    return tokenizer.decode(tokens[0].tolist())
