"""Norm pooling against its sum of squares, window by window."""

import itertools

import pytest
import torch

from onelip.layers import ScaledL2NormPool2d
from onelip.norms.windows import overlap_of_maxima
from onelip.testing import jacobian_norm

POOLS = [(1, None), (2, None), (2, 1), (3, 2), (3, 1), (2, 3), (5, 2)]


def test_windows(each):
    for (kernel, stride), size in each(itertools.product(POOLS, [(5, 5), (7, 6)])):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        step = stride or kernel
        root = overlap_of_maxima([(kernel, step)] * 2) ** 0.5
        rows, columns = ((side - kernel) // step + 1 for side in size)
        y = ScaledL2NormPool2d(kernel, stride)(x)
        assert y.shape == (2, 3, rows, columns)
        for i, j in itertools.product(range(rows), range(columns)):
            window = x[:, :, i * step : i * step + kernel, j * step : j * step + kernel]
            expected = window.square().sum((2, 3)).sqrt() / root
            torch.testing.assert_close(y[:, :, i, j], expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_windows_side_by_side_keep_the_norm(kernel):
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    y = ScaledL2NormPool2d(kernel)(x)
    torch.testing.assert_close(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


@pytest.mark.parametrize(("kernel", "stride"), POOLS)
def test_one_pixel_attains_the_constant(kernel, stride):
    """The Jacobian at an image of one pixel, where as many windows share it as can."""
    pool, norms = ScaledL2NormPool2d(kernel, stride), []
    size = 3 * kernel + 2
    for i, j in itertools.product(range(kernel, 2 * kernel + 1), repeat=2):
        x = torch.zeros(1, size, size, dtype=torch.float64)
        x[0, i, j] = -1
        norms.append(float(jacobian_norm(pool, x)))
    assert max(norms) == pytest.approx(1, rel=1e-6)
    assert max(norms) <= 1 + 1e-12


@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-25, 1.0])
@pytest.mark.parametrize(("kernel", "stride"), [(2, None), (3, 1)])
def test_gradients_are_finite(size, kernel, stride):
    """At 0, too, where the root of a sum of squares has none."""
    x = (size * torch.randn(1, 2, 6, 6)).requires_grad_()
    ScaledL2NormPool2d(kernel, stride)(x).sum().backward()
    assert x.grad.isfinite().all()
    if size == 0:
        assert not x.grad.any()
