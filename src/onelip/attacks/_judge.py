"""Judgement of the success of attacks, at one place for all of them."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onelip.attacks.ball import lengths, per_image
from onelip.errors import UsageError

# relative shortenings, tried in turn until the rounded image lies in the ball; the last gives 0
_SLACKS = (1e-12, *(10.0**power for power in range(-8, 0)), 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Images after judgement.

    Args:
        adversarial: Images in [0, 1], within the ball around the clean ones.
        success: Whether the model gets them wrong.
        distance: Their l2 distance to the clean images, float64.
    """

    adversarial: Tensor
    success: Tensor
    distance: Tensor


def judge(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    candidates: Tensor,
    eps: float,
    *,
    batch_size: int = 512,
) -> AttackResult:
    """Project candidates onto the ball of radius ``eps``, and classify them.

    A candidate outside the ball is shrunk towards its image and clamped to [0, 1]; one that is
    not finite counts as the clean image. Distances are measured in float64 on the tensors that
    the model sees, so that rounding cannot carry an example out of the ball.

    Args:
        model: Maps images to logits of shape ``(n, classes)``; run in evaluation mode.
        images: Clean images, floats in [0, 1].
        labels: Their labels.
        candidates: Proposals of an attack, one per image.
        eps: Radius of the ball, in pixel units of [0, 1].
        batch_size: Number of images per call of the model.

    Raises:
        UsageError: If an argument has another shape, type or range.
    """
    check_inputs(images, labels, eps)
    if candidates.shape != images.shape:
        raise UsageError(
            f"candidates of shape {tuple(candidates.shape)} do not match "
            f"images of shape {tuple(images.shape)}"
        )
    adversarial, distance = _into_ball(images, candidates, eps)
    return AttackResult(adversarial, mistakes(model, adversarial, labels, batch_size), distance)


def check_inputs(images: Tensor, labels: Tensor, eps: float) -> None:
    """Check images in [0, 1], their labels and a radius.

    Raises:
        UsageError: If one of them has another shape, type or range.
    """
    if not (math.isfinite(eps) and eps >= 0):
        raise UsageError(f"eps is {eps}: choose a finite number, 0 or more")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise UsageError("labels must be int64, one per image")
    if not images.is_floating_point():
        raise UsageError(f"images are {images.dtype}: convert them to floats in [0, 1]")
    if not ((images >= 0) & (images <= 1)).all():
        raise UsageError("images lie outside [0, 1]: make the scaling a layer of the model")


@torch.no_grad()
def mistakes(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 512) -> Tensor:
    """Return which predictions differ from the label; a NaN among the logits is a mistake."""
    wrong = [torch.empty(0, dtype=torch.bool, device=images.device)]
    with evaluation_mode(model):
        for first in range(0, len(images), batch_size):
            rows = slice(first, first + batch_size)
            logits = model(images[rows])
            _check_logits(logits, len(labels[rows]))
            wrong.append((logits.argmax(1) != labels[rows]) | logits.isnan().any(1))
    return torch.cat(wrong)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, and every module back into its own mode at the end."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_logits(logits: Tensor, count: int) -> None:
    """Refuse outputs that are not logits of two classes or more."""
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        raise UsageError(
            f"the model returns shape {tuple(logits.shape)}: "
            "it must return logits of shape (n, classes), with two classes or more"
        )


@torch.no_grad()
def _into_ball(images: Tensor, candidates: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Shrink by growing slacks until the rounded images lie in the ball.

    The last slack is 1 and gives the clean image. Returns images and float64 distances.
    """
    delta = candidates.double() - images.double()
    finite = delta.flatten(1).isfinite().all(1)
    delta = torch.where(per_image(finite, delta), delta, 0.0)
    shrink = (eps / lengths(delta)).clamp(max=1)
    factor = torch.ones_like(shrink)
    slacks = iter(_SLACKS)
    adversarial, distance = _step(images, delta, factor)
    while (outside := distance > eps).any():
        factor = torch.where(outside, shrink * (1 - next(slacks)), factor)
        adversarial, distance = _step(images, delta, factor)
    return adversarial, distance


def _step(images: Tensor, delta: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return images moved by a share of delta and rounded, and their distances in float64."""
    moved = images.double() + per_image(factor, delta) * delta
    adversarial = moved.clamp(0, 1).to(images.dtype)
    return adversarial, lengths(adversarial.double() - images.double())
