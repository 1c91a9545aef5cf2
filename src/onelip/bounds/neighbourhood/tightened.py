"""Constants in balls, tightened by the semidefinite bound of the units that may switch."""

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.approx import Approx
from onelip.bounds.neighbourhood.ball import Balls
from onelip.bounds.semidefinite.uncertain import (
    Multipliers,
    Uncertain,
    norms,
    proposed,
    reduced,
    rises,
)
from onelip.norms.rounding import upward

MOST = 10
"""Times the units that a search takes, beyond which nothing is tried."""

_HELD = 2**23  # entries of the matrices of a search that are held at a time
_SUMS = 4  # of rows that weights are chosen for
_STEPS = 8  # of a search whose weights serve many rows
_ROUNDS = 4  # rivals of a sample that are looked at


def tightened_lengths(
    balls: Balls, image: Approx, found: Tensor, worth: Tensor, /, *, largest: int
) -> Tensor:
    """Tighten bounds of the lengths of the rows of an image, ``(batch, rows)``.

    One set of weights serves all rows: those that are best for some random sums of them.

    Args:
        balls: the balls.
        image: ``(batch, rows, n + m)``.
        found: bounds to improve on.
        worth: of the rows, 0 for those that need no better bound.
        largest: number of uncertain units up to which a search is made.
    """
    parts = _parts(balls, (worth > 0).any(1), largest)
    if not parts:
        return found
    units, found = balls.uncertain(), found.clone()
    generator = torch.Generator().manual_seed(0)  # of a proposal: the same in every call
    signs = torch.randint(0, 2, (_SUMS, found.shape[1]), generator=generator) * 2.0 - 1
    for samples in parts:
        own, rows = units.of(samples, image)
        kept = int((worth[samples] > 0).sum(1).max())
        index = worth[samples].argsort(dim=1, descending=True)[:, :kept]
        rows = rows.picked(index)
        sums = (signs.double() * worth[samples].sqrt()[:, None]).take_along_dim(index[:, None], 2)
        weights = proposed(own, sums @ rows.matrix, tangents=False, steps=_STEPS).weights
        proved = rises(
            own, rows, Multipliers(weights, weights.new_zeros(len(samples), 1, own.size))
        )
        found[samples] = found[samples].scatter_reduce(1, index, proved, "amin")
    return found


def tightened_norms(balls: Balls, image: Approx, found: Tensor, largest: int) -> Tensor:
    """Tighten bounds of the norms of an image, ``(batch,)``.

    Args:
        balls: the balls.
        image: of the output.
        found: bounds to improve on.
        largest: number of uncertain units, and of rows, up to which a search is made.
    """
    parts = _parts(balls, torch.ones_like(found, dtype=torch.bool), largest)
    if image.matrix.shape[1] > largest or not parts:
        return found
    units, found = balls.uncertain(), found.clone()
    for samples in parts:
        own, rows = units.of(samples, image)
        proved = norms(own, rows, proposed(own, rows.matrix, tangents=False))
        found[samples] = torch.fmin(found[samples], proved)
    return found


def tightened_rises(balls: Balls, image: Approx, found: Tensor, largest: int) -> Tensor:
    """Tighten bounds of the rise of each row of an image, ``(batch, rows)``.

    Where slopes are secants, the rise from the centre; where they are those of two points, tangents
    are not known, and the bound is one of the absolute value.
    """
    if not _parts(balls, (found > 0).any(1), MOST * largest):
        return found
    units, found = balls.uncertain(), found.clone()
    for row in range(found.shape[1]):
        for samples in _parts(balls, found[:, row] > 0, MOST * largest):
            choice = torch.full_like(samples, row)
            found[samples] = torch.fmin(
                found[samples], _rises(units, image, samples, choice, largest)
            )
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
        largest: number of uncertain units that a search takes; of more, some are simplified.
    """
    if not _parts(balls, (found > 0).any(1), MOST * largest):
        return found
    units = balls.uncertain()
    found, done = found.clone(), ~torch.isfinite(margins)
    for _ in range(min(_ROUNDS, found.shape[1])):
        quotients, worst = (margins / found).nan_to_num(torch.inf).min(1)
        known = done.gather(1, worst[:, None])[:, 0]
        # A sample whose ball is certified, or that has a margin of 0, cannot gain.
        wanted = ~known & (quotients > 0) & (quotients < balls.radius)
        if not wanted.any():
            break
        for samples in _parts(balls, wanted, MOST * largest):
            proved = _rises(units, image, samples, worst[samples], largest)
            found[samples] = torch.fmin(found[samples], proved)
        done.scatter_(1, worst[:, None], True)
    return found


def _rises(units: Uncertain, image: Approx, samples: Tensor, row: Tensor, largest: int) -> Tensor:
    """Bound the rise of one row of an image for each sample, and that of all others by the way."""
    own, images = units.of(samples, image)
    single = Approx(images.matrix.take_along_dim(row[:, None, None], 1), images.error)
    if own.size > largest:
        fewer, single, added = reduced(own, single, largest)
        found = proposed(fewer, single.matrix, tangents=True)
        best = upward(rises(fewer, single, found) + added[:, None], 1)
        every = torch.full(images.matrix.shape[:2], torch.inf, dtype=torch.float64)
        return every.scatter(1, row[:, None], best)
    found = proposed(own, single.matrix, tangents=True)
    best = rises(own, single, found)
    every = rises(own, images, Multipliers(found.weights, torch.zeros_like(found.tangents)))
    return every.scatter_reduce(1, row[:, None], best, "amin")


def _parts(balls: Balls, wanted: Tensor, most: int) -> list[Tensor]:
    """Split samples with 1 to ``most`` uncertain units into batches of about as many units."""
    counts = balls.counts()
    chosen = (wanted & (counts > 0) & (counts <= most)).nonzero()[:, 0]
    chosen = chosen[counts[chosen].argsort()]
    parts, start = [], 0
    while start < len(chosen):
        entries = 16 * (balls.inputs + counts[chosen[start:]]) ** 2
        fitting = torch.arange(1, len(entries) + 1) * entries <= _HELD
        stop = start + max(1, int(fitting.sum()))
        parts.append(chosen[start:stop])
        start = stop
    return parts
