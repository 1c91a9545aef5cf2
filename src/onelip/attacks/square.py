"""Square attack (Andriushchenko et al., 2020) in the l2 norm: random search, no gradients."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from onelip.attacks._judge import check_inputs, evaluation_mode
from onelip.attacks.ball import lengths, normalised, per_image, shrunk
from onelip.attacks.objectives import margin
from onelip.errors import UsageError

_SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: halve the squares


@dataclass(frozen=True)
class Square:
    """Random search that moves the energy of one square of the perturbation into another.

    An example that only this attack finds is a sign that gradients are misleading.

    Args:
        queries: Number of calls of the model per image.
        share: Share of the image that the first squares cover.
        seed: Seed of the search.
    """

    name: ClassVar[str] = "square"
    minimises: ClassVar[bool] = False
    queries: int = 5000
    share: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 < self.share <= 1:
            raise UsageError("Square needs at least one query and a share in (0, 1]")

    @torch.no_grad()
    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Return candidates within ``eps``, up to rounding."""
        check_inputs(images, labels, eps)
        if images.ndim != 4:
            raise UsageError(
                f"images of shape {tuple(images.shape)} have no squares: (n, channels, h, w)"
            )
        candidates = images.clone()
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.arange(len(images), device=images.device)
        with evaluation_mode(model):
            best = torch.full_like(images[:, 0, 0, 0], -torch.inf)
            for query in range(self.queries):
                if not len(rows):
                    break
                clean, delta = images[rows], candidates[rows] - images[rows]
                moved = (
                    self._move(delta, eps, query, generator)
                    if query
                    else self._start(delta, eps, generator)
                )
                tried = (clean + shrunk(moved, eps)).clamp(0, 1)
                value = margin(model(tried), labels[rows]).nan_to_num(torch.inf)
                better = value > best[rows]
                candidates[rows[better]] = tried[better]
                best[rows[better]] = value[better]
                rows = rows[best[rows] <= 0]  # a tie is no mistake
        return candidates

    def _start(self, delta: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Return a tiling of squares with random signs, of norm ``eps``."""
        height, width = delta.shape[2:]
        side = max(1, min(height, width) // 5)
        pattern = torch.zeros_like(delta)
        bump = _pattern(side, generator).to(delta)
        for top in range(0, height - side + 1, side):
            for left in range(0, width - side + 1, side):
                sign = _signs(delta.shape[:2], generator).to(delta)
                pattern[:, :, top : top + side, left : left + side] = sign * bump
        return eps * normalised(pattern)

    def _move(self, delta: Tensor, eps: float, query: int, generator: torch.Generator) -> Tensor:
        """Move the energy of two windows, and what the ball has left, into one (algorithm 3)."""
        height, width = delta.shape[2:]
        passed = sum(query * 10_000 >= limit * self.queries for limit in _SCHEDULE)
        # a square that covers the present share of the image, which halves by the schedule
        side = int((self.share / 2**passed * height * width) ** 0.5)
        side = min(max(side, 1), height, width)
        into, out = (_window(height, width, side, generator) for _ in range(2))
        both = torch.zeros_like(delta[:1, :1])
        both[..., *into], both[..., *out] = 1, 1
        # energy (squared norm) that the ball leaves beside the present perturbation
        left = per_image(eps**2 - lengths(delta) ** 2, delta).clamp_min(0)
        energy = (delta * both).square().sum((2, 3), keepdim=True) + left / delta.shape[1]
        old = delta[..., *into]
        signs = _signs(delta.shape[:2], generator).to(delta)
        new = _unit(signs * _pattern(side, generator).to(delta) + _unit(old))
        moved = delta.clone()
        moved[..., *out] = 0
        moved[..., *into] = new * energy.sqrt()
        return moved


def _window(height: int, width: int, side: int, generator: torch.Generator) -> tuple[slice, slice]:
    """Draw the rows and columns of a square."""
    top = int(torch.randint(height - side + 1, (), generator=generator))
    left = int(torch.randint(width - side + 1, (), generator=generator))
    return slice(top, top + side), slice(left, left + side)


def _pattern(side: int, generator: torch.Generator) -> Tensor:
    """Return two bumps of opposite sign side by side, of norm 1, transposed at random."""
    if side == 1:
        return torch.ones(1, 1)
    pattern: Tensor = torch.cat([_bump(side // 2, side), -_bump(side - side // 2, side)])
    pattern /= torch.linalg.vector_norm(pattern)
    lying = bool(torch.randint(2, (), generator=generator))
    return pattern if lying else pattern.T


def _bump(height: int, width: int) -> Tensor:
    """Return a bump: rings that add up towards the middle, by one over a squared distance."""
    rows = torch.minimum(torch.arange(height), torch.arange(height).flip(0))
    columns = torch.minimum(torch.arange(width), torch.arange(width).flip(0))
    depth = torch.minimum(rows[:, None], columns)
    steps: Tensor = 1 / torch.arange((min(height, width) + 1) // 2, 0, -1) ** 2
    return steps.cumsum(0)[depth]


def _signs(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw random signs, one per image and channel."""
    signs: Tensor = torch.randint(2, (*shape, 1, 1), generator=generator) * 2 - 1
    return signs


def _unit(windows: Tensor) -> Tensor:
    """Scale each channel to norm 1; one of zeros stays."""
    norms: Tensor = torch.linalg.vector_norm(windows, dim=(2, 3), keepdim=True)
    scaled: Tensor = windows / norms.clamp_min(torch.finfo(windows.dtype).tiny)
    return scaled
