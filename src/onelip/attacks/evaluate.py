"""Several attacks in turn, each on the images that the attacks before did not break."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from onelip.attacks._judge import AttackResult, judge, mistakes
from onelip.errors import UsageError


class Attack(Protocol):
    """An attack: proposes one candidate per image; `judge` decides which of them count."""

    @property
    def name(self) -> str:
        """Name in tables."""

    @property
    def minimises(self) -> bool:
        """Whether candidates are as close as the attack can bring them, whatever ``eps`` is."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Return candidates, of the shape of ``images``, ideally within ``eps`` of them."""


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    attacks: Sequence[Attack],
    *,
    batch_size: int = 256,
) -> AttackResult:
    """Run ``attacks`` in turn and keep the first success on every image.

    Args:
        model: Maps images to logits; run in evaluation mode.
        images: Clean images, floats in [0, 1], on the device of the model.
        labels: Their labels.
        eps: Radius of the ball, in pixel units of [0, 1].
        attacks: Attacks to run; each sees only images that are not broken yet.
        batch_size: Number of images attacked together.

    Returns:
        An image that the model gets wrong without attack is a success at distance 0; one that
        withstands all attacks is its clean self, at distance 0 and without success.

    Raises:
        UsageError: If an argument has another shape, type or range.
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size} is not positive: choose 1 or more")
    result = judge(model, images, labels, images, eps, batch_size=batch_size)
    for method in attacks:
        standing = (~result.success).nonzero().squeeze(1)
        for first in range(0, len(standing), batch_size):
            rows = standing[first : first + batch_size]
            candidates = method(model, images[rows], labels[rows], eps)
            found = judge(model, images[rows], labels[rows], candidates, eps, batch_size=batch_size)
            _keep(result, rows, found)
    return result


def attack_radii(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Sequence[float],
    attacks: Sequence[Attack],
    *,
    batch_size: int = 256,
) -> list[Tensor]:
    """Return which images are broken at each of several radii, in ascending order.

    An image that is broken in a ball is broken in a larger one, and is not attacked again. Attacks
    that minimise the distance run once for all radii.

    Args:
        model: Maps images to logits; run in evaluation mode.
        images: Clean images, floats in [0, 1], on the device of the model.
        labels: Their labels.
        radii: In pixel units of [0, 1].
        attacks: Attacks to run.
        batch_size: Number of images attacked together.

    Raises:
        UsageError: If an argument has another shape, type or range.
    """
    broken = mistakes(model, images, labels)
    batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    # the closest example does not depend on the radius: one run serves all of them
    closest = [
        torch.cat([method(model, *batch, max(radii)) for batch in batches])
        for method in attacks
        if method.minimises
    ]
    others = [method for method in attacks if not method.minimises]
    at_radii = []
    for eps in sorted(radii):
        for candidates in closest:
            broken = broken | judge(model, images, labels, candidates, eps).success
        rows = (~broken).nonzero().squeeze(1)
        found = attack(model, images[rows], labels[rows], eps, others, batch_size=batch_size)
        broken = broken.clone()
        broken[rows] = found.success
        at_radii.append(broken)
    return at_radii


def _keep(result: AttackResult, rows: Tensor, found: AttackResult) -> None:
    """Copy the successes of ``found`` to ``rows`` of ``result``."""
    broken = rows[found.success]
    result.adversarial[broken] = found.adversarial[found.success]
    result.distance[broken] = found.distance[found.success]
    result.success[broken] = True
