"""The dense bound against ball arithmetic and the SVD."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onelip import norms
from onelip.errors import NonFiniteError
from onelip.estimates import power_iteration
from onelip.norms import spectral
from tests.oracles import is_above, norm_below, relative_excess, sigma_max

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
]
SHAPES = [(1, 1), (1, 7), (7, 1), (5, 5), (3, 8), (8, 3), (16, 12)]


def assert_proved(matrix: torch.Tensor, tightness: float = 1e-8):
    bound, lower = norms.dense(matrix), norm_below(matrix)
    assert bound.shape == ()
    assert bound.dtype == torch.float64
    assert is_above(bound, lower)
    if lower:
        assert relative_excess(bound, lower) <= tightness


def test_random_matrices_of_every_dtype(each):
    for dtype, shape in each(itertools.product(DTYPES, SHAPES)):
        for _ in range(5):
            assert_proved(torch.randn(shape).to(dtype))


def test_tiny_and_huge(each):
    for scale, shape in each(
        itertools.product(
            [1e-300, 1e-150, 1e-38, 1e-30, 1e30, 1e150, 1e300], [(1, 1), (4, 4), (2, 9)]
        )
    ):
        assert_proved(torch.randn(shape, dtype=torch.float64) * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_subnormal_weights(dtype):
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert_proved((torch.randint(-9, 10, (4, 6)) * smallest).to(dtype))


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 9])
def test_subnormal_results_are_not_rounded_below(columns):
    """sqrt(2) of the smallest double is not a double: 1 of it is too little."""
    matrix = torch.full((1, columns), 5e-324, dtype=torch.float64)
    assert is_above(norms.dense(matrix), norm_below(matrix))


def test_entries_of_very_different_size():
    exponents = torch.randint(-300, 300, (6, 6)).double()
    assert_proved(torch.randn(6, 6, dtype=torch.float64) * 10**exponents)


def test_largest_and_smallest_doubles_together():
    assert_proved(torch.tensor([[2.0**1023, 5e-324], [5e-324, 2.0**1000]], dtype=torch.float64))


@pytest.mark.parametrize("size", [1, 2, 3, 8, 33])
def test_orthogonal_matrices(size):
    q, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
    assert_proved(q)


@pytest.mark.parametrize("shape", [(6, 6), (3, 11), (11, 3)], ids=str)
def test_rank_one(shape):
    assert_proved(torch.randn(shape[0], 1, dtype=torch.float64) * torch.randn(shape[1]))


def test_integer_matrices_with_known_norms():
    assert_proved(torch.ones(8, 8))
    assert_proved(torch.tensor([[3.0, 4.0], [4.0, -3.0]]))
    assert float(norms.dense(torch.ones(4, 9))) == pytest.approx(6, rel=1e-9)


def test_nearly_equal_singular_values():
    q, _ = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))
    values = 1 - 1e-12 * torch.arange(12, dtype=torch.float64)
    assert_proved(q * values)


def test_hilbert_matrix_and_jordan_block():
    i = torch.arange(1, 11, dtype=torch.float64)
    assert_proved(1 / (i[:, None] + i - 1))
    assert_proved(torch.eye(10) + 100 * torch.diag(torch.ones(9), 1))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (0, 2, 2), (2, 0, 3)], ids=str)
def test_empty(shape):
    assert float(norms.dense(torch.zeros(shape))) == 0


def test_zero():
    assert float(norms.dense(torch.zeros(3, 4))) == 0
    assert float(norms.dense(torch.zeros(5, 3, 4))) == 0


def test_vectors_are_no_matrices():
    with pytest.raises(ValueError, match="two dimensions"):
        norms.dense(torch.ones(3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_weights(value):
    matrix = torch.ones(3, 3)
    matrix[1, 2] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        norms.dense(matrix)


@pytest.mark.parametrize("count", [2, 7, 40])
def test_batches(count):
    matrices = torch.randn(count, 5, 4, dtype=torch.float64)
    lower = [norm_below(matrix) for matrix in matrices]
    bound = norms.dense(matrices)
    assert all(is_above(bound, one) for one in lower)
    assert float(bound) == pytest.approx(
        sigma_max(matrices[max(range(count), key=lambda i: sigma_max(matrices[i]))]), rel=1e-8
    )


def test_batches_of_batches():
    matrices = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert float(norms.dense(matrices)) == pytest.approx(
        float(torch.linalg.matrix_norm(matrices, 2).max()), rel=1e-8
    )


def test_the_largest_block_hides_behind_many_that_look_larger():
    """By entries, Frobenius norm and |G^2|, the identity looks larger than the last block."""
    many = torch.eye(16, dtype=torch.float64).expand(30, 16, 16) * 1.5
    hidden = torch.zeros(1, 16, 16, dtype=torch.float64)
    hidden[0, 3, 5] = 2.0
    assert_batch(torch.cat([many, hidden]), 2.0)


def test_the_largest_block_is_out_of_reach_of_power_steps_from_the_row_sums():
    hidden = torch.zeros(1, 4, 4, dtype=torch.float64)
    hidden[0, :2, :2] = torch.tensor([[2.0, -2.0], [-2.0, 2.0]])  # its rows sum to 0
    many = 3 * torch.eye(4, dtype=torch.float64).expand(20, 4, 4)
    assert_batch(torch.cat([many, hidden]), 4.0)


def test_blocks_of_growing_norm():
    matrices = torch.randn(50, 6, 6, dtype=torch.float64) * torch.logspace(-8, 8, 50)[:, None, None]
    assert_batch(matrices, float(torch.linalg.matrix_norm(matrices, 2).max()))


def assert_batch(matrices: torch.Tensor, norm: float):
    bound = norms.dense(matrices)
    assert float(bound) >= norm * (1 - 1e-15)
    assert float(bound) <= norm * (1 + 1e-8)
    assert all(is_above(bound, norm_below(matrix)) for matrix in matrices)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.data(),
)
def test_any_doubles(rows, columns, data):
    number = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e150, max_value=1e150)
    entries = data.draw(st.lists(number, min_size=rows * columns, max_size=rows * columns))
    matrix = torch.tensor(entries, dtype=torch.float64).view(rows, columns)
    assert is_above(norms.dense(matrix), norm_below(matrix))


def test_a_useless_factorisation_loosens_the_bound_and_never_breaks_it(monkeypatch):
    """The proof trusts neither the eigenvalues nor the Cholesky factor."""
    matrix = torch.randn(6, 6, dtype=torch.float64)
    lower = norm_below(matrix)
    honest = torch.linalg.cholesky_ex

    def noisy(a, **options):
        result = honest(a, **options)
        return type(result)((result.L + 0.01 * torch.randn_like(result.L), result.info))

    monkeypatch.setattr(spectral.torch.linalg, "cholesky_ex", noisy)
    assert is_above(norms.dense(matrix), lower)
    monkeypatch.undo()
    monkeypatch.setattr(
        spectral.torch.linalg, "eigvalsh", lambda a: torch.zeros(len(a), a.shape[-1]).double()
    )
    assert is_above(norms.dense(matrix), lower)


def test_transposes_conjugates_and_strides():
    matrix = torch.randn(9, 8, dtype=torch.complex128)
    for view in (matrix.T, matrix.mH, matrix.conj(), matrix[::2, 1::3], matrix.flip(0)):
        assert_proved(view)


def test_a_parameter_that_requires_a_gradient():
    assert not norms.dense(torch.nn.Linear(3, 3).weight).requires_grad


def test_flushed_subnormals_are_refused():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush")
    try:
        with pytest.raises(RuntimeError, match="set_flush_denormal"):
            norms.dense(torch.ones(2, 2))
    finally:
        torch.set_flush_denormal(False)


def _estimate(matrix: torch.Tensor, iterations: int) -> float:
    norm, _ = power_iteration(
        lambda u: matrix @ u,
        lambda v: matrix.T @ v,
        torch.randn(matrix.shape[1], dtype=matrix.dtype),
        iterations=iterations,
    )
    return float(norm)


@pytest.mark.parametrize("iterations", [0, 1, 5, 50])
def test_power_iteration_stays_below(iterations):
    for _ in range(20):
        matrix = torch.randn(12, 9, dtype=torch.float64)
        assert _estimate(matrix, iterations) <= sigma_max(matrix) * (1 + 1e-14)


def test_power_iteration_converges():
    matrix = torch.diag(torch.tensor([4.0, 3.0, 1.0], dtype=torch.float64))
    assert _estimate(matrix, 100) == pytest.approx(4, rel=1e-12)


def test_power_iteration_goes_on_where_it_ended():
    matrix = torch.randn(20, 20, dtype=torch.float64)
    direction, estimates = torch.randn(20, dtype=torch.float64), []
    for _ in range(30):
        norm, direction = power_iteration(lambda u: matrix @ u, lambda v: matrix.T @ v, direction)
        estimates.append(float(norm))
    assert estimates == sorted(estimates)


@pytest.mark.slow
def test_many_random_matrices():
    for _ in range(10_000):
        rows, columns = torch.randint(1, 12, (2,)).tolist()
        assert_proved(torch.randn(rows, columns, dtype=torch.float64) ** 3)
