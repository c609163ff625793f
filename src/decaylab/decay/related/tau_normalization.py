"""How are the class weights of a trained classifier balanced afterwards?"""

from __future__ import annotations

import torch
from torch import Tensor

from decaylab.errors import DecaylabError
from decaylab.tensors.foreach import wide


@torch.no_grad()
def tau_normalize(weight: Tensor, tau: float = 1.0) -> Tensor:
    r"""Return a classifier's weight with every row divided by a power of its norm: ``W_c / ||W_c||^tau``.

    tau = 0 changes nothing, tau = 1 makes all rows unit vectors. The bias stays as it is. Rows of zeros stay zero. Kang
    et al. 2020 (arXiv 1910.09217); used after balanced weight decay by Alshammari et al. 2022 (arXiv 2203.14197).

    Args:
        weight: ``(classes, ...)``, at least two dimensions. Not changed.
        tau: Power, at least 0.

    Returns:
        A new tensor of the same shape and dtype.

    Raises:
        DecaylabError: A negative tau or a weight without rows.

    >>> tau_normalize(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """
    if not tau >= 0:
        raise DecaylabError(f"tau must be at least 0, got {tau}")
    if weight.dim() < 2:
        raise DecaylabError("tau_normalize takes the weight of a classifier, with a row for every class")
    rows = weight.flatten(1).to(wide(weight.dtype))
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    scaled = rows / torch.where(norm > 0, norm, 1.0).pow(tau)
    return scaled.view_as(weight).to(weight.dtype)
