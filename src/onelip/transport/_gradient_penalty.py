"""Gradient penalty (Gulrajani et al., 2017): it draws a critic's slopes to 1, without a proof."""

import torch
from torch import Tensor, nn

from onelip.errors import UsageError


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Mean squared distance from 1 of the critic's gradient lengths between pairs of images.

    Cost: a forward and a backward pass, both of which are differentiated again.

    Args:
        critic: from images to ``(batch, 1)``, each from its own image alone.
        real: images ``(batch, ...)``.
        fake: as many.
        share: of the real image in each point in between, ``(batch,)``.

    Returns:
        A 0-d tensor, to be differentiated.

    Raises:
        UsageError: not as many images of one shape on both sides, or shares.

    Example:
        >>> double = nn.Linear(1, 1)
        >>> double.weight.data.fill_(2.0)
        tensor([[2.]])
        >>> gradient_penalty(double, torch.zeros(3, 1), torch.ones(3, 1), torch.rand(3)).item()
        1.0

    Reference: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, section 4.
    """
    if real.shape != fake.shape or share.shape != real.shape[:1]:
        raise UsageError(
            f"as many real images {tuple(real.shape)} as generated ones {tuple(fake.shape)} and "
            f"shares {tuple(share.shape)} are needed"
        )
    weights = share.reshape(-1, *[1] * (real.ndim - 1))
    between = (weights * real + (1 - weights) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    lengths: Tensor = torch.linalg.vector_norm(slope.flatten(1), dim=1)
    return (lengths - 1).square().mean()
