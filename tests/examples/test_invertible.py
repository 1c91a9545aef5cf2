"""A residual network that is inverted with a proved error."""

import pytest
import torch
from torch import nn

from examples import plot_invertible


def test_small_run():
    found = plot_invertible.run(layers=2, width=8, steps=20, grid=100)
    assert 0.5 < found["constant"] <= 0.9 + 1e-6
    assert found["error"] <= found["bound"] < 1e-10
    assert found["mass"] == pytest.approx(1, abs=1e-2)  # on a coarse grid
    assert found["steep error"] > 1e6


def test_the_bound_of_an_inverse_holds_after_few_iterations():
    g = nn.Linear(2, 2).double()
    with torch.no_grad():
        g.weight.copy_(0.9 * torch.eye(2))
        x = torch.randn(50, 2).double()
        for iterations in (1, 5, 50):
            found, bound = plot_invertible.Inverse(g, iterations)(x + g(x))
            error = (found - x).norm(dim=1)
            assert (error <= bound).all()
            assert (bound < 40 * error + 1e-9).all()  # |I + g'| / (1 - L) = 19, and some rounding


def test_determinant_against_autograd():
    g = plot_invertible.branch(4, 0.5).double().eval()
    x = torch.randn(5, 2).double().requires_grad_()
    _, logs = plot_invertible.with_determinant(g, x)
    for point, log in zip(x, logs, strict=True):
        whole = torch.autograd.functional.jacobian(lambda z: z + g(z[None])[0], point)
        torch.testing.assert_close(torch.linalg.slogdet(whole).logabsdet, log.detach())
