"""Balls around images: what attacks and their judge share."""

import torch
from torch import Tensor


def lengths(delta: Tensor) -> Tensor:
    """The l2 norm of each image, ``(n,)``."""
    norms: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return norms


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """One value for each image, in a shape that broadcasts over images."""
    return values.reshape(-1, *(1 for _ in like.shape[1:]))


def normalised(delta: Tensor) -> Tensor:
    """Each image scaled to length 1; one of zeros stays."""
    return delta / per_image(_positive(delta), delta)


def projected(images: Tensor, points: Tensor, eps: float) -> Tensor:
    """Points brought into the ball of radius ``eps``, then into [0, 1]; up to rounding."""
    return (images + shrunk(points - images, eps)).clamp(0, 1)


def shrunk(delta: Tensor, eps: float) -> Tensor:
    """Differences that are no longer than ``eps``, up to rounding."""
    return per_image((eps / _positive(delta)).clamp(max=1), delta) * delta


def _positive(delta: Tensor) -> Tensor:
    return lengths(delta).clamp_min(torch.finfo(delta.dtype).tiny)
