"""Cholesky's QR and Bjorck's iteration against LAPACK, autograd and their textbook forms.

deel-torchlip's ``bjorck_normalization`` is the same iteration of order 1, from a matrix that was
already divided by its norm. Its gradient passes through the last steps only, so values are compared
and gradients are not.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

import onelip
from onelip import layers
from onelip.errors import NotApplicableError
from onelip.layers import bjorck, cholesky_qr
from onelip.layers.orthogonal import oriented, tall

SHAPES = [(1, 1), (3, 1), (2, 2), (5, 5), (7, 3), (12, 8)]


def positive_qr(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Householder's QR, its signs turned so that R has a positive diagonal: then it is unique."""
    q, r = torch.linalg.qr(matrices)
    signs = r.diagonal(dim1=-2, dim2=-1).sgn()[..., None, :]
    return q * signs, r * signs.mT


def with_singular_values(values: Tensor, rows: int, batch: int = 1) -> Tensor:
    """Random matrices of these singular values, rounded to float32."""
    columns = len(values)
    left = torch.linalg.qr(torch.randn(batch, rows, columns, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(batch, columns, columns, dtype=torch.float64)).Q
    return ((left * values.double()) @ right).float()


def spectrum(condition: float, columns: int, kind: str) -> Tensor:
    """Singular values from 1 to 1 / condition: spaced evenly, or all alike but one."""
    if kind == "even":
        return torch.logspace(0, -math.log10(condition), columns)
    values = torch.full((columns,), 1.0 if kind == "one small" else 1 / condition)
    values[-1 if kind == "one small" else 0] = 1 / condition if kind == "one small" else 1.0
    return values


def unit_triangular(size: int) -> Tensor:
    """Kahan's kind: no pivot of R differs from another, and the condition doubles with the size."""
    return 2 * torch.eye(size) - torch.ones(size, size).triu()


# Cholesky's QR: values


def test_it_is_the_q_of_lapack(each):
    for shape, batch in each(itertools.product(SHAPES, [0, 1, 4])):
        matrices = torch.randn(batch, *shape, dtype=torch.float64)
        q = cholesky_qr(matrices)
        assert q.shape == matrices.shape
        assert torch.allclose(q, positive_qr(matrices)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_columns_are_orthonormal_and_span_the_same(shape):
    matrices = torch.randn(3, *shape, dtype=torch.float64)
    q = cholesky_qr(matrices)
    assert torch.allclose(q.mT @ q, torch.eye(shape[1], dtype=torch.float64), atol=1e-13)
    assert torch.allclose(q @ (q.mT @ matrices), matrices, atol=1e-12)
    upper = q.mT @ matrices
    assert torch.allclose(upper.tril(-1), torch.zeros_like(upper), atol=1e-12)
    assert bool((upper.diagonal(dim1=-2, dim2=-1) > 0).all())


def test_a_batch_is_its_matrices_one_by_one():
    """A matrix that needs two passes makes all of its batch take two."""
    matrices = torch.randn(5, 8, 4, dtype=torch.float64)
    matrices[2, :, 3] = matrices[2, :, 2] + 1e-5 * matrices[2, :, 3]
    alone = torch.cat([cholesky_qr(matrix[None]) for matrix in matrices])
    assert torch.allclose(cholesky_qr(matrices), alone, atol=1e-9, rtol=0)
    single = matrices.float()
    alone = torch.cat([cholesky_qr(matrix[None]) for matrix in single])
    others = [0, 1, 3, 4]
    assert torch.allclose(cholesky_qr(single)[others], alone[others], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(2, 2), (7, 3), (9, 4)], ids=str)
def test_projectors_are_those_of_bjorck(shape):
    matrices = torch.randn(4, *shape, dtype=torch.float64)
    fast, slow = cholesky_qr(matrices), bjorck(matrices, iterations=80)
    assert torch.allclose(fast @ fast.mT, slow @ slow.mT, atol=1e-12, rtol=0)
    assert not torch.allclose(fast, slow, atol=1e-3)


def test_channels_last_and_strided_matrices():
    matrices = torch.randn(3, 4, 9, dtype=torch.float64).mT[:, ::2]
    assert torch.allclose(cholesky_qr(matrices), positive_qr(matrices)[0], atol=1e-12)


# Cholesky's QR: gradients


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradcheck(shape):
    matrices = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cholesky_qr, (matrices,))


def test_the_gradient_is_that_of_lapack(each):
    """After one pass and after two."""
    for shape, smallest in each(itertools.product(SHAPES, [1.0, 1e-2, 1e-4])):
        scales = torch.linspace(1, smallest, shape[1], dtype=torch.float64)
        matrices = (torch.randn(3, *shape, dtype=torch.float64) * scales).requires_grad_()
        weights = torch.randn_like(matrices)
        (expected,) = torch.autograd.grad((positive_qr(matrices)[0] * weights).sum(), matrices)
        (found,) = torch.autograd.grad((cholesky_qr(matrices) * weights).sum(), matrices)
        assert torch.allclose(found, expected, rtol=1e-7, atol=1e-10 / smallest)


def test_the_gradient_has_no_gradient():
    matrices = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
    loss = cholesky_qr(matrices).pow(3).sum()
    (first,) = torch.autograd.grad(loss, matrices, create_graph=True)
    with pytest.raises(NotApplicableError, match="no second derivatives"):
        first.sum().backward()


# Cholesky's QR: what is hard in float32


def test_ill_conditioned_columns_are_never_long(each):
    for kind, condition in each(
        itertools.product(
            ["even", "one small", "one large"], [1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e12]
        )
    ):
        for rows, columns in ((2, 2), (4, 2), (8, 8), (40, 8), (32, 32), (64, 48)):
            matrices = with_singular_values(spectrum(condition, columns, kind), rows, batch=4)
            matrices.requires_grad_()
            q = cholesky_qr(matrices)
            assert float(torch.linalg.matrix_norm(q.detach().double(), 2).max()) <= 1 + 1e-5
            (gradient,) = torch.autograd.grad((q * torch.randn_like(q)).sum(), matrices)
            assert bool(gradient.isfinite().all())


def _hard(name: str, size: int) -> Tensor:
    rows = torch.arange(2 * size)[:, None]
    if name == "Hilbert":
        return 1 / (rows + torch.arange(size) + 1.0)
    if name == "Vandermonde":
        return torch.vander(torch.linspace(-1, 1, 2 * size), size)
    if name == "Kahan":
        return unit_triangular(size)
    if name == "near copies":
        return torch.randn(2 * size, 1) + 1e-4 * torch.randn(2 * size, size)
    if name == "copies":
        return torch.randn(2 * size, 1).expand(-1, size)
    if name == "scales":
        return torch.randn(2 * size, size) * torch.logspace(-18, 18, size)
    matrix = torch.randn(2 * size, size)
    matrix[:, -1] = matrix[:, :-1].sum(1)  # rank deficient
    return matrix


def test_hard_matrices_are_never_long(each):
    for size, name in each(
        itertools.product(
            [2, 4, 8, 16, 32, 64],
            ["Hilbert", "Vandermonde", "Kahan", "near copies", "copies", "scales", "sum"],
        )
    ):
        q = cholesky_qr(_hard(name, size)[None])
        assert float(torch.linalg.matrix_norm(q.double(), 2)) <= 1 + 1e-5


@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3, 1e4])
def test_ill_conditioned_columns_become_orthonormal(condition):
    """Two passes are enough up to a condition of the inverse root of the unit of rounding."""
    matrices = with_singular_values(spectrum(condition, 8, "even"), 20, batch=4)
    q = cholesky_qr(matrices).double()
    assert torch.allclose(q.mT @ q, torch.eye(8, dtype=torch.float64), atol=2e-3)


# Pivots that do not differ at all say nothing: the condition is 380 here, 9e3 for 12 columns.
def test_an_ill_conditioned_matrix_of_equal_pivots_becomes_orthonormal():
    matrix = unit_triangular(8)[None]
    assert float(torch.linalg.cond(matrix)) < 400
    q = cholesky_qr(matrix).double()
    assert torch.allclose(q.mT @ q, torch.eye(8, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e15])
def test_the_scale_does_not_matter(scale):
    matrices = torch.randn(3, 6, 4)
    assert torch.allclose(cholesky_qr(matrices * scale), cholesky_qr(matrices), atol=2e-6)


# The squares of float32 entries above 1e19 overflow.
def test_huge_entries():
    matrices = torch.randn(3, 6, 4)
    q = cholesky_qr(matrices * 1e30)
    assert bool(q.isfinite().all())
    assert torch.allclose(q, cholesky_qr(matrices), atol=2e-6)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_zeros_stay_zeros(dtype, columns):
    zeros = torch.zeros(2, 4, columns, dtype=dtype)
    assert torch.equal(cholesky_qr(zeros), zeros)


# One step of any optimiser would make a whole batch of weights NaN.
@pytest.mark.parametrize("scale", [0.0, 1e-30])
def test_the_gradient_of_tiny_matrices_is_finite(scale):
    matrices = (torch.randn(1, 4, 2) * scale).requires_grad_()
    (cholesky_qr(matrices) * torch.randn(1, 4, 2)).sum().backward()
    assert bool(matrices.grad.isfinite().all())


def test_a_column_of_zeros_among_others():
    matrices = torch.randn(2, 5, 3)
    matrices[1, :, 1] = 0
    matrices.requires_grad_()
    q = cholesky_qr(matrices)
    q.square().sum().backward()
    assert bool(q.isfinite().all())
    assert bool(matrices.grad.isfinite().all())
    assert float(torch.linalg.matrix_norm(q.detach().double(), 2).max()) <= 1 + 1e-5
    assert torch.allclose(q[0].detach(), positive_qr(matrices[0].detach())[0], atol=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_entries_do_not_reach_other_matrices(value):
    matrices = torch.randn(3, 5, 2)
    whole = cholesky_qr(matrices)
    matrices[1, 0, 0] = value
    q = cholesky_qr(matrices)
    assert torch.allclose(q[[0, 2]], whole[[0, 2]], atol=1e-5)


# Bjorck's iteration


def textbook_bjorck(matrix: Tensor, iterations: int, order: int) -> Tensor:
    """``V sum_k (-1)^k binomial(-1/2, k) (I - V^T V)^k``, from a matrix of norm 1, term by term."""
    v = matrix / torch.linalg.matrix_norm(matrix, 2)
    eye = torch.eye(v.shape[1], dtype=v.dtype)
    for _ in range(iterations):
        q = eye - v.T @ v
        coefficients = [math.comb(2 * k, k) / 4**k for k in range(order + 1)]
        v = v @ sum(c * torch.linalg.matrix_power(q, k) for k, c in enumerate(coefficients))
    return v


def test_bjorck_is_the_textbook(each):
    for order, iterations in each(itertools.product([1, 2, 3, 4], [0, 1, 3])):
        matrices = torch.randn(3, 6, 4, dtype=torch.float64)
        found = bjorck(matrices, iterations=iterations, order=order, power_iterations=2000)
        expected = torch.stack([textbook_bjorck(matrix, iterations, order) for matrix in matrices])
        assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bjorck_approaches_the_polar_factor(shape):
    matrices = torch.randn(3, *shape, dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.allclose(bjorck(matrices, iterations=100), left @ right, atol=1e-12)


def test_bjorck_s_gradient_is_that_of_the_polar_factor():
    matrices = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    (expected,) = torch.autograd.grad((left @ right * weights).sum(), matrices)
    polar = bjorck(matrices, iterations=100)
    (found,) = torch.autograd.grad((polar * weights).sum(), matrices)
    assert torch.allclose(found, expected, atol=1e-9)


def test_a_higher_order_takes_fewer_iterations():
    matrices = torch.randn(4, 8, 5, dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64)
    defects = []
    for order in (1, 2, 3):
        q = bjorck(matrices, iterations=6, order=order)
        defects.append(float((q.mT @ q - eye).abs().max()))
    assert defects[0] > defects[1] > defects[2]


def test_bjorck_of_a_batch_is_one_by_one():
    matrices = torch.randn(5, 6, 3, dtype=torch.float64) * torch.logspace(-2, 2, 5)[:, None, None]
    alone = torch.cat([bjorck(matrix[None]) for matrix in matrices])
    assert torch.allclose(bjorck(matrices), alone, atol=1e-13)


@pytest.mark.parametrize("shape", [(6, 4), (5, 5)], ids=str)
def test_values_of_deel_torchlip(shape):
    normalizers = pytest.importorskip("deel.torchlip.normalizers")
    matrix = torch.randn(*shape, dtype=torch.float64)
    scaled = matrix / torch.linalg.matrix_norm(matrix, 2)
    for iterations in (1, 2, 7):
        theirs = normalizers.bjorck_normalization(scaled, eps=-1.0, maxiter=iterations)
        ours = bjorck(matrix[None], iterations=iterations, power_iterations=2000)[0]
        assert torch.allclose(ours, theirs, atol=1e-9)


# A power iteration from the sums of the columns would never see the first column, and Bjorck's
# would diverge. Projectors of 2 or 3 channels are made of one column.
@pytest.mark.parametrize("matrix", [[[1.0], [-1.0]], [[5.0, 1.0], [-5.0, 1.0]]], ids=str)
def test_columns_whose_sums_vanish(matrix):
    matrices = torch.tensor([matrix], dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.allclose(bjorck(matrices, iterations=50), left @ right, atol=1e-9)


# The squares of V^T V x under- and overflow in float32.
@pytest.mark.parametrize("scale", [1e-20, 1e-8, 1e8, 1e15])
def test_the_scale_does_not_matter_to_bjorck(scale):
    matrices = torch.randn(3, 6, 4)
    assert torch.allclose(bjorck(matrices * scale), bjorck(matrices), atol=1e-5)


def test_bjorck_of_zeros_is_zero():
    assert torch.equal(bjorck(torch.zeros(2, 3, 2)), torch.zeros(2, 3, 2))


# Layers of such matrices


ORTHOGONAL = {
    "AOC-5": lambda: layers.AOCConv2d(16, 16, 5),
    "AOC-3": lambda: layers.AOCConv2d(16, 16, 3),
    "AOC-64": lambda: layers.AOCConv2d(64, 64, 3),
    "AOC-stride": lambda: layers.AOCConv2d(16, 32, 5, 2),
    "AOC-dilation": lambda: layers.AOCConv2d(16, 16, 4, 2, dilation=3, groups=2),
    "AOC-one": lambda: layers.AOCConv2d(1, 3, 5, 2),
    "AOC-1d": lambda: layers.AOCConv1d(16, 16, 5),
    "AOC-transposed": lambda: layers.AOCConvTranspose2d(16, 16, 5, 2),
    "BCOP": lambda: layers.BCOPConv2d(16, 16, 5),
    "RKO": lambda: layers.RKOConv2d(16, 16, 4, 4),
    "Cholesky": lambda: layers.CholeskyLinear(64, 48),
    "Bjorck": lambda: layers.BjorckLinear(64, 64),
    "Cayley": lambda: layers.CayleyLinear(64, 64),
    "Cayley-conv": lambda: layers.CayleyConv2d(16, 16, 3, image_size=8),
    "BRO": lambda: layers.BROLinear(64, 64),
    "BRO-conv": lambda: layers.BROConv2d(16, 16, 3, image_size=8),
    "LOT": lambda: layers.LOTConv2d(8, 8, 3, image_size=8),
    "Householder": lambda: layers.Householder(16),
}


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("name", ORTHOGONAL)
def test_a_training_step_far_from_the_start_is_proved_within_1e_5(name, scale):
    """In float32. The first pass of Cholesky was left at 1e-4 in kernels of many factors."""
    layer = ORTHOGONAL[name]()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_().mul_(scale)
    assert float(onelip.lipschitz_bound(layer)) <= 1 + 1e-5


def test_near_orthonormal_columns_are_not_made_shorter():
    """The shift that dependent columns need would cost eight factors 4e-6."""
    matrices = torch.linalg.qr(torch.randn(8, 16, 8)).Q
    q = cholesky_qr(matrices).double()
    assert float((q.mT @ q).diagonal(dim1=1, dim2=2).mean() - 1) > -1e-7


# Shapes


@pytest.mark.parametrize(("rows", "columns"), [(2, 5), (5, 2), (3, 3), (1, 1)])
def test_tall_stacks_start_orthonormal_and_turn_back(rows, columns):
    stack = tall(rows, columns, count=3)
    assert stack.shape == (3, max(rows, columns), min(rows, columns))
    assert torch.allclose(stack.mT @ stack, torch.eye(min(rows, columns)), atol=1e-6)
    assert oriented(stack, rows, columns).shape == (3, rows, columns)
    assert tall(rows, columns, count=0).shape[0] == 0
