"""Curvature-regularised training of an MLP head (Singla, Feizi, 2022, equation 7)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.losses.head import HeadLoss, PairCurvature


class CRC(HeadLoss):
    r"""Cross-entropy of adversarially perturbed features, plus the curvature of the head.

    :math:`\max_{|y - g(x)| \le \rho} \ell(h(y), l) + \gamma K`: the maximum is approximated by
    projected gradient steps on the features, through the head alone. The body receives the gradient
    at the point that they reach, as if it were its output. K is the mean over the batch of the
    curvature, up or down, of the logit difference between the label and the runner-up class.

    Shape: features ``(batch, features)``, labels ``(batch,)`` to a scalar.
    Cost: ``steps + 1`` passes through the head.

    Args:
        radius: rho, in units of the features: divide a radius in pixels by the std that the body
            divides pixels by.
        weight: gamma, factor of the curvature.
        steps: number of steps of the attack, of size ``1.5 radius / steps``.

    Raises:
        ValueError: a negative number, or no step.

    Example:
        >>> loss = CRC(radius=0.0, weight=0.0)
        >>> loss(torch.zeros(2, 3), torch.tensor([0, 1]), nn.Identity(), None)
        tensor(1.0986)

    Reference: Singla, Feizi, "Improved techniques for deterministic l2 robustness", NeurIPS 2022.
    """

    def __init__(self, radius: float = 0.5, weight: float = 0.5, steps: int = 5) -> None:
        super().__init__()
        if not radius >= 0 or not weight >= 0:
            raise ValueError(f"radius and weight must not be negative, got {radius} and {weight}")
        if steps < 1:
            raise ValueError(f"steps must be positive, got {steps}")
        self.radius, self.weight, self.steps = radius, weight, steps

    def forward(
        self, features: Tensor, labels: Tensor, head: nn.Module, curvature: PairCurvature | None
    ) -> Tensor:
        """The formula in the class docstring."""
        logits: Tensor = head(features + self.perturbation(features.detach(), labels, head))
        loss: Tensor = F.cross_entropy(logits, labels)
        if curvature is None or not self.weight:
            return loss
        # each pair of classes once, weighted by how often it occurs in the batch
        rivals = logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)
        pairs, times = torch.stack([labels, rivals]).unique(dim=1, return_counts=True)
        # curvature down of either sign of the difference: up and down
        bend = torch.maximum(curvature(pairs[0], pairs[1]), curvature(pairs[1], pairs[0]))
        bends: Tensor = (bend * times).sum() / len(labels)
        return loss + self.weight * bends

    def perturbation(self, features: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
        """Inputs at most ``radius`` away, by projected gradient ascent on the cross-entropy."""
        moved = torch.zeros_like(features)
        for _ in range(self.steps if self.radius else 0):
            moved.requires_grad_()
            with torch.enable_grad():
                loss = F.cross_entropy(head(features + moved), labels, reduction="sum")
            (uphill,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() + 1.5 * self.radius / self.steps * F.normalize(uphill, dim=1)
            # projection onto the ball: only vectors longer than the radius are shortened
            length = moved.norm(dim=1, keepdim=True).clamp_min(self.radius)
            moved = moved * (self.radius / length)
        return moved
