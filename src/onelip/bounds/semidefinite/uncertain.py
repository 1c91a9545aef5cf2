r"""Bounds of linear images of a network of which only some units have an uncertain slope.

Everything with a fixed slope is multiplied out. What is left are the difference :math:`\delta` of
two inputs and, for each of m uncertain units, the part :math:`w_i` of its output that its slope is
uncertain about,

.. math:: z = A \delta + B w, \qquad |w_i| \le |z_i|, \qquad y = p \delta + q w .

B is strictly lower block triangular, layer by layer, with every bypass that a fixed unit makes, so
that this is no plain chain as in ``multipliers.py``. With weights :math:`\gamma > 0`, put
:math:`u = (\delta, \gamma^{-1/2} w)` and :math:`X = \gamma^{-1/2} (A, B \gamma^{1/2})`. Then
:math:`|w_i| \le |z_i|` reads :math:`|\delta|^2 \ge u^T M u` for :math:`M = I - X^T X`, and if M is
positive semidefinite, Cauchy and Schwarz give for *any* vector v

.. math:: y = \hat y u \le \sqrt{v^T M v} \, |\delta| + |\hat y - M v| |u|, \qquad
          \hat y = (p, q \gamma^{1/2}) .

The second term is rounding for :math:`v = M^{-1} \hat y`. So one Cholesky factorisation of the m
rows of :math:`I - X X^T` proves bounds of all images; the weights and v are only proposals.

**Tangents.** Where a unit is known to stay on one side of its tangent at the centre
(``neighbourhood/slopes.py``), :math:`\sigma_i (w_i + s_i z_i) \ge 0` with signs
:math:`\sigma, s`. For a bound of how far y can *rise*, any multiple :math:`\mu_i \ge 0` of it may
be added to y first. That is the one-sided half of a linear relaxation; it costs nothing in units
that push y the other way.

**Search.** :math:`\rho = \hat y^T M^{-1} \hat y` is a convex function of :math:`1 / \gamma` and
:math:`\mu` together: a supremum of linear ones. Newton's method needs :math:`(I - X X^T)^{-1}` and
two products.

Reference: the inequality is that of LipSDP (Fazlyab et al., 2019) and of structured singular values
(Doyle, 1982), with elimination; one-sided relaxations in l2 balls as in SDP-CROWN (Chiu et al.,
2025).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.approx import Approx
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, gamma, product_error, upward
from onelip.norms.verification import Dense, above, cholesky

STEPS = 20
"""Steps of Newton's method."""

_HALVINGS = 6  # of a step that leaves the cone, by a factor of 3 each
_GAP = 6e-3  # relative, at which the search ends
_FIRST = 0.3  # the gap of the barrier at the start, relative
_SHRINK = 0.2  # of the weight of the barrier
_CENTRED = 10.0  # squared Newton decrement from which on it shrinks


class Uncertain(NamedTuple):
    """Uncertain units of a batch of samples.

    Attributes:
        rows: the matrices ``(A, B)``, ``(batch, m, n + m)``.
        entries: bounds of ``|z_i| / |delta|``, ``(batch, m)``; 0 for padding.
        layer: number of the layer of each unit, ascending, ``(batch, m)``.
        side: 1 or -1 where the tangent of a unit holds, else 0: ``side (w + sign z)`` is at least
            ``-slack |z|``.
        sign: 1 or -1.
        slack: rounding of the tangents.
        spare: how far the squared length of what is ahead of the units in an image exceeds
            ``|delta|^2``, relatively, ``(batch,)``; 0 where that is delta alone.
    """

    rows: Approx
    entries: Tensor
    layer: Tensor
    side: Tensor
    sign: Tensor
    slack: Tensor
    spare: Tensor

    @property
    def size(self) -> int:
        """Number of units, padding included."""
        return self.rows.matrix.shape[1]

    def vectors(self, change: Callable[[Tensor], Tensor]) -> "Uncertain":
        """Change what there is for each unit, but for the rows."""
        entries, layer = change(self.entries), change(self.layer)
        side, sign, slack = change(self.side), change(self.sign), change(self.slack)
        return Uncertain(self.rows, entries, layer, side, sign, slack, self.spare)

    def of(self, samples: Tensor, images: Approx) -> tuple["Uncertain", Approx]:
        """Select some of the samples, and of images of all, without what is padding in them."""
        order = _first(self.entries[samples] > 0)
        ahead = self.rows.matrix.shape[2] - self.size
        inputs = torch.arange(ahead).expand(len(samples), -1)
        columns = torch.cat([inputs, ahead + order], 1)[:, None]
        rows = self.rows.matrix[samples].take_along_dim(order[:, :, None], 1)
        rows = rows.take_along_dim(columns, 2)
        image = images.matrix[samples].take_along_dim(columns, 2)
        units = self.vectors(lambda part: part[samples].take_along_dim(order, 1))
        exact = Approx(rows, self.rows.error[samples])
        return units._replace(rows=exact, spare=self.spare[samples]), Approx(
            image, images.error[samples]
        )


class Multipliers(NamedTuple):
    """Proposals of a search.

    Attributes:
        weights: the positive numbers gamma, ``(batch, m)``.
        tangents: ``side mu gamma^(1/2)``, ``(batch, rows, m)`` or ``(batch, 1, m)`` for all rows.
    """

    weights: Tensor
    tangents: Tensor


# The proof.


class _Proof(NamedTuple):
    """Quadratic part, ``(batch, rows, rows)``, its error, and what is left over, row by row."""

    square: Tensor
    off: Tensor
    growth: Tensor
    left: Tensor


@torch.no_grad()
def rises(units: Uncertain, images: Approx, multipliers: Multipliers) -> Tensor:
    """Bounds of how far each row of an image can rise, per length of the input.

    Bound: for any multipliers; infinite where they prove nothing. Without tangents it is a bound of
    the absolute value.
    Shape: images ``(batch, rows, n + m)``, to ``(batch, rows)``.
    """
    square, off, growth, left = _proof(units, images, multipliers)
    diagonal = upward(square.diagonal(dim1=1, dim2=2).clamp_min(0) + off[:, None], 4)
    found = upward(diagonal.sqrt() * growth[:, None] + left, 8)
    return found.nan_to_num(torch.inf, torch.inf)


@torch.no_grad()
def norms(units: Uncertain, images: Approx, multipliers: Multipliers) -> Tensor:
    """Bounds of the Euclidean norm of an image, per length of the input: ``(batch,)``.

    Raises:
        ValueError: multipliers with tangents, which bound single rows.
    """
    if multipliers.tangents.any():
        raise ValueError("tangents bound single rows")
    square, off, growth, left = _proof(units, images, multipliers)
    safe = torch.where(torch.isfinite(square).all(-1).all(-1)[:, None, None], square, 0.0)
    largest = torch.linalg.eigvalsh(safe)[:, -1].clamp_min(0) * (1 + 1e-10)
    level = torch.fmin(above(Dense(safe), largest).bound, frobenius(safe))
    level = upward(level.clamp_min(0) + off, 4)
    found = upward(level.sqrt() * growth + frobenius(left[:, None]), 8)
    broken = ~torch.isfinite(square).all(-1).all(-1)
    return torch.where(broken, torch.inf, found.nan_to_num(torch.inf, torch.inf))


def _proof(units: Uncertain, images: Approx, multipliers: Multipliers) -> _Proof:
    """Bound the quadratic form of the images, and what any vectors leave over."""
    root = multipliers.weights.sqrt()
    matrix, count = _scaled(units.rows.matrix, root), units.size
    total = matrix.shape[2]
    matrix = matrix / root[:, :, None]
    size = frobenius(matrix)
    largest = root.amax(1).clamp_min(1) if count else root.new_ones(len(root))
    spread = upward(largest / root.amin(1), 2) if count else largest
    # E: what X is off by. Each entry is rounded twice.
    error = upward(units.rows.error * spread + 3 * UNIT * size + matrix[0].numel() * UNDERFLOW, 8)
    reach = upward(units.entries / root, 2)
    first = 1 + units.spare
    length = upward(first + reach.square().sum(1), count + 4).sqrt()  # K: |u| is at most K |delta|
    length = upward(length, 2)

    gram = matrix @ matrix.mT
    trial = above(Dense(gram), torch.ones_like(error))
    bound = trial.bound if count else torch.ones_like(error)
    above_one = upward((bound - 1).clamp_min(0) + product_error(matrix) + 2 * UNIT * bound, 8)
    norm = upward(1 + above_one, 2).sqrt()  # of X
    drift = upward((2 * norm + error) * error * length.square(), 16)
    growth = upward(first + drift + above_one * length.square(), 8).sqrt()

    tangents = multipliers.tangents * units.side[:, None]  # the numbers mu, if they are positive
    tangents = torch.where(tangents > 0, multipliers.tangents, 0.0)
    rows = _scaled(images.matrix, root)
    slopes = frobenius(tangents[:, :, None])
    before = frobenius(rows[:, :, None])
    rows = rows + (tangents * units.sign[:, None]) @ matrix
    rows[..., total - count :] += tangents
    lengths = frobenius(rows[:, :, None])
    norms_of = (norm[:, None], size[:, None], error[:, None])
    lost = upward(images.error * largest, 2)[:, None] + slopes * norms_of[2]
    lost = lost + 8 * UNIT * (before + slopes + lengths) + gamma(count + 6) * slopes * norms_of[1]
    slack = (tangents.abs() * (units.slack * reach)[:, None]).sum(2)

    weighed = rows @ matrix.mT
    solved = torch.cholesky_solve(weighed.mT, trial.factor).mT if count else weighed
    vectors = rows + solved @ matrix  # M^-1 y, about: nothing rests on it
    inner = vectors @ matrix.mT
    sizes, inners = frobenius(vectors[:, :, None]), frobenius(inner[:, :, None])
    inner_off = upward(gamma(total + 2) * sizes * norms_of[1], 4) + total * UNDERFLOW
    left = frobenius((rows - vectors + inner @ matrix)[:, :, None])
    left = left + gamma(count + 6) * inners * norms_of[1] + inner_off * norms_of[0]
    left = left + 8 * UNIT * (lengths + sizes + left) + above_one[:, None] * sizes + lost
    left = upward(upward(left, 24) * length[:, None] + slack, count + 8) + total * UNDERFLOW
    square = vectors @ vectors.mT - inner @ inner.mT
    off = product_error(vectors.mT) + product_error(inner.mT)
    off = off + 4 * UNIT * (frobenius(vectors).square() + frobenius(inner).square())
    moved = frobenius(inner_off[:, None])
    off = off + (2 * frobenius(inner) + moved) * moved + above_one * frobenius(vectors).square()
    return _Proof(square, upward(off, 24), growth, left)


def _scaled(rows: Tensor, root: Tensor) -> Tensor:
    """Scale the last m columns."""
    ahead = rows.shape[2] - root.shape[1]
    return torch.cat([rows[..., :ahead], rows[..., ahead:] * root[:, None]], 2)


# Too many units: some of them are taken for inputs.


@torch.no_grad()
def reduced(units: Uncertain, image: Approx, largest: int) -> tuple[Uncertain, Approx, Tensor]:
    r"""Reduce the number of uncertain units, for a bound of the rise of one image.

    * A unit whose tangent says that it only lowers the image, ``side q <= 0`` for its coefficient
      q, is replaced by its tangent, from the last layer to the first: that adds
      ``-q (w + sign z)`` to the image, which is at least 0.
    * The units with the largest products of coefficient and entry stay what they are. The others
      are taken for inputs of their own: :math:`|w_i| \le e_i |\delta|` makes
      :math:`|\delta|^2 + \sum w_i^2 / \gamma_i` at most :math:`1 + \sum e_i^2 / \gamma_i` times
      :math:`|\delta|^2`, for any positive :math:`\gamma`.

    Args:
        units: the units.
        image: ``(batch, 1, n + m)``.
        largest: how many units stay at most.

    Returns:
        The units that stay, the image, and what has to be added to a bound of its rise, per length
        of the input: ``(batch,)``.
    """
    trial, _ = _lowered(units, image, units.entries < 0)
    ahead = image.matrix.shape[2] - units.size
    both = image.matrix[:, 0, ahead:].abs() + trial.matrix[:, 0, ahead:].abs()
    score = both * units.entries
    order = score.argsort(dim=1, descending=True)
    chosen = torch.zeros_like(score, dtype=torch.bool).scatter_(1, order[:, :largest], True)
    chosen &= score > 0
    image, added = _lowered(units, image, chosen)

    kept, rest = _first(chosen), _first(~chosen & (units.entries > 0))
    inside = chosen.gather(1, kept)
    outside = (~chosen & (units.entries > 0)).gather(1, rest)
    inputs = torch.arange(ahead).expand(len(kept), -1)
    columns = torch.cat([inputs, ahead + rest, ahead + kept], 1)[:, None]
    rows = units.rows.matrix.take_along_dim(kept[:, :, None], 1).take_along_dim(columns, 2)
    rows = rows * inside[:, :, None]
    numbers = image.matrix.take_along_dim(columns, 2)
    few = units.vectors(lambda part: part.gather(1, kept))
    entries = torch.where(inside, few.entries, 0.0)
    few = few._replace(rows=Approx(rows, units.rows.error), entries=entries)
    far = torch.where(outside, units.entries.gather(1, rest), 0.0)

    weights = _rest_weights(few, rows, numbers, far)
    ones = torch.ones(len(kept), ahead, dtype=torch.float64)
    root = torch.cat([ones, weights.sqrt(), torch.ones_like(few.entries)], 1)[:, None]
    spare = upward((far.square() / weights).sum(1), far.shape[1] + 4)
    largest_root = root.flatten(1).amax(1) if root.numel() else root.new_ones(len(root))
    new_rows, new_numbers = rows * root, numbers * root
    error = units.rows.error * largest_root + 2 * UNIT * frobenius(new_rows)
    off = image.error * largest_root + 2 * UNIT * frobenius(new_numbers)
    lost = rows[0].numel() * UNDERFLOW
    exact = Approx(new_rows, upward(error + lost, 4))
    found = few._replace(rows=exact, spare=upward(spare + units.spare, 1))
    return found, Approx(new_numbers, upward(off + lost, 4)), added


def _lowered(units: Uncertain, image: Approx, kept: Tensor) -> tuple[Approx, Tensor]:
    """Replace units that only lower an image by their tangents, except those that are kept."""
    matrix, error = image.matrix.clone(), image.error
    ahead, added = matrix.shape[2] - units.size, torch.zeros_like(error)
    usable = (units.side != 0) & (units.entries > 0) & ~kept
    layers = units.layer[usable].unique().tolist() if usable.any() else []
    for layer in reversed(layers):
        slopes = matrix[:, 0, ahead:]
        replaced = usable & (units.layer == layer) & (units.side * slopes < 0)
        slopes = torch.where(replaced, -slopes, 0.0)
        matrix[:, 0, ahead:].masked_fill_(replaced, 0.0)  # the sum is exact
        rows = (slopes * units.sign)[:, None] @ units.rows.matrix
        size = frobenius(slopes[:, None])
        new = size * units.rows.error + gamma(units.size + 4) * size * frobenius(units.rows.matrix)
        matrix = matrix + rows
        error = upward(error + new + 2 * UNIT * frobenius(matrix) + units.size * UNDERFLOW, 8)
        added = added + upward((slopes.abs() * units.slack * units.entries).sum(1), 8)
    return Approx(matrix, error), upward(added, units.size + len(layers) + 8)


def _rest_weights(few: Uncertain, rows: Tensor, image: Tensor, far: Tensor) -> Tensor:
    """Choose the weights of units that are taken for inputs: any positive numbers are valid."""
    ahead = rows.shape[2] - far.shape[1] - few.size
    between = slice(ahead, ahead + far.shape[1])
    kept = torch.cat([rows[..., :ahead], rows[..., ahead + far.shape[1] :]], 2)
    alone = feasible(few._replace(rows=Approx(kept, few.rows.error)))
    level = image[:, 0, :ahead].norm(dim=1) + (image[:, 0, between].abs() * far).sum(1)
    level = level.clamp_min(1e-300)[:, None]
    inside = (rows[..., between].square() / alone[:, :, None]).sum(1)
    influence = (image[:, 0, between].square() + level.square() * inside).sqrt()
    weights = far * level / influence.clamp_min(1e-9 * level)
    return torch.where((weights > 0) & torch.isfinite(weights), weights, 1.0)


def _first(flags: Tensor) -> Tensor:
    """Return the indices of the flagged entries in their order, padded by others."""
    count = int(flags.sum(1).max()) if len(flags) else 0
    return flags.double().argsort(dim=1, descending=True, stable=True)[:, :count]


# The search: nothing from here on is trusted.


@torch.no_grad()
def feasible(units: Uncertain) -> Tensor:
    """Return weights for which ``I - X X^T`` is positive, layer by layer: ``(batch, m)``.

    With K layers, X X^T is at most K times its blocks on the diagonal, and a block is at most the
    sums of its rows.
    """
    rows, found = units.rows.matrix, torch.ones_like(units.entries)
    alive = units.entries > 0
    first, last = (int(end) for end in units.layer[alive].aminmax()) if alive.any() else (0, -1)
    for layer in range(first, last + 1):
        own = (units.layer == layer) & alive
        past = torch.where(units.layer < layer, found, 0.0).sqrt()
        every = torch.where(own[:, :, None], _scaled(rows, past), 0.0)
        sums = (every @ every.mT).abs().sum(2)
        found = torch.where(own, 1.1 * (last - first + 1) * sums, found)
    return torch.where(found > 0, found, 1.0)


class _Point(NamedTuple):
    """Iterate: the weights, the multiples of the tangents in scaled coordinates."""

    weights: Tensor
    tangents: Tensor


class _State(NamedTuple):
    """What an iterate comes to."""

    merit: Tensor
    level: Tensor  # tau, the best one
    logs: Tensor  # barriers but that of the level
    square: Tensor  # Y M^-1 Y^T
    matrix: Tensor  # X
    factor: Tensor
    vectors: Tensor  # the uncertain part of M^-1 Y^T
    solved: Tensor  # X M^-1 Y^T


@torch.no_grad()
def proposed(
    units: Uncertain, images: Tensor, *, tangents: bool, steps: int = STEPS
) -> Multipliers:
    r"""Multipliers that make the image small: nearly optimal ones, by Newton's method.

    With a barrier for each cone,
    :math:`\tau / \epsilon - \log\det(\tau - Y M^{-1} Y^T) - \log\det M - \sum \log \mu` is
    self-concordant; the weight of the barrier falls where a step was short.

    Args:
        units: the units.
        images: ``(batch, rows, n + m)``; with tangents a single row.
        tangents: whether the tangents of units are used.
        steps: how many at most.
    """
    if not units.size:
        return Multipliers(units.entries, units.entries[:, None])
    search = _Search(_single(units), images.float(), tangents)
    point = search.start()
    state = search.at(point)
    best, least = point, search.value(state)
    for _ in range(steps):
        going = ~search.done(state)  # each sample ends by itself, whatever else is in the batch
        if not going.any():
            break
        point, state = search.step(point, state)
        value = search.value(state)
        better = going & (value < least)
        pairs = zip(point, best, strict=True)
        best = _Point(*(torch.where(_as(better, new), new, old) for new, old in pairs))
        least = torch.where(better, value, least)
    return Multipliers(best.weights.double(), (best.tangents * search.side).double()[:, None])


def _single(units: Uncertain) -> Uncertain:
    """Round to single precision, in which a search is twice as fast."""
    rows = Approx(units.rows.matrix.float(), units.rows.error)
    side, sign, entries = (part.float() for part in (units.side, units.sign, units.entries))
    return units._replace(rows=rows, side=side, sign=sign, entries=entries)


class _Search:
    """Barrier method for one batch."""

    def __init__(self, units: Uncertain, images: Tensor, tangents: bool) -> None:
        self.units, self.images = units, images
        self.alive = units.entries > 0
        self.side = torch.where(self.alive, units.side, 0.0) * float(tangents)
        self.held = self.side != 0
        self.cones = self.alive.sum(1) + self.held.sum(1) + images.shape[1]
        self.barrier = torch.ones(len(images), dtype=torch.float32)

    def start(self) -> _Point:
        """Return an inner point, and set the weight of the barrier to match it."""
        weights = feasible(self.units)
        point = _Point(weights, torch.zeros_like(weights))
        level = self.value(self.at(point)).clamp_min(1e-30)
        rows = _scaled(self.images, weights.sqrt())[:, 0, self.images.shape[2] - weights.shape[1] :]
        spread = (level / max(1, weights.shape[1])).sqrt()[:, None]
        self.barrier = _FIRST * level / self.cones
        return _Point(weights, torch.where(self.held, 0.05 * (rows.abs() + 0.1 * spread), 0.0))

    def at(self, point: _Point) -> _State:
        """Evaluate an iterate; its merit is infinite outside the cones."""
        root = point.weights.sqrt()
        matrix = _scaled(self.units.rows.matrix, root) / root[:, :, None]
        ahead = matrix.shape[2] - matrix.shape[1]
        rows = _scaled(self.images, root)
        tangents = (point.tangents * self.side)[:, None]
        rows = rows + (tangents * self.units.sign[:, None]) @ matrix
        rows[..., ahead:] += tangents
        eye = torch.eye(matrix.shape[1], dtype=torch.float32)
        factor = cholesky(eye - matrix @ matrix.mT)
        weighed = rows @ matrix.mT
        solved = torch.cholesky_solve(weighed.mT, factor).mT
        hidden = matrix[..., ahead:]
        square = rows @ rows.mT + weighed @ solved.mT
        logs = torch.where(self.alive, point.weights.log(), 0.0).sum(1)
        logs = logs - 2 * _diagonal(factor).log().sum(1)
        moved = point.tangents.clamp_min(1e-30).log() - point.weights.log() / 2
        logs = logs - torch.where(self.held, moved, 0.0).sum(1)
        vectors = rows[..., ahead:] + solved @ hidden
        state = _State(logs, logs, logs, square, hidden, factor, vectors, solved)
        return self._levelled(state)

    def _levelled(self, state: _State) -> _State:
        """Fill in the best level, and the merit, for the weight of the barrier."""
        level, merit = self._level(state.square)
        merit = (merit + state.logs).nan_to_num(torch.inf, torch.inf)
        return state._replace(level=level, merit=merit)

    def _level(self, square: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level with the least merit, and that merit without the other barriers."""
        if square.shape[1] == 1:
            level = square[:, 0, 0] + self.barrier
            return level, level / self.barrier - self.barrier.log()
        usable = torch.isfinite(square).all(-1).all(-1)
        values = torch.linalg.eigvalsh(torch.where(usable[:, None, None], square, 0.0))
        low, high = (values[:, -1] + count * self.barrier for count in (1, values.shape[1]))
        for _ in range(30):  # the sum falls with the level
            middle = (low + high) / 2
            over = (1 / (middle[:, None] - values)).sum(1) > 1 / self.barrier
            low, high = torch.where(over, middle, low), torch.where(over, high, middle)
        merit = high / self.barrier - (high[:, None] - values).log().sum(1)
        return high, torch.where(usable, merit, torch.inf)

    def value(self, state: _State) -> Tensor:
        """Return the squared bound that an iterate promises."""
        if state.square.shape[1] == 1:
            found = state.square[:, 0, 0]
        else:
            usable = torch.isfinite(state.square).all(-1).all(-1)
            found = torch.linalg.eigvalsh(torch.where(usable[:, None, None], state.square, 0.0))
            found = torch.where(usable, found[:, -1], torch.inf)
        return found.nan_to_num(torch.inf)

    def done(self, state: _State) -> Tensor:
        """Whether the gap is small, for each sample."""
        return self.barrier * self.cones <= _GAP * state.level

    def step(self, point: _Point, state: _State) -> tuple[_Point, _State]:
        """Take a damped Newton step, and lower the barrier where it was a short one."""
        slope, hessian = self._derivatives(point, state)
        free = torch.cat([self.alive, self.held], 1)
        hessian = torch.where(free[:, :, None] & free[:, None], hessian, 0.0)
        slope = torch.where(free, slope, 0.0)
        size = _diagonal(hessian)
        ridge = torch.where(size > 0, 1e-6 * size, 1.0)
        move = -torch.cholesky_solve(slope[..., None], cholesky(hessian + torch.diag_embed(ridge)))
        move = move[..., 0].nan_to_num(0.0)
        short = (-move).amax(1).clamp_min(1e-6)
        length = (0.95 / short).clamp_max(1.0)
        found, reached = point, state
        moving = torch.ones_like(length, dtype=torch.bool)
        for _ in range(_HALVINGS):
            new = self._moved(point, move * length[:, None])
            there = self.at(new)
            better = moving & (there.merit < state.merit)
            pairs = zip(new, found, strict=True)
            found = _Point(*(torch.where(_as(better, a), a, b) for a, b in pairs))
            pairs = zip(there, reached, strict=True)
            reached = _State(*(torch.where(_as(better, a), a, b) for a, b in pairs))
            moving = moving & ~better
            if not moving.any():
                break
            length = torch.where(moving, length / 3, length)
        short_one = -(slope * move).sum(1) < _CENTRED
        least = 0.5 * _GAP * reached.level / self.cones
        lower = torch.where(short_one, _SHRINK * self.barrier, self.barrier)
        self.barrier = torch.maximum(lower, torch.minimum(least, self.barrier))
        return found, self._levelled(reached)

    def _moved(self, point: _Point, move: Tensor) -> _Point:
        """Move relatively: the inverse weights, the multiples of tangents."""
        change, turned = (1 + move).tensor_split(2, 1)
        return _Point(point.weights / change, point.tangents * turned / change.sqrt())

    def _derivatives(self, point: _Point, state: _State) -> tuple[Tensor, Tensor]:
        """Return the gradient and Hessian of the merit at the best level, relatively."""
        hidden, out, into = state.matrix, state.vectors, state.solved  # out: w, into: z
        eye = torch.eye(self.units.size, dtype=torch.float32)
        inverse = torch.cholesky_inverse(state.factor)
        cross = inverse @ hidden  # X M^-1 at the units
        last = hidden.mT @ cross + eye  # M^-1 at the units
        inverse = inverse - eye  # X M^-1 X^T
        gap = state.level[:, None, None] * torch.eye(out.shape[1], dtype=torch.float32)
        heavy = torch.cholesky_inverse(cholesky(gap - state.square))
        out_out, out_in = out.mT @ heavy @ out, out.mT @ heavy @ into
        in_in, twice = into.mT @ heavy @ into, heavy @ heavy
        slope = _diagonal(in_in - out_out) - _diagonal(last) + _diagonal(inverse)
        hessian = in_in.square() - out_in.square() - out_in.mT.square() + out_out.square()
        hessian = hessian + 2 * (
            out_out * last - out_in * cross.mT - out_in.mT * cross + in_in * inverse
        )
        hessian = hessian + last.square() - cross.square() - cross.mT.square() + inverse.square()
        # The level follows: a Schur complement.
        at_level = _diagonal(into.mT @ twice @ into - out.mT @ twice @ out)
        corner = heavy.square().sum((1, 2))[:, None]

        sign, mu = self.units.sign, point.tangents * self.side
        weight = heavy[:, 0, 0][:, None]
        pull = 2 * mu * (out + sign[:, None] * into)[:, 0]
        ties = last + cross.mT * sign[:, None] + sign[:, :, None] * cross
        ties = ties + sign[:, :, None] * sign[:, None] * inverse
        ties = 2 * mu[:, :, None] * ties * mu[:, None]
        ties = (weight * pull)[:, :, None] * (weight * pull)[:, None] + weight[..., None] * ties
        ties = ties + torch.diag_embed(self.held.float())
        mixed = (last + sign[:, :, None] * cross) * out[:, :1]
        mixed = mixed - (cross.mT + sign[:, :, None] * inverse) * into[:, :1]
        mixed = -2 * weight[..., None] * mu[:, :, None] * mixed
        turn = (into.square() - out.square())[:, :1]
        mixed = mixed + (weight.square() * pull)[:, :, None] * turn
        slopes = torch.cat([slope, weight * pull - self.held.float()], 1)
        at_level = torch.cat([at_level, weight.square() * pull], 1)
        top, bottom = torch.cat([hessian, mixed.mT], 2), torch.cat([mixed, ties], 2)
        both = torch.cat([top, bottom], 1)
        return slopes, both - at_level[:, :, None] * (at_level / corner)[:, None]


def _diagonal(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2)


def _as(flags: Tensor, like: Tensor) -> Tensor:
    """Shape one flag per sample for broadcasting."""
    return flags.reshape(-1, *[1] * (like.ndim - 1))
