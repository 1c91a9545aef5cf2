"""LOT against the coupled iteration of the paper, and against the SVD."""

import itertools

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip.layers import LOTConv2d
from onelip.layers.fourier_layer import symbol
from onelip.layers.lot import unitary_factor
from tests.oracles import full_transform

SHAPES = [(1, 1), (4, 4), (5, 3), (3, 5), (1, 4)]


def coupled(matrix: Tensor, iterations: int) -> Tensor:
    """``W Z`` with Y towards the root of W^H W and Z towards its inverse."""
    if matrix.shape[0] < matrix.shape[1]:
        return coupled(matrix.T, iterations).T
    square = matrix.conj().T @ matrix
    scale = torch.linalg.matrix_norm(square)
    eye = torch.eye(len(square), dtype=matrix.dtype)
    y, z = square / scale, eye
    for _ in range(iterations):
        step = (3 * eye - z @ y) / 2
        y, z = y @ step, step @ z
    return matrix @ z / scale.sqrt()


def factor(matrix: Tensor) -> Tensor:
    """``U V^H`` of the SVD."""
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


def test_the_iterates_are_those_of_the_coupled_iteration(each):
    for shape, dtype, iterations in each(
        itertools.product(SHAPES, [torch.float64, torch.complex128], [1, 2, 5, 10])
    ):
        matrices = torch.randn(2, 3, *shape, dtype=dtype)
        found = unitary_factor(matrices, iterations)
        for i, j in itertools.product(range(2), range(3)):
            assert torch.allclose(found[i, j], coupled(matrices[i, j], iterations), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_limit_is_the_unitary_factor(shape, dtype):
    matrices = torch.randn(6, *shape, dtype=dtype)
    found = unitary_factor(matrices, 40)
    assert torch.allclose(found, torch.stack([factor(m) for m in matrices]), atol=1e-10)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e15])
def test_the_scale_of_a_block_is_of_no_consequence(scale):
    matrices = torch.randn(3, 5, 4)
    found = unitary_factor(scale * matrices, 10)
    assert torch.allclose(found, unitary_factor(matrices, 10), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 3), (3, 2)], ids=str)
def test_the_gradient_before_it_has_converged(shape):
    """Of the two scalings, only the first may be taken as a constant."""
    matrices = torch.randn(2, *shape, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: unitary_factor(m, 2), matrices, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_not_converged_is_short_not_long(iterations):
    """Trap 15: the residual is measured, and errs on the safe side."""
    layer = LOTConv2d(4, 4, 3, image_size=6, iterations=iterations).double()
    nn.init.normal_(layer.raw_weight)
    values = torch.linalg.svdvals(layer.weight.detach())
    assert float(values.max()) <= 1 + 1e-12
    assert float(values.min()) < 0.99
    bound = float(onelip.lipschitz_bound(layer))
    assert float(values.max()) <= bound <= float(values.max()) * (1 + 1e-8)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_the_bound_follows_the_iteration(iterations):
    """From four equal singular values, scaled to 4^(-1/4), by s (3 - s^2) / 2."""
    layer = LOTConv2d(4, 4, 3, image_size=6, iterations=iterations).double()
    value = 4**-0.25
    for _ in range(iterations):
        value *= (3 - value**2) / 2
    assert value < 1 - 1e-5
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2)], ids=str)
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (2, 1)], ids=str)
def test_values_of_the_convolution(shape, size):
    """Full transforms and the paper's iteration, frequency by frequency."""
    layer = LOTConv2d(*shape, 3, image_size=size, iterations=6).double()
    nn.init.normal_(layer.raw_weight)
    nn.init.normal_(layer.bias)
    height, width = size
    half = symbol(layer.raw_weight.detach(), size)
    blocks = torch.zeros(height, width, *half.shape[2:], dtype=torch.complex128)
    for i, j in itertools.product(range(height), range(width)):
        mirrored = j > width // 2
        symbols = half[-i % height, width - j].conj() if mirrored else half[i, j]
        blocks[i, j] = coupled(symbols, 6)
    x = torch.randn(2, shape[0], *size, dtype=torch.float64)
    expected = full_transform(x, blocks)
    assert float(expected.imag.abs().max()) < 1e-12
    assert torch.allclose(layer(x), expected.real + layer.bias[:, None, None], atol=1e-12)


def test_it_starts_orthogonal_and_small_steps_keep_it_so():
    layer = LOTConv2d(16, 16, 3, image_size=8)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        y = layer(torch.randn(4, 16, 8, 8))
        (y * torch.randn_like(y)).mean().backward()
        optimizer.step()
    values = torch.linalg.svdvals(layer.double().weight)
    assert torch.allclose(values, torch.ones_like(values), atol=1e-9)
    assert float(layer.raw_weight.detach()[:, :, 0, 0].abs().max()) > 1e-4


def test_an_identity_kernel_shifts_nothing():
    x = torch.randn(2, 3, 4, 5)
    for kernel_size in (1, 2, 3, 4):
        layer = LOTConv2d(3, 3, kernel_size, image_size=(4, 5))
        layer.raw_weight.data.zero_()
        centre = (kernel_size - 1) // 2
        layer.raw_weight.data[:, :, centre, centre] = torch.eye(3)
        assert torch.allclose(layer(x), x, atol=1e-5)


def test_without_weights_it_is_zero():
    layer = LOTConv2d(2, 3, 3, image_size=4)
    layer.raw_weight.data.zero_()
    assert float(onelip.lipschitz_bound(layer)) == 0
    assert not layer(torch.randn(1, 2, 4, 4)).any()


def test_no_iterations():
    with pytest.raises(ValueError, match="iterations must be positive, got 0"):
        LOTConv2d(2, 2, 3, image_size=4, iterations=0)
