"""Constants in balls, tightened by the semidefinite bound of the units that may switch."""

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.approx import Approx
from onelip.bounds.neighbourhood.ball import Balls
from onelip.bounds.semidefinite.uncertain import Multipliers, Uncertain, norms, proposed, rises

_HELD = 2**23  # entries of the matrices of a search that are held at a time
_ROUNDS = 4  # rivals of a sample that are looked at


def tightened_norms(balls: Balls, image: Approx, found: Tensor, largest: int) -> Tensor:
    """Tighten bounds of the norms of an image, ``(batch,)``.

    Args:
        balls: the balls.
        image: of the output.
        found: bounds to improve on.
        largest: number of uncertain units, and of rows, up to which a search is made.
    """
    units = balls.uncertain()
    found = found.clone()
    if image.matrix.shape[1] > largest:
        return found
    for samples in _parts(units, torch.ones_like(found, dtype=torch.bool), largest):
        own, rows = units.of(samples, image)
        proved = norms(own, rows, proposed(own, rows.matrix, tangents=False))
        found[samples] = torch.fmin(found[samples], proved)
    return found


def tightened_rises(balls: Balls, image: Approx, found: Tensor, largest: int) -> Tensor:
    """Tighten bounds of the rise of each row of an image, ``(batch, rows)``.

    Where slopes are secants, the rise from the centre; where they are those of two points, tangents
    are not known, and the bound is one of the absolute value.
    """
    units = balls.uncertain()
    found = found.clone()
    for row in range(found.shape[1]):
        for samples in _parts(units, found[:, row] > 0, largest):
            choice = torch.full_like(samples, row)
            found[samples] = torch.fmin(found[samples], _rises(units, image, samples, choice))
    return found


def tightened_quotients(
    balls: Balls, image: Approx, found: Tensor, margins: Tensor, largest: int
) -> Tensor:
    """Tighten the bounds of ``tightened_rises`` that limit a radius, ``margins / found``.

    Args:
        balls: the balls, with secants.
        image: of the output, minus the differences whose margins are given.
        found: bounds to improve on, ``(batch, rows)``.
        margins: ``(batch, rows)``; a row with an infinite one is no rival.
        largest: number of uncertain units up to which a search is made.
    """
    units = balls.uncertain()
    found, done = found.clone(), ~torch.isfinite(margins)
    for _ in range(min(_ROUNDS, found.shape[1])):
        quotients, worst = (margins / found).nan_to_num(torch.inf).min(1)
        known = done.gather(1, worst[:, None])[:, 0]
        # A sample whose ball is certified, or that has a margin of 0, cannot gain.
        wanted = ~known & (quotients > 0) & (quotients < balls.radius)
        if not wanted.any():
            break
        for samples in _parts(units, wanted, largest):
            proved = _rises(units, image, samples, worst[samples])
            found[samples] = torch.fmin(found[samples], proved)
        done.scatter_(1, worst[:, None], True)
    return found


def _rises(units: Uncertain, image: Approx, samples: Tensor, row: Tensor) -> Tensor:
    """Bound the rows of an image by the weights that are best for one of them."""
    own, images = units.of(samples, image)
    single = Approx(images.matrix.take_along_dim(row[:, None, None], 1), images.error)
    found = proposed(own, single.matrix, tangents=True)
    best = rises(own, single, found)
    every = rises(own, images, Multipliers(found.weights, torch.zeros_like(found.tangents)))
    return every.scatter_reduce(1, row[:, None], best, "amin")


def _parts(units: Uncertain, wanted: Tensor, largest: int) -> list[Tensor]:
    """Split samples with few uncertain units into batches of about as many units."""
    counts = (units.entries > 0).sum(1)
    chosen = (wanted & (counts > 0) & (counts <= largest)).nonzero()[:, 0]
    chosen = chosen[counts[chosen].argsort()]
    parts, start = [], 0
    while start < len(chosen):
        entries = 16 * (units.rows.matrix.shape[2] - units.count + counts[chosen[start:]]) ** 2
        fitting = torch.arange(1, len(entries) + 1) * entries <= _HELD
        stop = start + max(1, int(fitting.sum()))
        parts.append(chosen[start:stop])
        start = stop
    return parts
