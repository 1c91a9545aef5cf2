"""What the package eclipse-nn 0.1.7 reads wrongly without a word, and what is right.

It skips convolutions and batch normalisation, reads a residual block as its branch, takes the
slopes of every activation that it does not know for [0, 1], and those of every LeakyReLU for
[0.01, 1]. Each network here stretches two inputs by more than such a reading allows.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from onelip import bounds
from onelip.bounds import Best
from onelip.errors import NotApplicableError

METHODS_TO_ASK = ("product", "eclipse-fast", "lipsdp", "exact", "liplt")


def steepest(model: nn.Module, shape: tuple[int, ...]) -> float:
    """The largest norm of a Jacobian at random points, up to rounding."""
    largest = 0.0
    for size in torch.logspace(-1, 1, 60).tolist():
        point = size * torch.randn(1, *shape, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(model, point)
        matrix = jacobian.reshape(-1, math.prod(shape))
        largest = max(largest, float(torch.linalg.matrix_norm(matrix, 2)))
    return largest * (1 - 1e-12)


def check(model: nn.Module, shape: tuple[int, ...], misread: float) -> None:
    """All that we prove is above what is seen, and what is seen is above the wrong reading."""
    model = model.double().eval()
    seen = steepest(model, shape)
    assert seen > misread * 1.001
    network = torch.export.export(model, (torch.zeros(1, *shape).double(),))
    asked = 0
    for name in METHODS_TO_ASK:
        try:
            found = float(bounds.bound_method(name).bound(network))
        except NotApplicableError:
            continue
        asked += 1
        assert found >= seen, name
    assert asked >= 2
    assert float(Best(seconds=0.3).bound(network)) >= seen


def norms(*layers: nn.Linear) -> float:
    """The product of the norms of dense layers."""
    return math.prod(float(torch.linalg.matrix_norm(m.weight.detach().double(), 2)) for m in layers)


def test_a_convolution_is_a_layer() -> None:
    conv, linear = nn.Conv2d(1, 2, 2), nn.Linear(8, 2)
    conv.weight.data *= 10
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear)
    check(model, (1, 3, 3), norms(linear))


def test_batch_normalisation_is_a_layer() -> None:
    first, norm, last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
    norm.running_var.fill_(1e-2)
    norm.weight.data.fill_(3.0)
    check(nn.Sequential(first, norm, nn.ReLU(), last), (4,), norms(first, last))


class Residual(nn.Module):
    """``x + outer(relu(inner(x)))``."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 3), nn.Linear(3, 3)
        with torch.no_grad():
            self.inner.weight.mul_(0.1)
            self.outer.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        return x + self.outer(torch.relu(self.inner(x)))


def test_a_residual_block_is_more_than_its_branch() -> None:
    block = Residual()
    check(block, (3,), norms(block.inner, block.outer))


ACTIVATIONS = {
    "silu": (nn.SiLU(), 1.0998),
    "gelu": (nn.GELU(), 1.1289),
    "selu": (nn.SELU(), 1.758),
    "elu": (nn.ELU(2.0), 1.99),
    "leaky": (nn.LeakyReLU(1.5), 1.5),
    "negative": (nn.LeakyReLU(-2.0), 2.0),
    "prelu": (nn.PReLU(init=3.0), 3.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_above_one_are_seen(name: str) -> None:
    activation, slope = ACTIVATIONS[name]
    first, last = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    first.weight.data.fill_(1.0)
    last.weight.data.fill_(1.0)
    model = nn.Sequential(first, activation, last)
    check(model, (1,), 1.0)
    assert float(bounds.Product().bound(model)) >= slope


def test_every_leaky_slope_is_its_own() -> None:
    """With slopes in [0.01, 1] two layers of ``[-1, 1]`` and ``[1, -1]`` seem to cancel less."""
    for slope in (-0.5, 0.3, 0.9):
        first, last = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
        first.weight.data = torch.tensor([[1.0], [-1.0]])
        last.weight.data = torch.tensor([[1.0, -1.0]])
        model = nn.Sequential(first, nn.LeakyReLU(slope), last).double()
        # f(x) = (1 + slope) x: a slope of 0.01 makes that 1.01.
        truth = 1 + slope
        found = float(bounds.Exact().bound(model, (1,)))
        assert truth * (1 - 1e-12) <= found
        if slope > 0.01:
            check(model, (1,), 1.01)
