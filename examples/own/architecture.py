"""Architectures of your own, for images and for text: any class whose arguments have names that decaylab knows.

decaylab train vision --model.architecture examples/own/architecture.py:Mlp --model.options hidden 32 --epochs 2
decaylab train language --model.architecture examples/own/architecture.py:Gru --model.width 16 --steps 50
"""

from __future__ import annotations

from torch import Tensor, nn


class Mlp(nn.Module):
    """Two linear layers on the pixels of an image (N, C, S, S)."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int, hidden: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_channels * image_size**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        logits: Tensor = self.net(images)
        return logits


class Gru(nn.Module):
    """A recurrent language model: tokens (N, T) in, logits (N, T, vocab_size) out."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.gru(self.embedding(tokens))[0])
        return logits
