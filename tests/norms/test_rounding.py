"""Each promise of the rounding module against exact arithmetic."""

import math
import os
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from onelip.errors import NonFiniteError
from onelip.norms.rounding import UNIT, downward, exact, frobenius, gamma, product, upward

positive = st.floats(1e-290, 1e290)
fast = settings(max_examples=200, deadline=None, derandomize=True)


def double(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 1000, 10**6])
def test_gamma_is_above_the_compounded_error(n):
    assert Fraction(gamma(n)) >= (1 + Fraction(UNIT)) ** min(n, 1000) - 1
    assert gamma(n) <= 1.01 * n * UNIT + 1e-300


@fast
@given(positive, positive)
def test_upward_covers_one_division(a, b):
    quotient = double(a) / double(b)
    if math.isfinite(float(quotient)) and float(quotient) > 1e-300:
        assert Fraction(float(upward(quotient, 1))) >= Fraction(a) / Fraction(b)
        assert Fraction(float(downward(quotient, 1))) <= Fraction(a) / Fraction(b)


@fast
@given(positive)
def test_upward_covers_a_root(a):
    assert Fraction(float(upward(double(a).sqrt(), 1))) ** 2 >= Fraction(a)
    assert Fraction(float(downward(double(a).sqrt(), 1))) ** 2 <= Fraction(a)


@fast
@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=40))
def test_frobenius_is_above(entries):
    norm = frobenius(double(entries)[None])
    assert Fraction(float(norm)) ** 2 >= sum(Fraction(x) ** 2 for x in entries)


def test_frobenius_of_complex_matrices():
    matrix = torch.randn(3, 4, dtype=torch.complex128)
    square = sum(Fraction(x) ** 2 for x in torch.view_as_real(matrix).flatten().tolist())
    assert Fraction(float(frobenius(matrix))) ** 2 >= square
    assert float(frobenius(matrix)) == pytest.approx(math.sqrt(square), rel=1e-12)


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e-160])
def test_frobenius_where_squares_underflow(scale):
    matrix = torch.full((3, 3), scale, dtype=torch.float64)
    assert Fraction(float(frobenius(matrix))) >= 3 * Fraction(scale)


@fast
@given(st.lists(st.floats(1e-30, 1e30), max_size=9))
def test_product_is_above(factors):
    truth = math.prod((Fraction(x) for x in factors), start=Fraction(1))
    assert Fraction(float(product([double(x) for x in factors]))) >= truth


def test_product_does_not_underflow_to_zero():
    """Nine layers of 1e-40 before nine of 3e38 stretch by 3e-14, not by 0."""
    factors = [1e-40] * 9 + [3e38] * 9
    truth = math.prod((Fraction(x) for x in factors), start=Fraction(1))
    assert Fraction(float(product([double(x) for x in factors]))) >= truth


def test_product_of_subnormal_size_is_not_rounded_down():
    factors = [1.25, 5e-324]
    truth = math.prod((Fraction(x) for x in factors), start=Fraction(1))
    assert Fraction(float(product([double(x) for x in factors]))) >= truth


def test_product_keeps_zero_and_one():
    assert float(product([])) == 1
    assert float(product([double(0.0), double(3.0)])) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_exact_loses_nothing(dtype):
    tensor = torch.randn(100).to(dtype).requires_grad_()
    assert torch.equal(exact(tensor).to(dtype), tensor)
    assert exact(tensor).dtype == torch.float64
    assert not exact(tensor).requires_grad


@pytest.mark.parametrize("value", [math.nan, math.inf, complex(0, math.inf)])
def test_exact_refuses_what_is_not_finite(value):
    with pytest.raises(NonFiniteError, match="lower lr"):
        exact(torch.tensor([1.0, value]))


@pytest.mark.parametrize("length", [10, 1000])
def test_dot_products_keep_the_standard_model(length):
    """The sentence on which every error term rests, for this machine's matrix product."""
    a, b = torch.randn(2, length, dtype=torch.float64)
    with ctx.workprec(2000):
        truth = sum((arb(x) * arb(y) for x, y in zip(a.tolist(), b.tolist(), strict=True)), arb(0))
        size = sum(
            (abs(arb(x) * arb(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)), arb(0)
        )
        for computed in (a @ b, (a[None] @ b[:, None])[0, 0], (a * b).sum()):
            assert abs(arb(float(computed)) - truth) <= arb(gamma(length)) * size


WORKERS_THAT_FLUSH = """
import torch
torch.set_num_threads(2)
torch.set_flush_denormal(True)
torch.ones(10**6).mul(2)  # starts a worker, which inherits the mode
torch.set_flush_denormal(False)
import onelip
assert torch.tensor(2.0**-1074, dtype=torch.float64).mul(1).is_nonzero()  # in this thread
try:
    print(onelip.lipschitz_bound(torch.nn.Linear(3, 3)))
except RuntimeError as error:
    print("refused:", error)
"""


def test_worker_threads_that_still_flush_are_found():
    """The check of before saw only its own thread."""
    run = subprocess.run(
        [sys.executable, "-c", WORKERS_THAT_FLUSH],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    assert run.stdout.startswith("refused: subnormal numbers are flushed")
