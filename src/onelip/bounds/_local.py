r"""Proved Lipschitz bounds around single inputs, and the radii that they certify.

Within a small ball most units of a ReLU network cannot switch: their slopes are fixed, and the
network is close to one linear map. This is the idea of Local-Lip (Huang, Zhang, Shi, Kolter,
Anandkumar, NeurIPS 2021), with proved norms instead of power iteration, and without the global
product of norms that remains there: fixed units are multiplied out (``ball.py``).
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from onelip.bounds._eclipse import ECLipsE
from onelip.bounds._liplt import LipLT
from onelip.bounds._lipsdp import LipSDP
from onelip.bounds.logit_bounds import LogitBounds, least
from onelip.bounds.method import BoundMethod, Network, chain_of
from onelip.bounds.neighbourhood.approx import Approx
from onelip.bounds.neighbourhood.ball import Balls, Rule
from onelip.bounds.neighbourhood.dense_layers import Affine, Layer, layers
from onelip.bounds.neighbourhood.slopes import pair_slopes, secants
from onelip.bounds.neighbourhood.tightened import (
    MOST,
    tightened_lengths,
    tightened_norms,
    tightened_quotients,
    tightened_rises,
)
from onelip.bounds.neighbourhood.whole_balls import WholeBalls
from onelip.bounds.semidefinite.matrices import refuse_other_blocks
from onelip.chains import Chain, Shape
from onelip.errors import NotApplicableError, UsageError
from onelip.norms.rounding import UNIT, asked_once, downward, frobenius, upward

_HELD = 2**24  # entries of a product of layers that are held at a time
_ENOUGH = 0.01  # relative distance of the ends of a bracket at which bisection stops
_ABOVE = 1e-3  # relative distance above what is certified from which on a ball is tried
_FARTHER = 1.25  # times a whole ball that is certified, for the next one
_FARTHEST = 1e100  # a radius beyond which no ball is tried
_CHEAP = 1e9  # multiplications up to which a global method caps local bounds unasked


class LocalRadius(NamedTuple):
    """Predicted classes, and radii in which they cannot change."""

    prediction: Tensor
    radius: Tensor


class LocalBounds(NamedTuple):
    """Proved constants of the predicted logit minus each other logit, from the centres of balls.

    Attributes:
        radius: of the balls, ``(batch,)``; infinite for constants that hold everywhere, 0 for a
            sample that was not looked at.
        prediction: ``(batch,)``, the largest logit at the input, computed in float64.
        margins: ``(batch, classes)``, lower bounds of the exact differences of logits at the input.
        slopes: ``(batch, classes)``, bounds of how fast these differences can fall from the
            centre to another point of the ball (``Local.from_centre``).
        falls: ``(batch, classes)``, bounds of how far they can fall in the whole ball; they say
            nothing of how far in a smaller one. Infinite where nothing but the slope is known.
    """

    radius: Tensor
    prediction: Tensor
    margins: Tensor
    slopes: Tensor
    falls: Tensor


@dataclass(frozen=True)
class Local(BoundMethod):
    r"""Local Lipschitz bounds around given inputs, and the radii that they certify.

    Bound: for all y, z at most ``radius`` from an input, :math:`|f(y) - f(z)| \le L |y - z|`. Never
    above the global bound of ``cap``; for a small radius, and an input where no unit is about to
    switch, the norm of the Jacobian. Usually, not always, larger for larger balls; a bound for a
    ball holds in every smaller ball inside it.
    Cost: for each input and radius, one product per layer with as many columns as inputs and
    uncertain units, and a search of some ten factorisations of the uncertain units for each layer
    and each difference of logits: 3 ms without and 0.3 s with 100 of them, some seconds from 500
    on; and ``cap``, once. Where the layers' constants multiply to about ``cap``, as in Convex
    Potential and orthogonal networks, certificates bound instead how far margins fall in a whole
    ball (``semidefinite/falls.py``): some ten recursions over the layers for each rival that
    ``cap`` leaves open, each of a few products of the layers' size; 10 s for 24 layers of 784.

    Activations are elementwise or MaxMin, or maxima over windows. Local slopes are known for
    piecewise linear activations, tanh and the sigmoid; other activations count with their global
    slopes. A convolution is written out as a matrix of at most 8 million entries.

    Args:
        radii: where a certificate begins to look for the best ball of a sample, in units of the
            input: at the first one that is clearly above what the cap certifies.
        work: multiplications for LipLT.
        cap: the global method whose bound no local one exceeds, as ``LipSDP()`` or ``Best()``; if
            left out, the least of ``LipLT`` and, for plain chains that are small, of
            ``ECLipsE(fast=True)`` and ``LipSDP``.
        units: uncertain units up to which the semidefinite bound of a ball is searched for; 0 for
            none, and for no search of whole balls.
        tries: how many balls a certificate tries for each sample.
        farthest: the largest ball that is tried; a sample that is certified that far is left.
        inside: least and largest number of an input, as ``(0.0, 1.0)`` for pixels: radii then hold
            for inputs inside, and may be larger. It counts in whole balls, thus for networks whose
            layers' constants are tight; a constant gains nothing from it.

    Raises:
        UsageError: no radii, a radius that is negative or not finite, a cap that is no global
            method, units, tries or a farthest ball below 0, or no interval.
        NotApplicableError: when it is asked for bounds of a chain with another nonlinearity, or
            with a layer that is too large.

    Example:
        >>> from torch import nn
        >>> from onelip.chains import Block, Dense, Elementwise
        >>> layer = Block(Dense(torch.eye(2)), Elementwise.of(nn.ReLU()))
        >>> chain = Chain((layer,), Dense(torch.eye(2)))
        >>> Local().around(chain, torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), 0.5).round(decimals=4)
        tensor([1., 0.], dtype=torch.float64)
    """

    radii: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    work: float = 1e11
    cap: BoundMethod | None = None
    units: int = 300
    tries: int = 6
    farthest: float = math.inf
    inside: tuple[float, float] | None = None
    name: ClassVar[str] = "local"

    def __post_init__(self) -> None:
        if not len(self.radii):
            raise UsageError("Local needs radii to try")
        if not all(0 <= radius < math.inf for radius in self.radii):
            raise UsageError("a radius must be a finite length, 0 or more")
        if self.units < 0 or self.tries < 0 or not self.farthest >= 0:
            raise UsageError("units, tries and farthest are numbers, 0 or more")
        if self.inside is not None and not self.inside[0] <= self.inside[1]:
            raise UsageError(f"inside={self.inside!r} is no interval: give two numbers, (0.0, 1.0)")
        if self.cap is not None and (
            not isinstance(self.cap, BoundMethod) or isinstance(self.cap, Local)
        ):
            raise UsageError(f"cap={self.cap!r} is no global method: give one, as LipSDP()")

    def prove(self, chain: Chain) -> Tensor:  # noqa: ARG002
        """Refuse: a local constant belongs to an input.

        Raises:
            NotApplicableError: always; the message names the way out.
        """
        raise NotApplicableError(
            "a local constant holds around given inputs: ask Local().around(network, x, "
            "radius), or certify(model, x, method=Local(radii=...))"
        )

    def logit_bounds(self, network: Network, input_shape: Shape | None = None) -> LogitBounds:
        """Refuse, like ``prove``."""
        self.prove(chain_of(network, input_shape))
        raise AssertionError

    def multiplications(self, chain: Chain) -> float:  # noqa: ARG002
        """Return infinity: the method has no global bound."""
        return math.inf

    @torch.no_grad()
    @asked_once()
    def around(self, network: Network, x: Tensor, radius: float | Tensor) -> Tensor:
        """Proved Lipschitz constants of a network in the balls around inputs.

        Args:
            network: a module in eval mode, an exported program, or a chain.
            x: inputs, ``(batch, ...)``.
            radius: of the balls, or one for each input; 0 for the point alone.

        Returns:
            ``(batch,)``, float64.

        Raises:
            UsageError: inputs that are not finite or of another shape, a radius that is no length.
            NonFiniteError: a weight is infinite or NaN, or the bound too large for a float.
        """
        chain = chain_of(network, x.shape[1:])
        dense = _checked(chain, x)
        cap = torch.stack([method.prove(chain) for method in self._global(chain)]).amin()
        parts = [
            _network(balls, dense[1], self.units) for balls in _balls(dense, x, radius, pair_slopes)
        ]
        return torch.fmin(torch.cat([cap.new_zeros(0), *parts]), cap)

    @torch.no_grad()
    @asked_once()
    def pairwise(self, network: Network, x: Tensor, radius: float | Tensor) -> Tensor:
        """Proved constants of the predicted logit minus each other logit, around each input.

        They hold for any two points of a ball; ``from_centre`` compares with its centre alone. The
        prediction is the largest logit at the input, computed in float64.

        Args:
            network: as for ``around``, from inputs to two or more logits.
            x: inputs.
            radius: as for ``around``.

        Returns:
            ``(batch, classes)``, float64; 0 for the prediction itself.

        Raises:
            UsageError: as for ``around``, or fewer than two logits.
        """
        return self._pairwise(network, x, radius, pair_slopes)

    @torch.no_grad()
    @asked_once()
    def from_centre(self, network: Network, x: Tensor, radius: float | Tensor) -> Tensor:
        r"""Proved bounds of how fast margins can fall between an input and others in its ball.

        Bound: for every y at most ``radius`` from x, and the predicted class p at x,
            :math:`(f_p - f_i)(y) \ge (f_p - f_i)(x) - L_i |y - x|`. This is what certificates
            need, and less than ``pairwise``: nothing is said of two points of the ball, nor of how
            fast margins rise.

        Args:
            network: as for ``pairwise``.
            x: inputs.
            radius: as for ``around``.

        Returns:
            ``(batch, classes)``, float64; 0 for the prediction itself.

        Raises:
            UsageError: as for ``pairwise``.
        """
        return self._pairwise(network, x, radius, secants)

    def _pairwise(self, network: Network, x: Tensor, radius: float | Tensor, rule: Rule) -> Tensor:
        """Return constants of the differences of logits, for the slopes of a rule."""
        chain = chain_of(network, x.shape[1:])
        dense = _checked(chain, x)
        cap = self.everywhere(chain).pairwise
        found = [cap.new_zeros(0, len(cap))]
        for balls in _balls(dense, x, radius, rule, self.units):
            prediction, _ = _centre(balls, dense[1])
            _, image, slopes = _falls(balls, dense[1], cap[prediction])
            found.append(tightened_rises(balls, image, slopes, self.units))
        return torch.cat(found)

    @torch.no_grad()
    @asked_once()
    def radius(self, network: Network, x: Tensor, labels: Tensor | None = None) -> LocalRadius:
        r"""Predict a batch in float64, with radii in which the predictions cannot change.

        Bound: a ball of radius r certifies :math:`\min(r, \min_i (f_y(x) - f_i(x)) / L_i(r))` over
        all rivals i, with constants ``from_centre``, but for rivals whose margin falls by less than
        it is in the whole ball; the largest of all radii that were tried is
        returned, rounded down. A tie, or a logit that is not a number, gives 0. It holds for the
        network in exact arithmetic; ``certify(model, x, method=Local())`` speaks of what the model
        computes.
        Cost: that of ``pairwise`` for each radius.

        Args:
            network: as for ``pairwise``.
            x: inputs.
            labels: true classes; samples that are predicted wrong then get radius 0.

        Returns:
            Predictions ``(batch,)``, and radii ``(batch,)`` in float64.

        Example:
            >>> from onelip.chains import Dense
            >>> chain = Chain((), Dense(torch.eye(2)))
            >>> Local(radii=(0.1, 1.0)).radius(chain, torch.tensor([[1.0, 0.0]])).radius
            tensor([0.7071], dtype=torch.float64)
        """
        chain = chain_of(network, x.shape[1:])
        best, prediction = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x)).long()
        for found in self.balls(chain, x, self.everywhere(chain).pairwise):
            prediction = found.prediction
            radius = _certified(prediction, found.margins, found.slopes, found.falls)
            best = torch.maximum(best, torch.minimum(radius, found.radius))
        if labels is not None:
            best = torch.where(prediction == labels.cpu(), best, 0.0)
        return LocalRadius(prediction, best)

    def everywhere(self, chain: Chain) -> LogitBounds:
        """Constants that hold in every ball: the least global ones.

        Raises:
            UsageError: the outputs are not two or more logits.
        """
        if len(chain.outputs) != 1 or chain.outputs[0] < 2:
            raise UsageError(f"outputs of shape {chain.outputs} are not two or more logits")
        return least([method.logit_bounds(chain) for method in self._global(chain)])

    def _global(self, chain: Chain) -> Iterator[BoundMethod]:
        """Yield the global methods that cap local constants."""
        if self.cap is not None:
            yield self.cap
            return
        yield LipLT(self.work)
        for method in (ECLipsE(fast=True), LipSDP()):
            with suppress(NotApplicableError):
                refuse_other_blocks(chain)
                if method.multiplications(chain) <= _CHEAP:
                    yield method

    @torch.no_grad()
    def balls(self, chain: Chain, x: Tensor, cap: Tensor) -> Iterator[LocalBounds]:
        r"""Yield bounds in balls: first in those of any radius, then around ever better radii.

        Let q(r) be the least margin over slope in the ball of radius r, rivals left out whose
        margin is larger than its fall. It certifies min(r, q(r)), and where q falls with r, the
        best radius lies between r and q(r), whichever is larger.

        Args:
            chain: from inputs to two or more logits.
            x: inputs.
            cap: ``(classes, classes)``, constants that hold everywhere.
        """
        dense = _checked(chain, x)
        if not len(x):
            return
        if self.inside is not None and not ((x >= self.inside[0]) & (x <= self.inside[1])).all():
            raise UsageError(f"an input is not inside {self.inside}")
        point = [_centre(balls, dense[1]) for balls in _balls(dense, x, 0.0, pair_slopes)]
        prediction, margins = (torch.cat(part) for part in zip(*point, strict=True))
        slopes = cap[prediction]
        everywhere = torch.full((len(x),), math.inf, dtype=torch.float64)
        unknown = torch.full_like(slopes, math.inf)
        yield LocalBounds(everywhere, prediction, margins, slopes, unknown)
        low, high = _certified(prediction, margins, slopes, unknown), everywhere
        radius = _first(low, torch.tensor(sorted(self.radii), dtype=torch.float64))
        tight = WholeBalls(*dense, self.inside)
        whole = tight if self.units and tight.suits(cap) else None
        for _ in range(self.tries):
            open_ = (low > 0) & (low < self.farthest) & (high > (1 + _ENOUGH) * low)
            radius = radius.clamp_max(self.farthest)
            samples = open_.nonzero()[:, 0]
            if not len(samples):
                return
            found, falls = unknown.clone(), unknown.clone()
            known = prediction[samples], margins[samples], slopes[samples]
            inputs = x[samples.to(x.device)]
            found[samples], falls[samples] = self._in_balls(
                dense, inputs, radius[samples], known, whole
            )
            tried = torch.where(open_, radius, 0.0)
            yield LocalBounds(tried, prediction, margins, found, falls)
            quotient = torch.where(open_, _certified(prediction, margins, found, falls), low)
            low = torch.maximum(low, torch.minimum(tried, quotient))
            high = torch.where(open_, torch.minimum(high, torch.maximum(tried, quotient)), high)
            beyond = (2.0 if whole is None else _FARTHER) * low
            radius = torch.where(high < math.inf, (low + high) / 2, beyond)

    def _in_balls(
        self,
        dense: tuple[list[Layer], Affine],
        x: Tensor,
        radius: Tensor,
        point: tuple[Tensor, Tensor, Tensor],
        whole: WholeBalls | None,
    ) -> tuple[Tensor, Tensor]:
        """Bound how fast and how far margins fall; ``point`` has what is known everywhere."""
        prediction, margins, slopes = point
        falls = torch.full_like(slopes, math.inf)
        if whole is not None:
            numbers = x.detach().double().cpu().flatten(1)
            falls = whole.falls(numbers, radius, prediction, margins, slopes)
            units = sum(layer.inner.matrix.shape[0] for layer in dense[0])
            if units > MOST * self.units:
                return slopes, falls
        slopes, start = slopes.clone(), 0
        samples = (_certified(prediction, margins, slopes, falls) < radius).nonzero()[:, 0]
        for balls in _balls(dense, x[samples.to(x.device)], radius[samples], secants, self.units):
            here = samples[start : start + len(balls.radius)]
            slopes[here] = self._limiting(balls, dense[1], slopes[here], margins[here])
            start += len(here)
        return slopes, falls

    def _limiting(self, balls: Balls, last: Affine, cap: Tensor, margins: Tensor) -> Tensor:
        """Bound how fast margins fall, best for the rivals that limit the radius."""
        prediction, image, found = _falls(balls, last, cap)
        rivals = margins.scatter(1, prediction[:, None], math.inf)
        return tightened_quotients(balls, image, found, rivals, self.units)


def _first(low: Tensor, grid: Tensor) -> Tensor:
    """Choose the first ball of each sample: the first of the grid that is clearly above ``low``."""
    place = torch.searchsorted(grid, (1 + _ABOVE) * low)
    beyond = torch.cat([grid, torch.tensor([math.inf], dtype=torch.float64)])[place]
    return torch.where(beyond < math.inf, beyond, 1.5 * low).clamp_max(_FARTHEST)


def _checked(chain: Chain, x: Tensor) -> tuple[list[Layer], Affine]:
    """Return the chain written out as dense layers, if the inputs fit it."""
    if x.shape[1:] != chain.inputs:
        raise UsageError(f"inputs of shape {tuple(x.shape)}, not (batch, {chain.inputs})")
    if not torch.isfinite(x).all():
        raise UsageError("an input is infinite or NaN")
    return layers(chain)


def _balls(
    dense: tuple[list[Layer], Affine],
    x: Tensor,
    radius: float | Tensor,
    rule: Rule,
    units: int = 0,
) -> Iterator[Balls]:
    """Yield the balls in chunks that fit into memory."""
    tighten = partial(tightened_lengths, largest=units)
    numbers = x.detach().double().cpu().flatten(1)
    lengths = torch.as_tensor(radius, dtype=torch.float64).cpu().expand(len(x))
    if not bool(((lengths >= 0) & (lengths < math.inf)).all()):
        raise UsageError("a radius must be a finite length, 0 or more")
    chunk = max(1, _HELD // _entries(*dense))
    for part, length in zip(numbers.split(chunk), lengths.split(chunk), strict=True):
        if len(part):
            yield Balls(dense[0], part, length, rule, tighten)


def _entries(dense: list[Layer], last: Affine) -> int:
    """Estimate the entries of the products of layers that one sample holds at once."""
    maps = [*(layer.inner.matrix for layer in dense), last.matrix]
    widths = [maps[0].shape[1], *(matrix.shape[0] for matrix in maps)]
    return max(widths[1:]) * sum(widths)


def _network(balls: Balls, last: Affine, units: int) -> Tensor:
    """Lipschitz constant in each ball: the least of the spectral, rowwise, semidefinite bounds."""
    image = balls.image(last)
    # If each output has constant l_i, the vector of outputs has the constant |l|.
    found = torch.fmin(balls.norms(image), frobenius(balls.lengths(image)[:, None]))
    return tightened_norms(balls, image, found, units)


def _centre(balls: Balls, last: Affine) -> tuple[Tensor, Tensor]:
    """Return predictions, and lower bounds of the margins."""
    logits = last.forward(balls.output)
    prediction = logits.values.nan_to_num(-math.inf).argmax(1)
    return prediction, _margins(logits.values, logits.entries, prediction)


def _falls(balls: Balls, last: Affine, cap: Tensor) -> tuple[Tensor, Approx, Tensor]:
    """Return predictions, the images of all logits minus that of it, and their constants.

    ``cap`` has a constant for each, ``(batch, classes)``: 0 for the prediction itself.
    """
    prediction, _ = _centre(balls, last)
    logits = balls.image(last)
    own = logits.picked(prediction[:, None])
    rows = logits.matrix - own.matrix
    # The error of the prediction's row is in every difference.
    off = logits.error * (1 + math.sqrt(rows.shape[1])) + 2 * UNIT * frobenius(rows)
    image = Approx(rows, upward(off, 4))
    return prediction, image, torch.fmin(balls.lengths(image), cap)


def _margins(values: Tensor, errors: Tensor, prediction: Tensor) -> Tensor:
    """Lower bounds of the largest logit minus each other logit."""
    own, own_error = (t.gather(1, prediction[:, None]) for t in (values, errors))
    # The errors of both logits, and the rounding of their difference.
    slack = upward(own_error + errors + 2 * UNIT * (own.abs() + values.abs()), 4)
    return (own - values) - upward(slack, 2)


def _certified(prediction: Tensor, margins: Tensor, slopes: Tensor, falls: Tensor) -> Tensor:
    """Return the least quotient over all rivals, 0 where a margin is no positive number.

    A rival whose margin does not vanish in the whole ball has an infinite one.
    """
    quotients = downward(margins / slopes, 4).nan_to_num(0.0, math.inf, 0.0).clamp_min(0.0)
    quotients = torch.where(falls < margins, math.inf, quotients)
    quotients.scatter_(1, prediction[:, None], math.inf)
    return quotients.amin(1)
