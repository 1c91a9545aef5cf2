"""Dense orthogonal layers against LAPACK, their claims early and late, and deel-torchlip's.

``SpectralLinear`` divides by a running estimate of the norm and stops when a step is shorter than
1e-3, so its weight is only near to the polar factor; ``bjorck_normalization`` itself is compared
number by number in ``test_orthogonal.py``. orthogonium's ``OrthoLinear`` is the reshaped kernel of
``test_rko.py`` with a kernel of one pixel.
"""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.layers import BjorckLinear, CholeskyLinear, RKOConv2d, bjorck
from tests.oracles import is_above, norm_below, sigma_max

SIZES = [(1, 1), (4, 4), (3, 7), (7, 3), (1, 5), (5, 1)]


def redrawn(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.double()


def free(layer: BjorckLinear | CholeskyLinear) -> Tensor:
    """The free matrix as it acts, ``(out, in)``."""
    matrix = layer.raw_weight.detach()[0]
    return matrix if layer.out_features >= layer.in_features else matrix.T


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bjorck_is_the_polar_factor(size):
    layer = redrawn(BjorckLinear(*size, iterations=100))
    left, _, right = torch.linalg.svd(free(layer), full_matrices=False)
    assert torch.allclose(layer.weight, left @ right, atol=1e-11)
    x = torch.randn(2, 3, size[0], dtype=torch.float64)
    assert torch.allclose(layer(x), x @ (left @ right).T + layer.bias, atol=1e-11)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_cholesky_is_the_q_of_lapack(size):
    layer = redrawn(CholeskyLinear(*size))
    q, r = torch.linalg.qr(layer.raw_weight[0])
    q = q * r.diagonal().sgn()
    expected = q if size[1] >= size[0] else q.T
    assert torch.allclose(layer.weight, expected, atol=1e-12)
    x = torch.randn(2, 3, size[0], dtype=torch.float64)
    assert torch.allclose(layer(x), x @ expected.T + layer.bias, atol=1e-12)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", [CholeskyLinear, partial(BjorckLinear, iterations=200)])
def test_orthogonal_after_violent_steps_export_and_a_state_dict(size, kind):
    layer = kind(*size, bias=False).double()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e4)
    for _ in range(3):
        optimizer.zero_grad()
        y = layer(torch.randn(4, size[0], dtype=torch.float64))
        (y * torch.randn_like(y)).sum().backward()
        optimizer.step()
    loaded = kind(*size, bias=False).double()
    loaded.load_state_dict(layer.state_dict())
    assert torch.equal(loaded.weight, layer.weight)
    exported = onelip.export(layer)
    assert type(exported) is nn.Linear
    for other in (layer, loaded, exported):
        values = torch.linalg.svdvals(other.weight.detach())
        assert torch.allclose(values, torch.ones_like(values), atol=1e-9, rtol=0)
        assert is_above(onelip.lipschitz_bound(other), norm_below(other.weight))


@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("size", [(6, 6), (8, 3), (2, 5)], ids=str)
def test_stopped_early_the_bound_is_the_norm_that_was_reached(iterations, size):
    layer = redrawn(BjorckLinear(*size, iterations=iterations))
    values = torch.linalg.svdvals(layer.weight.detach())
    assert float(values.min()) < 0.99  # not yet orthogonal
    bound = float(onelip.lipschitz_bound(layer))
    assert float(values.max()) <= bound <= float(values.max()) * (1 + 1e-8)
    assert bound == float(onelip.lipschitz_bound(onelip.export(layer)))


def test_without_iterations_an_estimate_is_left_and_its_bound_is_above_one():
    layer = redrawn(BjorckLinear(40, 40, iterations=0))
    norm = sigma_max(layer.weight)
    assert 1.0001 < norm <= float(onelip.lipschitz_bound(layer)) <= norm * (1 + 1e-8)


def test_a_norm_that_is_underestimated_stays_above_one_for_even_orders():
    """The first term that the series leaves out is negative above 1."""
    hasty = partial(bjorck, iterations=1, order=2, power_iterations=1)
    layer = redrawn(RKOConv2d(40, 40, 1, orthogonalise=hasty))
    norm = sigma_max(layer.weight.flatten(1))
    assert norm > 1.001
    bound = float(onelip.lipschitz_bound(layer))
    assert norm <= bound <= norm * 1.01


def test_rounding_is_in_the_bound():
    """float32 weights are orthogonal up to rounding only: the bound is that of the numbers."""
    for kind in (BjorckLinear, CholeskyLinear):
        layer = kind(64, 64)
        lower = norm_below(layer.weight)
        bound = onelip.lipschitz_bound(layer)
        assert is_above(bound, lower)
        assert float(bound) == pytest.approx(1, abs=1e-4)
        exported = onelip.export(layer)
        assert torch.equal(exported.weight, copy.deepcopy(layer).double().weight.float())
        assert float(onelip.lipschitz_bound(exported)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (6, 3)], ids=str)
def test_values_of_deel_torchlip(size):
    torchlip = pytest.importorskip("deel.torchlip")
    theirs = torchlip.SpectralLinear(*size)
    left, _, right = torch.linalg.svd(torch.randn(size[1], size[0]), full_matrices=False)
    matrix = (left * torch.linspace(0.7, 1, min(size))) @ right  # it iterates 15 times at most
    theirs.parametrizations.weight.original.data = matrix.clone()
    theirs.train()
    for _ in range(50):
        theirs(torch.zeros(1, size[0]))  # its power iteration moves in forward
    ours = BjorckLinear(*size)
    ours.raw_weight.data = (matrix if size[1] >= size[0] else matrix.T)[None].clone()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-3)
    assert torch.allclose(ours.weight, left @ right, atol=1e-6)


@pytest.mark.parametrize("kind", [BjorckLinear, CholeskyLinear])
def test_zero_and_broken_weights(kind):
    layer = kind(3, 4)
    layer.raw_weight.data.zero_()
    assert layer(torch.randn(2, 3)).abs().max().item() == 0
    assert 0 <= float(onelip.lipschitz_bound(layer)) < 1e-30
    layer.raw_weight.data[0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError):
        onelip.lipschitz_bound(layer)


@pytest.mark.parametrize("kind", [BjorckLinear, CholeskyLinear])
def test_preconditions(kind):
    for size in ((0, 3), (3, 0), (-1, 2)):
        with pytest.raises(ValueError, match=f"must be positive, got {size[0]} and {size[1]}"):
            kind(*size)
    assert "3, 4, bias=False" in repr(kind(3, 4, bias=False))


@pytest.mark.parametrize("kind", [BjorckLinear, CholeskyLinear])
def test_a_derived_class_proves_nothing(kind):
    class Doubled(kind):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    with pytest.raises(UnboundedModuleError, match="Doubled inherits lipschitz_bound"):
        onelip.lipschitz_bound(Doubled(3, 3))
