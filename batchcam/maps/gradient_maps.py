"""Maps of networks without exact CAMs, from activations and gradients: pure mathematics on tensors.

No identity covers these maps; they rank cells, in units of their own. All are returned raw: signed, without the ReLU
that some papers put last, so that evidence against a class stays visible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

EPSILON: Final = 1e-7


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return Grad-CAM's maps: each channel counts by its mean gradient.

    M = sum_c mean_yx(G_c) A_c, Selvaraju et al. 2017, eq. 1 and 2 without ReLU, https://arxiv.org/abs/1610.02391

    Args:
        activations: A, (N, C, h, w).
        gradients: G, of one class's logit with respect to A, (N, C, h, w).

    Returns:
        (N, h, w).
    """
    return _weighted(gradients.mean((2, 3)), activations)


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return Grad-CAM++'s maps: positive gradients count, by their share in a second-order expansion.

    Chattopadhyay et al. 2018, eq. 7 and 19, for the exponential of the logit, https://arxiv.org/abs/1710.11063: with
    a = G^2 / (2 G^2 + G^3 sum_yx A), M = sum_c (sum_yx a ReLU(G)) A_c. Only positive G count, so a = 1 / (2 + G sum A).
    """
    positive = gradients.relu()
    divisor = 2 + positive * activations.sum((2, 3), keepdim=True)
    weights = positive / torch.where(divisor.abs() > EPSILON, divisor, torch.inf)
    return _weighted(weights.sum((2, 3)), activations)


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return LayerCAM's maps: each cell of each channel counts by its own positive gradient.

    M = sum_c ReLU(G_c) A_c, Jiang et al. 2021, eq. 6 and 7 without the last ReLU, https://doi.org/10.1109/TIP.2021.3089943
    """
    return (gradients.relu() * activations).sum(1)


def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return HiResCAM's maps: each cell of each channel counts by its own gradient.

    M = sum_c G_c A_c, Draelos and Carin 2020, eq. 5, https://arxiv.org/abs/2011.08891. Where the logits are a linear
    map of the pooled activations it is the CAM divided by the number of cells.
    """
    return (gradients * activations).sum(1)


def xgrad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return XGrad-CAM's maps: each channel counts by its gradient, averaged with the activations as weights.

    M = sum_c (sum_yx G_c A_c / sum_yx A_c) A_c, Fu et al. 2020, eq. 8, https://arxiv.org/abs/2008.02312
    """
    sums = activations.sum((2, 3))
    weights = (gradients * activations).sum((2, 3)) / torch.where(sums.abs() > EPSILON, sums, torch.inf)
    return _weighted(weights, activations)


def eigen_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return Eigen-CAM's maps: the activations' first principal component over cells; of no class, without gradients.

    Muhammad and Yeasin 2020, https://arxiv.org/abs/2008.00299, on centred activations. A component's sign is arbitrary:
    here the map grows with the mean activation.
    """
    cells = activations.flatten(2).transpose(1, 2)
    centred = cells - cells.mean(1, keepdim=True)
    # few cells, many channels: the small matrix of products has the same first component
    products = centred @ centred.transpose(1, 2)
    sizes, vectors = torch.linalg.eigh(products.nan_to_num(0, 0, 0))  # which refuses the whole batch for one NaN
    component = vectors[:, :, -1] * sizes[:, -1:].clamp(min=0).sqrt()
    agreement = (component * centred.mean(2)).sum(1, keepdim=True)
    signs = torch.where(agreement < 0, -1, 1)
    maps: Tensor = (component * signs).view(len(cells), *activations.shape[2:])
    return maps.masked_fill(~torch.isfinite(products).all((1, 2))[:, None, None], torch.nan)


def _weighted(weights: Tensor, activations: Tensor) -> Tensor:
    maps: Tensor = torch.einsum("nc,nchw->nhw", weights, activations)
    return maps


METHODS: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "gradcam": grad_cam,
    "gradcam++": grad_cam_plus_plus,
    "layercam": layer_cam,
    "hirescam": hires_cam,
    "xgradcam": xgrad_cam,
    "eigencam": eigen_cam,
}
"""By the name that `--method` takes; `cam`, the exact one, is none of them."""
