"""Rounding-error bounds of binary floating-point arithmetic (Higham, 2002, chapters 2 and 3).

The standard model: a float64 operation returns the exact result times ``1 + d`` with ``|d| <= u``,
up to underflow. A sum of n products, in any order, fused or not, is off by at most ``gamma(n)``
times the sum of the absolute products. Every error term below follows from these two sentences.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
from contextvars import ContextVar
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor

from onelip.errors import NonFiniteError

UNIT = 2.0**-53
"""Unit round-off u of float64."""

UNDERFLOW = 2.0**-1000
"""More than any product or sum can lose to underflow, flushed to zero or not."""


def gamma(operations: int) -> float:
    """Upper bound of ``(1 + u)^n - 1``, the relative error of n operations in a row."""
    return operations * UNIT / (1 - operations * UNIT) * (1 + 8 * UNIT)


Number = TypeVar("Number", Tensor, float)


def upward(value: Number, operations: int = 8) -> Number:
    """A number above the exact value of a non-negative expression of at most ``operations`` steps.

    The expression may only add, multiply, divide and take roots of non-negative numbers: then
    its relative error is at most ``gamma(operations)``.
    """
    return value * (1 + gamma(operations + 2))


def downward(value: Number, operations: int = 8) -> Number:
    """A number below the exact value of a non-negative expression of ``operations`` steps."""
    return value * (1 - gamma(operations + 2))


def frobenius(matrices: Tensor) -> Tensor:
    """Upper bound of the Frobenius norm over the last two dimensions."""
    entries = 2 * matrices.shape[-1] * matrices.shape[-2]
    numbers = torch.view_as_real(matrices) if matrices.is_complex() else matrices[..., None]
    norm: Tensor = torch.linalg.vector_norm(numbers.flatten(-3), dim=-1)
    return upward(norm, entries + 4) + math.sqrt(entries) * math.sqrt(UNDERFLOW)


def sum_error(terms: int, sizes: Number) -> Number:
    """Bound of the Frobenius norm of what matrices of sums of products are off by.

    Args:
        terms: how many products are added at most, in any order.
        sizes: not below the Frobenius norm of the same sums of absolute values, but for a few
            roundings.
    """
    return upward(gamma(terms) * sizes + terms**2 * UNDERFLOW, 8)


def product_error(matrices: Tensor) -> Tensor:
    """Bound of the Frobenius error of a computed ``A^H A`` or ``A A^H``, per matrix.

    The factor 8 (n + 4) covers complex products by four or by three real ones.
    """
    terms = max(matrices.shape[-2:])
    count = 8 * (terms + 4) if matrices.is_complex() else terms
    return sum_error(count, frobenius(matrices).square())


def power_of_two(numbers: Tensor) -> float:
    """A factor that brings the largest number close to 1 and rounds nothing."""
    parts = torch.view_as_real(numbers) if numbers.is_complex() else numbers
    exponent = math.frexp(float(parts.abs().max()))[1]
    scale: float = 2.0 ** max(-1000, min(1000, -exponent))
    return scale


def product(factors: list[Tensor]) -> Tensor:
    """The smallest float64 number not below the exact product; 1 for an empty list."""
    return _above(math.prod((Fraction(float(factor)) for factor in factors), start=Fraction(1)))


def quotient(dividend: float, divisor: float) -> Tensor:
    """The smallest float64 number not below the exact quotient; infinite for a divisor of 0."""
    if divisor == 0:
        return torch.tensor(math.inf, dtype=torch.float64)
    return _above(Fraction(dividend) / Fraction(divisor))


def _above(wanted: Fraction) -> Tensor:
    try:
        value = float(wanted)
    except OverflowError:
        value = math.inf
    if value < wanted:  # float() rounds to nearest, which may be below
        value = math.nextafter(value, math.inf)
    return torch.tensor(value, dtype=torch.float64)


_GRAIN = 2**15  # numbers that torch gives to one thread at least


@functools.cache
def _probe(threads: int) -> Tensor:
    """Ones, and a subnormal number here and there, enough for every thread to meet some."""
    probe = torch.ones(_GRAIN * threads if threads > 1 else 1, dtype=torch.float64)
    probe[:: _GRAIN // 16] = 2.0**-1074
    return probe


_THREADS_ASKED: ContextVar[set[int] | None] = ContextVar("threads_asked", default=None)


@contextlib.contextmanager
def asked_once() -> Iterator[None]:
    """Ask the processor once, until the context ends, whether subnormal numbers are kept.

    For one public call, in which nobody sets ``torch.set_flush_denormal``: a worker that is started
    inside inherits the mode that was found.
    """
    token = None if _THREADS_ASKED.get() is not None else _THREADS_ASKED.set(set())
    try:
        yield
    finally:
        if token is not None:
            _THREADS_ASKED.reset(token)


def refuse_flushing() -> None:
    """Refuse to prove anything where subnormal numbers are taken for 0.

    Worker threads are asked, too: they keep the mode in which they were started.

    Raises:
        RuntimeError: the processor flushes them, in this thread or in one that torch calculates in.
    """
    threads, asked = torch.get_num_threads(), _THREADS_ASKED.get()
    if asked is not None and threads in asked:
        return
    if not bool(_probe(threads).mul(1).all()):
        raise RuntimeError(
            "subnormal numbers are flushed, in this thread or in one of torch's workers: start "
            "Python anew, without torch.set_flush_denormal(True)"
        )
    if asked is not None:
        asked.add(threads)


def exact(tensor: Tensor) -> Tensor:
    """Return the same numbers in float64 (complex128), without loss, detached.

    Raises:
        NonFiniteError: an entry is infinite or not a number.
        RuntimeError: the processor is set to flush subnormal numbers to zero.
    """
    tensor = tensor.detach()
    if not torch.isfinite(tensor).all():
        raise NonFiniteError("a weight is infinite or NaN: no bound exists; train with a lower lr")
    refuse_flushing()
    if tensor.device.type == "mps":
        tensor = tensor.cpu()  # no float64 there
    return tensor.resolve_conj().to(torch.complex128 if tensor.is_complex() else torch.float64)
