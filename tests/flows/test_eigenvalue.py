"""Curvature from both sides, against exact numbers."""

import itertools

import pytest
import torch

from onelip.activations import ACTIVATIONS, primitive
from onelip.errors import NonFiniteError
from onelip.flows import QuadraticPotential, RidgeLinear, SumPotential
from onelip.flows.eigenvalue import least_eigenvalue
from onelip.flows.potential import curvature
from tests.oracles import is_above, norm_below


def test_least_eigenvalue(each):
    for size, scale in each(
        itertools.product([1, 2, 5, 20], [1e-140, 1e-100, 1e-3, 1.0, 1e100, 1e140])
    ):
        generator = torch.Generator().manual_seed(size)
        for rows in (size, size + 3):
            orthogonal = torch.linalg.qr(torch.randn(rows, size, generator=generator).double()).Q
            matrix = scale * orthogonal * torch.linspace(1, 3, size).double()
            found = float(least_eigenvalue(matrix)) / scale**2
            assert found <= 1 + 1e-14
            assert found >= 1 - 1e-7 or scale**2 * 3 < 1e-250


def test_singular_matrices_have_none():
    """Exactly singular, of integers: any positive number would be wrong."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        matrix = torch.randint(-9, 10, (5, 4), generator=generator).double()
        matrix[:, 3] = matrix[:, 0] - 2 * matrix[:, 1]
        assert least_eigenvalue(matrix) == 0
    assert least_eigenvalue(torch.randn(3, 4)) == 0
    assert least_eigenvalue(torch.zeros(3, 3)) == 0


def test_extremes():
    assert least_eigenvalue(torch.full((1, 1), 1e-200, dtype=torch.float64)) <= 1e-300
    assert least_eigenvalue(torch.full((1, 1), 1e200, dtype=torch.float64)).isfinite()
    for value in (torch.nan, torch.inf):
        with pytest.raises(NonFiniteError):
            least_eigenvalue(torch.tensor([[value]]))


def test_smoothness_is_above_the_exact_norm():
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        for build in (lambda: RidgeLinear(4, 6), lambda: QuadraticPotential(4)):
            potential = build().to(dtype)
            lower = norm_below(potential.weight.detach().double())
            assert is_above(potential.smoothness(), lower * lower)
            low, high = curvature(potential)
            values = torch.linalg.svdvals(potential.weight.detach().double()) ** 2
            assert values[0] <= high <= values[0] * (1 + 1e-8)
            exact = float(values[-1]) if isinstance(potential, QuadraticPotential) else 0.0
            assert exact - 1e-7 <= low <= exact + 1e-14
    sum_of_both = SumPotential([RidgeLinear(3, 4), QuadraticPotential(3, 5)], [2.0, 0.5])
    parts = [curvature(part) for part in sum_of_both.parts]
    low, high = curvature(sum_of_both)
    torch.testing.assert_close(high, 2 * parts[0][1] + 0.5 * parts[1][1], rtol=1e-14, atol=0)
    torch.testing.assert_close(low, 0.5 * parts[1][0], rtol=1e-14, atol=0)
    assert low > 0


ALL = [kind() for kind, known in ACTIVATIONS.items() if known.homogeneous or known.primitive]


@pytest.mark.parametrize("activation", ALL, ids=lambda kind: type(kind).__name__)
def test_primitives(activation):
    activation = activation.double()
    x = torch.linspace(-30, 30, 601, dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(primitive(activation, x).sum(), x)
    torch.testing.assert_close(derivative, activation(x).detach(), rtol=1e-9, atol=1e-12)
    far = torch.tensor([-1e5, 1e5])
    assert primitive(activation.float(), far).isfinite().all()
