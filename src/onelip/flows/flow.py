r"""Flows in continuous time (Meunier et al., 2022, section 3).

.. math:: \dot x = -\nabla f_t(x) + A_t x, \qquad f_t \text{ convex}, \quad A_t^T = -A_t

with f and A piecewise constant in time. The distance of two solutions changes at a rate bounded by
the symmetric part of the Jacobian, :math:`-\nabla^2 f_t`, for every A: with curvatures in
:math:`[\mu_t, L_t]`,

.. math:: e^{-\int L_t dt}\, \|x_0 - z_0\| \le \|x_t - z_t\| \le e^{-\int \mu_t dt}\, \|x_0 - z_0\|

(Proposition 2), and the right side is at most :math:`\|x_0 - z_0\|` (Corollary 1).
"""

import bisect
import math
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn

from onelip.flows.explicit import ExplicitEuler
from onelip.flows.potential import Potential, curvature
from onelip.flows.rational import Midpoint
from onelip.flows.skew import SkewPart
from onelip.flows.step import checked_step
from onelip.norms.rounding import downward, upward


class Piece(nn.Module):
    """A potential, a skew part or both, constant for some time.

    Args:
        potential: f, or None.
        skew: A, or None.
        duration: length of time.

    Raises:
        ValueError: neither is given, or the duration is not positive.
    """

    def __init__(
        self,
        potential: Potential | None = None,
        skew: SkewPart | None = None,
        *,
        duration: float = 1.0,
    ) -> None:
        super().__init__()
        if potential is None and skew is None:
            raise ValueError("a piece needs a potential, a skew part, or both")
        self.potential, self.skew, self.duration = potential, skew, checked_step(duration)

    def forward(self, x: Tensor) -> Tensor:
        """Return the velocity ``A x - grad f(x)``."""
        if self.potential is None:
            assert self.skew is not None
            turning: Tensor = self.skew(x)
            return turning
        falling = -self.potential.gradient(x)
        return falling if self.skew is None else falling + self.skew(x)

    def rates(self) -> tuple[Tensor, Tensor]:
        """Proved ``(-L, -mu)``, between which the eigenvalues of the symmetric part lie."""
        if self.potential is None:
            return torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        low, high = curvature(self.potential)
        return -high, -low


class Flow(nn.Module):
    """A vector field that is piecewise constant in time, ``forward(t, x)``.

    ``torchdiffeq.odeint(flow, x, times, options={"jump_t": flow.jumps})`` solves it: solvers of
    variable step must know where the field jumps.

    Args:
        pieces: in order, from time 0 on; the last one has no end.

    Raises:
        ValueError: no pieces.

    Example:
        >>> import onelip
        >>> from onelip.flows import RidgeLinear, SkewLinear
        >>> flow = Flow(Piece(RidgeLinear(3, 8), SkewLinear(3), duration=0.1))
        >>> flow(0.0, torch.zeros(2, 3)).shape
        torch.Size([2, 3])
        >>> bool(onelip.lipschitz_bound(flow.discretise(steps=4)) < 1 + 1e-5)
        True

    Reference: Meunier et al., "A Dynamical System Perspective for Lipschitz Neural Networks", 2022.
    """

    def __init__(self, *pieces: Piece) -> None:
        super().__init__()
        if not pieces:
            raise ValueError("a flow needs at least one piece")
        self.pieces = nn.ModuleList(pieces)

    @property
    def duration(self) -> float:
        """Sum of the durations of the pieces."""
        return self._ends()[-1]

    @property
    def jumps(self) -> Tensor:
        """Times at which one piece ends and the next begins, float64."""
        return torch.tensor(self._ends()[:-1], dtype=torch.float64)

    def parts(self) -> list[Piece]:
        """Return the pieces, in order."""
        return cast(list[Piece], list(self.pieces))

    def forward(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return the velocity at time t."""
        velocity: Tensor = self._at(t)(x)
        return velocity

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Proved lower and upper bound of the symmetric part of the Jacobian at time t."""
        return self._at(t).rates()

    @torch.no_grad()
    def distance_bounds(self, start: float, end: float) -> tuple[Tensor, Tensor]:
        """Proved bounds, lower and upper, of the factor by which the distance of solutions changes.

        Raises:
            ValueError: unless ``0 <= start <= end < inf``.
        """
        if not 0 <= start <= end < math.inf:
            raise ValueError(f"times must satisfy 0 <= start <= end < inf, got {start} and {end}")
        least = most = torch.zeros((), dtype=torch.float64)
        for piece, begun, ended in self._spans():
            spent = max(0.0, min(end, ended) - max(start, begun))
            if spent:
                low, high = piece.rates()
                # exponents: L dt rounded up for the lower factor, mu dt rounded down for the upper
                least, most = least + upward(-spent * low, 3), most - downward(-spent * high, 3)
        # roundings of the sum of exponents, at most two per piece
        count = 2 * len(self.pieces)
        slowest = downward((-upward(least, count)).exp(), 8)
        fastest = upward((-downward(-most, count)).exp(), 8)
        # exp(0) is 1 exactly: no rounding there
        return torch.where(least == 0, 1.0, slowest), torch.where(most == 0, 1.0, fastest)

    def discretise(
        self,
        potential: Callable[[Potential, float], nn.Module] = ExplicitEuler,
        skew: Callable[[SkewPart, float], nn.Module] = Midpoint,
        *,
        steps: int = 1,
    ) -> nn.Sequential:
        """Return a network: for each piece, ``steps`` times a step on f and then one on A.

        The layers share the parameters of the flow. No step is shortened: the bound of an explicit
        step longer than ``2 / L`` exceeds 1.

        Args:
            potential: scheme for f, called with the potential and the step.
            skew: scheme for A, likewise.
            steps: number of steps for each piece, of size ``duration / steps``.

        Raises:
            ValueError: fewer than one step.
        """
        if steps < 1:
            raise ValueError(f"steps must be positive, got {steps}")
        layers: list[nn.Module] = []
        for piece, _, _ in self._spans():
            once, time = [], piece.duration / steps
            if piece.potential is not None:
                once.append(potential(piece.potential, time))
            if piece.skew is not None:
                once.append(skew(piece.skew, time))
            layers += once * steps
        return nn.Sequential(*layers)

    def _at(self, t: Tensor | float) -> Piece:
        """Piece at time t; at a jump, the one that begins."""
        now = float(torch.as_tensor(t).detach())
        return self.parts()[bisect.bisect_right(self._ends()[:-1], now)]

    def _ends(self) -> list[float]:
        """Times at which the pieces end."""
        return list(accumulate(piece.duration for piece in self.parts()))

    def _spans(self) -> Iterator[tuple[Piece, float, float]]:
        """Yield each piece with its start and its end; the last one ends at infinity."""
        ends = self._ends()
        yield from zip(self.parts(), [0.0, *ends[:-1]], [*ends[:-1], float("inf")], strict=True)
