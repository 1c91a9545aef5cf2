r"""The norm of a linear map that is known by what it does: proved, or with a stated probability.

**Few inputs or outputs**: the map is written out, column by column, and the matrix proved.

**Numbers that are not negative**, as in tomography and blurring: for every x > 0

.. math:: \|A\|^2 \le \max_i \frac{(A^T A x)_i}{x_i} ,

with equality for the leading singular vector (Collatz and Wielandt), which power iteration finds.

**Anything else** has no bound from finitely many products. k steps of Lanczos on :math:`A^T A` from
a direction that is uniform on the sphere give an estimate :math:`\theta \le \lambda_1`. Since no
vector of the Krylov space has a larger quotient, the component :math:`u_1` of the start along the
leading singular vector is at most

.. math:: u_1^2 \le 1 / ((\rho - 1)\, T_{k-1}(2 \rho - 1)^2) , \qquad \rho = \lambda_1 / \theta ,

T the Chebyshev polynomial, and in n dimensions :math:`P(|u_1| \le t) \le t \sqrt{2 n / \pi}`. So
:math:`\lambda_1 > \rho \theta` has at most the probability at which both are equal. (Kuczynski,
Wozniakowski, "Estimating the largest eigenvalue by the power and Lanczos algorithms with a random
start", SIAM J. Matrix Anal. Appl. 13, 1992; the power method is in Dixon, 1983.)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.errors import NonFiniteError, NotApplicableError, UsageError
from onelip.norms.banded import lanczos
from onelip.norms.rounding import gamma, upward
from onelip.norms.spectral import dense, ends_above

Map = Callable[[Tensor], Tensor]

_SIDE = 4096  # the smaller side of a matrix that is written out
_ENTRIES = 2**25  # of such a matrix
_PAIRS = 3  # of vectors with which the adjoint is tried
_TOLERANCE = 1e-6  # of both sides, relative
_ROUNDS = 1000  # of power iteration on numbers that are not negative
_TIGHT = 1e-6  # relative excess at which it stops
_LEAST = 1e-9  # of the largest number of a positive vector


@dataclass(frozen=True)
class ProbableNorm:
    """A number that the norm of a map exceeds with a small probability only: no bound.

    Nothing that asks for a bound takes it: it is neither a tensor nor a number.

    Attributes:
        value: not below the norm with this probability, over the random start, up to rounding.
        probability: at least that.
        estimate: not above the norm, up to rounding.
        products: how often the map and its adjoint were applied.
    """

    value: float
    probability: float
    estimate: float
    products: int


def operator(
    apply: Map,
    adjoint: Map,
    shape: tuple[int, ...],
    *,
    nonnegative: bool = False,
    batch: int | None = None,
    probability: float = 1 - 1e-9,
    iterations: int = 60,
    generator: torch.Generator | None = None,
) -> Tensor | ProbableNorm:
    """Norm of a linear map that is given by two functions: proved where it can be.

    Bound: a tensor is a proved upper bound. For up to 4096 inputs or outputs it is one of the
    matrix whose columns are what ``apply`` makes of unit vectors, within 1e-8; for maps without
    negative numbers within 1e-6 if power iteration converges. A ``ProbableNorm`` is no bound: the
    norm is at most ``value`` with the probability that it states.
    Shape: ``apply`` takes ``shape``, or ``(batch, *shape)``, in float64, and returns any shape;
    ``adjoint`` takes that and returns ``shape``.
    Cost: one product for each input of a map that is written out; else up to ``iterations``
    products with each function, and as many vectors kept (1000 if nonnegative, and three vectors).

    Args:
        apply: the map. Neither function may draw random numbers.
        adjoint: its adjoint, which is tried on random vectors.
        shape: of one input.
        nonnegative: the matrix of the map has no negative number, and both functions only add and
            multiply, in float64: this is believed, but for a few vectors.
        batch: how many inputs the functions take at once; None for one without a batch axis.
        probability: what a ``ProbableNorm`` is to hold with.
        iterations: steps of Lanczos; with 60 ``value`` is 3 % above the estimate in a million
            dimensions, with 120 1 %.
        generator: of the random start; it must not depend on the map.

    Raises:
        UsageError: ``adjoint`` is not the adjoint, ``apply`` is not linear, or an argument is out
            of range.
        NonFiniteError: a product is infinite or NaN.
        NotApplicableError: a map that is said to be nonnegative, and is not.

    Example:
        >>> import torch
        >>> matrix = torch.tensor([[3.0, 0.0], [0.0, -4.0]]).double()
        >>> operator(lambda x: matrix @ x, lambda y: matrix.T @ y, (2,))
        tensor(4.0000, dtype=torch.float64)

    Reference: in the docstring of the module.
    """
    if not 0 < probability < 1:
        raise UsageError(f"probability must be between 0 and 1, got {probability}")
    if iterations < 2 or (batch is not None and batch < 1) or not math.prod(shape):
        raise UsageError("iterations must be at least 2, batch and the sides of shape positive")
    forward, back = _single(apply, batch is not None), _single(adjoint, batch is not None)
    image = _check_adjoint(forward, back, shape, generator)
    inputs, outputs = math.prod(shape), image.numel()
    if min(inputs, outputs) <= _SIDE and inputs * outputs <= _ENTRIES:
        matrix = _written_out(apply, shape, batch)
        _check_linear(forward, matrix, shape, generator)
        return dense(matrix)
    if nonnegative:
        return _collatz_wielandt(forward, back, shape, outputs)
    start = torch.randn(shape, generator=generator, dtype=torch.float64)
    theta = float(lanczos(lambda x: back(forward(x)), start, iterations).clamp_min(0))
    ratio = _ratio(inputs, min(iterations, inputs), 1 - probability)
    return ProbableNorm(
        math.sqrt(ratio * theta), probability, math.sqrt(theta), 2 * min(iterations, inputs)
    )


def _single(function: Map, batched: bool) -> Map:
    """The function of one input without a batch axis; its result is finite, or refused."""

    def applied(x: Tensor) -> Tensor:
        try:
            y = function(x[None])[0] if batched else function(x)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"a map of {tuple(x.shape)} in float64 is asked: {reason}; matrix.double()"
            ) from error
        if y.is_complex():
            raise UsageError("a complex map: give its real and imaginary parts (view_as_real)")
        if not torch.isfinite(y).all():
            raise NonFiniteError("a product with the map is infinite or NaN: it has no norm")
        return y.detach().to("cpu", torch.float64)

    return applied


def _check_adjoint(
    forward: Map, back: Map, shape: tuple[int, ...], generator: torch.Generator | None
) -> Tensor:
    """Try ``<A x, y> = <x, B y>`` for random x, and y random or ``A x``; return an image."""
    for _ in range(_PAIRS):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        image = forward(x)
        for y in (image, torch.randn(image.shape, generator=generator, dtype=torch.float64)):
            pulled = back(y)
            if pulled.shape != x.shape:
                raise UsageError(
                    f"adjoint returns shape {tuple(pulled.shape)} where apply takes {shape}"
                )
            left, right = float((image * y).sum()), float((x * pulled).sum())
            size = float(image.norm() * y.norm() + x.norm() * pulled.norm())
            if abs(left - right) > _TOLERANCE * size:
                raise UsageError(
                    f"adjoint is not the adjoint of apply: <apply x, y> is {left:.9g} and "
                    f"<x, adjoint y> is {right:.9g}; torch.func.vjp(apply, x)[1] computes it"
                )
    return image


def _written_out(apply: Map, shape: tuple[int, ...], batch: int | None) -> Tensor:
    """The transpose of the matrix: rows are images of unit vectors."""
    units = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    if batch is None:
        images = [apply(unit).detach().flatten() for unit in units]
        return torch.stack(images).to("cpu", torch.float64)
    images = [apply(some).detach().flatten(1) for some in units.split(batch)]
    return torch.cat(images).to("cpu", torch.float64)


def _check_linear(
    forward: Map, transposed: Tensor, shape: tuple[int, ...], generator: torch.Generator | None
) -> None:
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    found, expected = forward(x).flatten(), x.flatten() @ transposed
    if (found - expected).norm() > _TOLERANCE * (found.norm() + expected.norm()):
        raise UsageError("apply is not linear: it differs from the sum of images of unit vectors")


def _collatz_wielandt(forward: Map, back: Map, shape: tuple[int, ...], outputs: int) -> Tensor:
    """Bound of the norm of a map without negative numbers, from positive vectors."""
    # sums of products of numbers that are not negative have a small relative error each
    terms = math.prod(shape) + outputs + 64
    x, best = torch.ones(shape, dtype=torch.float64), math.inf
    for _ in range(_ROUNDS):
        image = forward(x)
        pulled = back(image)
        if (image < 0).any() or (pulled < 0).any():
            raise NotApplicableError("the map has negative numbers: nonnegative=False")
        quotients = pulled / x
        best = min(best, float(quotients.max()))
        least = float((x * pulled).sum() / x.square().sum())
        if best <= least * (1 + _TIGHT):
            break
        x = pulled / pulled.max().clamp_min(torch.finfo(torch.float64).tiny)
        x = x.clamp_min(_LEAST)  # any positive vector gives a bound
    square = torch.tensor(best, dtype=torch.float64)
    return ends_above(upward(square * (1 + gamma(2 * terms)), 4).sqrt())


def _ratio(dimensions: int, steps: int, failure: float) -> float:
    """The rho with ``(rho - 1) T_{k-1}(2 rho - 1)^2 = 2 n / (pi failure^2)``, rounded up."""
    wanted = math.log(2 * dimensions / math.pi) - 2 * math.log(failure)

    def logarithm(excess: float) -> float:
        turn = (steps - 1) * math.acosh(1 + 2 * excess)
        return math.log(excess) + 2 * (turn + math.log1p(math.exp(-2 * turn)) - math.log(2))

    low, high = 0.0, 1.0
    while logarithm(high) < wanted:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if logarithm(middle) >= wanted else (middle, high)
    return (1 + high) * (1 + 1e-12)
