"""Several attacks in turn, each on what the ones before left standing."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from onelip.attacks.judge import AttackResult, judge
from onelip.errors import UsageError


class Attack(Protocol):
    """Proposes one candidate per image; `judge` decides which of them count."""

    @property
    def name(self) -> str:
        """The name in tables."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Candidates, of the shape of ``images``, ideally within ``eps`` of them."""


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
        attacks: What to run; each sees only images that are not broken yet.
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


def _keep(result: AttackResult, rows: Tensor, found: AttackResult) -> None:
    """Copy the successes of ``found`` to ``rows`` of ``result``."""
    broken = rows[found.success]
    result.adversarial[broken] = found.adversarial[found.success]
    result.distance[broken] = found.distance[found.success]
    result.success[broken] = True
