r"""Intervals of the slopes of a network's units in a ball, and the constants that follow.

Let :math:`\delta` be the difference of two inputs of a ball. A unit whose slopes lie in
:math:`[a_i, b_i]` maps the difference :math:`t_i` of its inputs to :math:`c_i t_i + h_i^{1/2} w_i`,
with the centre c and the half width h of that interval, and
:math:`|w_i| \le |h_i^{1/2} t_i|`. So all differences in the network are linear images of
:math:`\delta` and of the :math:`w_i` of the units before, and these images are carried from layer
to layer. A unit that cannot switch has :math:`h_i = 0`, and is multiplied out.

An image :math:`A \delta + \sum_j B_j w_j` over layers j, with :math:`|w_j| \le N_j |\delta|` and
:math:`|w_{ji}| \le e_{ji} |\delta|`, is at most

.. math:: |A| + \sum_j \min(|B_j| N_j, \, |B_j| e_j)

times :math:`|\delta|` (the recursion of LipLT, Fazlyab et al., 2023, equation 19, for each sample;
for a row, the second is the sum over its entries). Row by row, it limits how far each unit of the
next layer can move in the ball, hence which units can switch. The proved constants of whole blocks
are taken where they are smaller.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.approx import Approx
from onelip.bounds.neighbourhood.dense_layers import Affine, Layer, Point
from onelip.bounds.neighbourhood.slopes import Slopes
from onelip.bounds.semidefinite.uncertain import Uncertain
from onelip.chains import Elementwise
from onelip.norms.batched import each
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, upward

_SLACK = 1e-6  # of a tangent, relative, beyond which it is not used
_SMALL = 2**14  # entries of a matrix up to which its norm is worth an eigenvalue problem

Rule = Callable[[Elementwise, Tensor, Tensor, Tensor], Slopes]
"""The slopes that count: ``pair_slopes`` or ``secants``, with their arguments."""


class Tighten(Protocol):
    """A way to tighten the constants of the rows of images, as ``tightened_lengths``."""

    def __call__(self, balls: "Balls", image: Approx, found: Tensor, worth: Tensor, /) -> Tensor:
        """Return constants from old ones, and from how much a better one is worth to each row."""


class Units(NamedTuple):
    """Uncertain units of a layer, ``(batch, kept)``, padded by units of weight 0.

    Attributes:
        weight: roots of half the widths of their slopes.
        inputs: their weighted inputs, as images of what comes before.
        entries: bounds of their weighted inputs, per length of the difference of two inputs.
        constant: a bound of all of them together, ``(batch,)``.
        side: see ``semidefinite/uncertain.py``, like the rest.
        sign: of the tangent.
        slack: rounding of the tangent.
    """

    weight: Tensor
    inputs: Approx
    entries: Tensor
    constant: Tensor
    side: Tensor
    sign: Tensor
    slack: Tensor


class Balls:
    """Balls of a radius around a batch of inputs, propagated through a network.

    Constants are those of two inputs of the ball, or of its centre and another input, as the rule
    of slopes says. Images are tightened, layer by layer, by a function.

    Attributes:
        radius: of the balls.
        inputs: number of inputs.
        output: output of the layers at the centres.
        units: uncertain units, layer by layer.
    """

    def __init__(
        self, layers: list[Layer], x: Tensor, radius: Tensor, rule: Rule, tighten: Tighten
    ) -> None:
        self.units: list[Units] = []
        self.radius = radius
        self._rule = rule
        self._tighten = tighten
        zero = torch.zeros_like(x)
        self.output = Point(x, zero, zero[:, 0])
        eye = torch.eye(x.shape[1], dtype=torch.float64)
        self._state = Approx(eye.expand(len(x), -1, -1), zero[:, 0])
        self.inputs = x.shape[1]
        self._growth = torch.ones((), dtype=torch.float64)  # of the layers so far, everywhere
        for layer in layers:
            self._enter(layer)

    def image(self, affine: Affine) -> Approx:
        """Return an affine image of the output, as a linear image of what is before it."""
        return self._state.under(affine)

    def lengths(self, image: Approx) -> Tensor:
        """Lipschitz constants, over the ball, of each row of an image: ``(batch, rows)``."""
        first, *others = self._split(image)
        total = frobenius(first[:, :, None]) + (image.error * self._reach())[:, None]
        total = upward(total, 4)
        for part, units in zip(others, self.units, strict=False):
            by_norm = upward(frobenius(part[:, :, None]) * units.constant[:, None], 1)
            sums = (part.abs() @ units.entries[..., None]).squeeze(2)
            terms = part.shape[2]
            by_entry = upward(sums, terms + 4) + terms * UNDERFLOW
            total = upward(total + torch.fmin(by_norm, by_entry), 1)
        return total

    def norms(self, image: Approx) -> Tensor:
        """Lipschitz constants, over the ball, of an image: ``(batch,)``."""
        first, *others = self._split(image)
        total = upward(_norms(first) + image.error * self._reach(), 4)
        for part, units in zip(others, self.units, strict=False):
            total = upward(total + upward(_norms(part) * units.constant, 1), 1)
        return total

    def counts(self) -> Tensor:
        """Number of uncertain units in each ball."""
        counts = torch.zeros(len(self.radius), dtype=torch.long)
        for units in self.units:
            counts = counts + (units.entries > 0).sum(1)
        return counts

    def uncertain(self) -> Uncertain:
        """Return the units whose slope is not known, everything else multiplied out."""
        batch, counts = len(self.radius), [units.weight.shape[1] for units in self.units]
        rows = torch.zeros(batch, sum(counts), self.inputs + sum(counts), dtype=torch.float64)
        error, start = torch.zeros(batch, dtype=torch.float64), 0
        for units, count in zip(self.units, counts, strict=True):
            rows[:, start : start + count, : self.inputs + start] = units.inputs.matrix
            error, start = error + units.inputs.error, start + count
        layer = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))
        nothing = torch.zeros(batch, 0, dtype=torch.float64)
        entries, side, sign, slack = (
            torch.cat([nothing, *(getattr(units, name) for units in self.units)], 1)
            for name in ("entries", "side", "sign", "slack")
        )
        rows_ = Approx(rows, upward(error, len(counts) + 2))
        layer = layer.expand(batch, -1)
        return Uncertain(rows_, entries, layer, side, sign, slack, torch.zeros_like(error))

    def _enter(self, layer: Layer) -> None:
        """Extend the balls by one layer."""
        image, before = self.image(layer.inner), layer.inner.forward(self.output)
        lengths = torch.fmin(self.lengths(image), upward(layer.inner.lengths * self._growth, 1))
        slopes = self._slopes(layer, before, lengths)
        # Only units that may switch, as far as is known, gain from a tighter bound.
        lengths = self._tighten(self, image, lengths, slopes.high - slopes.low)
        slopes = self._slopes(layer, before, lengths)
        centre = (slopes.low + slopes.high) / 2
        # The centre is rounded: the half width covers both ends of the interval from it.
        width = upward(torch.maximum(slopes.high - centre, centre - slopes.low), 1)
        index, units = self._uncertain_units(image, lengths, slopes, width)
        self.units.append(units)

        columns = torch.zeros(*centre.shape, index.shape[1], dtype=torch.float64)
        columns.scatter_(1, index[:, None], units.weight[:, None])
        state = image.scaled(centre).beside(columns)
        state = state if layer.outer is None else state.under(layer.outer)
        if layer.skip is not None:
            around = self._state.under(layer.skip).beside(
                columns.new_zeros(1).expand(len(centre), layer.skip.matrix.shape[0], index.shape[1])
            )
            state = state.plus(around)
        self._state = state
        self.output = layer.behind(self.output, before)
        self._growth = upward(self._growth * layer.constant, 1)

    def _uncertain_units(
        self, image: Approx, lengths: Tensor, slopes: Slopes, width: Tensor
    ) -> tuple[Tensor, Units]:
        """Return which units are uncertain, and what is known of them."""
        kept = int((width > 0).sum(1).max()) if len(width) else 0
        index = width.argsort(1, descending=True)[:, :kept]
        weight = upward(width.gather(1, index).sqrt(), 1)
        entries = upward(lengths.gather(1, index) * weight, 1)
        inputs = image.picked(index).scaled(weight)
        constant = torch.fmin(self.norms(inputs), frobenius(entries[:, None]))
        low, high, side, tangent = (part.gather(1, index) for part in slopes)
        # The tangent is at one end of the interval: |centre - tangent| is the half width.
        away = (low + high) / 2 - tangent
        slack = (1 - away.abs() / weight.square()).abs() + 16 * UNIT
        usable = (slack < _SLACK) & (entries > 0)
        side, slack = torch.where(usable, side, 0.0), torch.where(usable, slack, 0.0)
        return index, Units(weight, inputs, entries, constant, side, torch.sign(away), slack)

    def _slopes(self, layer: Layer, before: Point, lengths: Tensor) -> Slopes:
        """Slopes of the units of a layer that move at most ``lengths`` times the radius."""
        reach = upward(lengths * self.radius[:, None], 2)
        parts = (t.unflatten(1, layer.shape) for t in (before.values, before.entries, reach))
        found = self._rule(layer.nonlinearity, *parts)
        return Slopes(*(part.flatten(1) for part in found))

    def _split(self, image: Approx) -> list[Tensor]:
        """Split an image by where it comes from: the input, the units of each layer so far."""
        sizes, left = [self.inputs], image.matrix.shape[2] - self.inputs
        for units in self.units:
            if left:
                sizes.append(units.weight.shape[1])
                left -= sizes[-1]
        return list(image.matrix.split(sizes, 2))

    def _reach(self) -> Tensor:
        """Bound the length of all that images are of, per length of the input's difference."""
        squares = torch.ones_like(self.radius)
        for units in self.units:
            squares = upward(squares + units.constant.square(), 2)
        return upward(squares.sqrt(), 1)


def _norms(matrices: Tensor) -> Tensor:
    """Bound the spectral norms of a batch, by an eigenvalue problem where it is small."""
    if matrices[0].numel() <= _SMALL:
        return each(matrices)
    sizes = matrices.abs()
    # |M|^2 is at most the largest sum of a row times the largest sum of a column (Schur).
    rows, columns = sizes.sum(2).amax(1), sizes.sum(1).amax(1)
    return torch.fmin(
        upward((rows * columns).sqrt(), sum(matrices.shape[1:]) + 4), frobenius(matrices)
    )
