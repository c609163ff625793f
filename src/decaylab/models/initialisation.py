"""How are the weights of the vision networks drawn: He initialisation."""

from __future__ import annotations

from torch import nn


def he_(model: nn.Module) -> None:
    """Draw the weights of every convolution and linear map from N(0, 2 / fan) in place; biases become zero.

    The fan of a convolution is its number of outgoing connections, which keeps the variance of the gradients (He et al.
    2015, equation 14); the fan of a linear map is its number of inputs, which keeps the variance of the logits
    (equation 10) however few classes there are. Normalisations start at gain one and bias zero, as torch makes them.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
