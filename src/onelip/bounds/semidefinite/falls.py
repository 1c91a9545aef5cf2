r"""Search for multipliers that prove how far a linear function of the output can rise in a ball.

Where each layer is 1-Lipschitz for a reason that multipliers can state, as in Convex Potential
networks, one number :math:`\lambda` for all products of a layer makes the recursion of
``value_functions.py`` feasible: the one that proves the constant of the layer. What is left, the
multipliers of the lines, is a convex quadratic programme: the Lagrangian of the products is concave
in :math:`\delta` and all w, and has to be largest where each unit is above both of its lines. An
interior-point method solves it; a step is one recursion. (With signs reversed for units that are
below both.)

Nothing here is trusted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.stages import Lines, Placed, Stage
from onelip.bounds.semidefinite.value_functions import (
    Multipliers,
    Step,
    Terms,
    Value,
    backward,
    terms,
)
from onelip.norms.verification import cholesky

_MARGIN = 1e-5  # of the products' multipliers above the least ones, relative
_LADDER = (1.0, 1.1, 1.3, 2.0)  # times the least ones
_LEAST = 0.1  # share of the row's length below which no rise is expected
_STEPS = 40
_GAP = 1e-5  # relative, at which the search ends
_CLOSE = 0.95  # share of the way to the boundary


@dataclass(frozen=True)
class Scales:
    """Multipliers of the products of each stage, and of the ball, for a level 1 of the output."""

    products: list[float]
    ball: float


@torch.no_grad()
def scales(stages: list[Stage]) -> Scales:
    """Choose the multipliers that prove a constant of each stage, from the last to the first."""
    level, found = 1.0, []
    for stage in reversed(stages):
        product, level = _scale(stage, level)
        found.append(product)
    return Scales(found[::-1], level)


def _scale(stage: Stage, level: float) -> tuple[float, float]:
    """Choose a multiplier of the products of one stage, and the level that it leads to."""
    outer = stage.outer.entries
    largest = float(torch.linalg.eigvalsh(outer.mT @ outer)[-1]) if outer.shape[1] else 0.0
    width = stage.inner.entries.shape[1]
    eye = torch.eye(outer.shape[0], dtype=torch.float64)
    zero = eye.new_zeros(())
    after = Value(zero, eye[0] * 0, level * eye)
    low, high = stage.slopes
    nothing = torch.zeros_like(low)
    lines = Lines(torch.stack([low, high]), torch.stack([nothing] * 2), *[nothing] * 4)
    best = (0.0, math.inf)
    wanted = level * float(stage.growth) ** 2 * (1 + 1e-6)
    for factor in _LADDER:
        product = level * largest * factor * (1 + _MARGIN) / 2
        added = terms(lines, Multipliers(nothing + product, torch.stack([nothing] * 2)))
        before, _ = backward(stage, added, after)
        if not torch.isfinite(before.matrix).all():
            continue
        rest = wanted * torch.eye(width, dtype=torch.float64) - before.matrix
        if torch.isfinite(cholesky(rest)).all():
            return product, wanted
        reached = float(torch.linalg.eigvalsh(before.matrix)[-1])
        if reached < best[1]:
            best = product, reached
    return best


@dataclass(frozen=True)
class Problem:
    """What is to be bounded: ``row @ output`` in a ball.

    Attributes:
        network: its stages in the ball.
        row: the row.
        radius: of the ball.
        products: multipliers of the products of each stage.
        weight: multiplier of the ball.
        room: how far each number of the input may move down and up, ``(2, numbers)``; None for as
            far as the ball allows.
    """

    network: list[Placed]
    row: Tensor
    radius: float
    products: list[Tensor]
    weight: float
    room: Tensor | None = None

    @classmethod
    def of(
        cls,
        network: list[Placed],
        row: Tensor,
        radius: float,
        target: float,
        *,
        known: Scales,
        room: Tensor | None = None,
    ) -> "Problem":
        """Scale the multipliers to the row and the ball.

        With the size :math:`a = |row|`, the level :math:`g^2` of the ball and its radius r, a
        multiple t of them proves :math:`(t g^2 r^2 + a^2 / t) / 2`: least for :math:`t = a / g r`,
        if the rise is as large as :math:`a g r`, and for less if it is a smaller one.

        Args:
            network: its stages in the ball.
            row: the row.
            radius: of the ball.
            target: the rise that is looked for.
            known: multipliers of level 1.
            room: see the attributes.
        """
        length = radius * math.sqrt(max(known.ball, 1e-300))
        size = float(row.norm())
        size = max(_LEAST * size, min(size, target / length)) / length
        products = [
            torch.full_like(single.lines.side, size * product)
            for single, product in zip(network, known.products, strict=True)
        ]
        return cls(network, row, radius, products, size * known.ball * (1 + _MARGIN), room)

    @property
    def stages(self) -> list[Stage]:
        """The network without the ball."""
        return [single.stage for single in self.network]

    def walls(self) -> Lines:
        r"""The input's difference as units w, with two lines of slope 0: ``-down <= w <= up``.

        They differ from those of a stage in that w is above the first and below the second.
        """
        room = torch.zeros(2, 0, dtype=torch.float64) if self.room is None else self.room
        size = room.shape[1]
        sides = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        nothing = torch.zeros(size, dtype=torch.float64)
        lines = torch.zeros_like(room), -sides * room, sides.expand(2, size)
        return Lines(*lines, nothing, nothing, nothing)

    def end(self) -> Value:
        """Return the value function after the last stage."""
        zero = self.row.new_zeros(())
        return Value(zero, self.row, self.row.new_zeros(len(self.row), len(self.row)))


@dataclass(frozen=True)
class Recursion:
    """Factors of a recursion, for any terms of first order.

    The first of the terms are those of the walls, and empty where there are none.
    """

    problem: Problem
    steps: list[Step]
    factor: Tensor

    @classmethod
    def of(cls, problem: Problem, added: list[Terms]) -> "Recursion | None":
        """Factor the recursion; None if it is not feasible."""
        value, steps = problem.end(), []
        for stage, single in zip(reversed(problem.stages), reversed(added[1:]), strict=True):
            value, step = backward(stage, single, value)
            steps.append(step)
        square = problem.weight * torch.eye(len(value.slope), dtype=torch.float64) - value.matrix
        if len(added[0].ww):
            square.diagonal().add_(added[0].ww)
        factor = cholesky(square)
        return cls(problem, steps[::-1], factor) if torch.isfinite(factor).all() else None

    def solved(self, added: list[Terms]) -> tuple[float, list[Tensor], list[Tensor]]:
        """Return the bound, and where it is attained: w and z of the walls and of each stage."""
        problem, shifts, walls = self.problem, [], added[0]
        slope, constant = problem.row, 0.0
        for stage, step, single in zip(
            reversed(problem.stages), reversed(self.steps), reversed(added[1:]), strict=True
        ):
            column = stage.outer.entries.mT @ slope + single.w
            shift = torch.linalg.solve_triangular(step.factor, column[:, None], upper=False)[:, 0]
            slope = slope if stage.around is None else stage.around.entries.mT @ slope
            slope = slope + stage.inner.entries.mT @ single.z + step.gain.mT @ shift
            constant += float(single.constant + shift @ shift / 2)
            shifts.append(shift)
        slope = slope + walls.w if len(walls.w) else slope
        change = torch.cholesky_solve(slope[:, None], self.factor)[:, 0]
        constant += problem.weight * problem.radius**2 / 2 + float(slope @ change) / 2
        constant += float(walls.constant)
        moves, inputs = [change[: len(walls.w)]], [torch.zeros_like(walls.w)]
        for stage, step, shift in zip(problem.stages, self.steps, reversed(shifts), strict=True):
            pulled = (step.gain @ change + shift)[:, None]
            move = torch.linalg.solve_triangular(step.factor.mT, pulled, upper=True)[:, 0]
            moves.append(move)
            inputs.append(stage.inner.entries @ change)
            change = change if stage.around is None else stage.around.entries @ change
            change = change + stage.outer.entries @ move
        return constant, moves, inputs


def proposed(problem: Problem, target: float) -> Iterator[tuple[float, list[Multipliers]]]:
    """Yield multipliers with the bounds that they promise, ever better ones: first the walls'.

    Args:
        problem: what is to be bounded.
        target: a bound below which nothing is gained; the search ends where it cannot be reached.
    """
    relations = [problem.walls(), *(single.lines for single in problem.network)]
    sizes = [found.offsets.shape[1] for found in relations]
    nothing = [torch.zeros_like(found.offsets) for found in relations]
    products = [nothing[0][0], *problem.products]
    plain = [Multipliers(*pair) for pair in zip(products, nothing, strict=True)]
    base = [terms(*pair) for pair in zip(relations, plain, strict=True)]
    whole = Recursion.of(problem, base)
    if whole is None:
        return
    # All units at once: slopes, offsets and multipliers of both lines, ``(2, units)``.
    slopes, offsets = (
        torch.cat([getattr(f, n) for f in relations], 1) for n in ("slopes", "offsets")
    )
    side = torch.cat([found.side.expand_as(found.offsets) for found in relations], 1)
    product, held = torch.cat(products), side != 0
    chosen = product * offsets.flip(0).abs()  # these prove the constant of each layer
    product[: sizes[0]] = problem.weight
    chosen = torch.where(held, chosen + 2e-4 * product * problem.radius, 0.0)
    slack = torch.where(held, (-side * offsets).clamp_min(0) + 3e-3 * problem.radius, 1.0)
    share, count = 0.3, max(1, int(held.sum()))
    for _ in range(_STEPS):
        gap = float((chosen * slack).sum())
        centred = share * gap / count
        pull = torch.where(held, centred / slack + chosen, 0.0)
        stiff = chosen / slack
        barrier = _with_barrier(base, sizes, (slopes, offsets, side), pull, stiff)
        recursion = Recursion.of(problem, barrier)
        if recursion is None:
            return
        _, moves, inputs = recursion.solved(barrier)
        new = side * (torch.cat(moves) - slopes * torch.cat(inputs) - offsets)
        new = torch.where(held, new, 1.0)
        new_chosen = pull - torch.where(held, stiff * new, 0.0)
        lengths = _length(slack, new, held), _length(chosen, new_chosen, held)
        slack = slack + lengths[0] * (new - slack)
        chosen = chosen + lengths[1] * (new_chosen - chosen)
        short = min(lengths)
        share = 0.1 if short > 0.8 else 0.3 if short > 0.4 else 0.7
        parts = chosen.clamp_min(0).split(sizes, 1)
        found = [Multipliers(*pair) for pair in zip(products, parts, strict=True)]
        promised, _, _ = whole.solved([terms(*pair) for pair in zip(relations, found, strict=True)])
        yield promised, found
        left = float((chosen * slack).sum())
        if left < _GAP * abs(promised) or (short > 0.8 and promised - 3 * left > target):
            return


def _with_barrier(
    base: list[Terms],
    sizes: list[int],
    lines: tuple[Tensor, Tensor, Tensor],
    pull: Tensor,
    stiff: Tensor,
) -> list[Terms]:
    """Add ``pull g - stiff g^2 / 2`` for the distance g to each line."""
    slopes, offsets, side = lines
    parts = (
        stiff.sum(0),
        (stiff * slopes).sum(0),
        (stiff * slopes.square()).sum(0),
        (stiff * offsets + side * pull).sum(0),
        -((stiff * offsets + side * pull) * slopes).sum(0),
    )
    split = zip(*(part.split(sizes) for part in parts), strict=True)
    return [
        Terms(*(a + b for a, b in zip(single, (*more, 0.0), strict=True)))
        for single, more in zip(base, split, strict=True)
    ]


def _length(old: Tensor, new: Tensor, held: Tensor) -> float:
    """Length of a step from ``old`` to ``new`` that stays positive, 1 at most."""
    falling = held & (new < old)
    if not falling.any():
        return 1.0
    return min(1.0, _CLOSE * float((old / (old - new))[falling].min()))
