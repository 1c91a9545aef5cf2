"""Projections and lengths in l2 balls around images."""

import torch
from torch import Tensor


def lengths(delta: Tensor) -> Tensor:
    """Return the l2 norm of each image, ``(n,)``."""
    norms: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return norms


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value per image, so that it broadcasts over images."""
    return values.reshape(-1, *(1 for _ in like.shape[1:]))


def normalised(delta: Tensor) -> Tensor:
    """Scale each image to length 1; one of zeros stays."""
    return delta / per_image(_positive(delta), delta)


def projected(images: Tensor, points: Tensor, eps: float) -> Tensor:
    """Project points onto the ball of radius ``eps``, then onto [0, 1]; up to rounding."""
    # clamping moves no pixel away from the image, so the point stays in the ball
    return (images + shrunk(points - images, eps)).clamp(0, 1)


def shrunk(delta: Tensor, eps: float) -> Tensor:
    """Shrink differences to a length of at most ``eps``, up to rounding."""
    return per_image((eps / _positive(delta)).clamp(max=1), delta) * delta


def _positive(delta: Tensor) -> Tensor:
    """Lengths that may be divided by."""
    return lengths(delta).clamp_min(torch.finfo(delta.dtype).tiny)
