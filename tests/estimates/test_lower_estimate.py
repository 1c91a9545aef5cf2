"""The best lower estimate against exact constants."""

import itertools

import pytest
import torch
from torch import nn

from onelip.chains import Block, Chain, Dense, Elementwise, GroupSorting
from onelip.estimates import activation_patterns, lower_estimate
from onelip.layers import MaxMin


def plain(*sizes: int) -> Chain:
    linear = [
        Dense(torch.randn(m, n).double() / n**0.5, torch.randn(m).double() / 2)
        for n, m in itertools.pairwise(sizes)
    ]
    kind = Elementwise.of(nn.ReLU())
    return Chain(tuple(Block(part, kind) for part in linear[:-1]), linear[-1])


@pytest.mark.parametrize("sizes", [(2, 4, 1), (3, 6, 3), (2, 4, 4, 2)], ids=str)
def test_never_above_the_exact_constant_and_close_to_it(sizes):
    ratios = []
    for seed in range(5):
        torch.manual_seed(seed)
        chain = plain(*sizes)
        ratios.append(float(lower_estimate(chain, seconds=0) / activation_patterns(chain)))
    assert max(ratios) <= 1
    assert min(ratios) > 0.75
    assert sum(ratios) / len(ratios) > 0.93


@pytest.mark.parametrize("shape", [(5, 5), (40, 60)], ids=str)
def test_linear_networks_are_found_exactly(shape):
    weight = torch.randn(shape)
    norm = torch.linalg.matrix_norm(weight.double(), 2)
    estimate = lower_estimate(Chain((), Dense(weight)), seconds=0)
    assert float(estimate) <= float(norm)
    torch.testing.assert_close(estimate, norm, rtol=1e-3, atol=0)


def test_kinks_where_torch_has_no_derivative():
    """``x - (relu(x) - relu(-x))`` is 0; at 0 torch says that its slope is 1."""

    def nothing(x: torch.Tensor) -> torch.Tensor:
        return x - (x.relu() - (-x).relu())

    assert float(torch.func.jacrev(nothing)(torch.zeros(()))) == 1
    assert float(lower_estimate(nothing, (1,), seconds=0)) < 1e-9


def test_a_seed_gives_a_number():
    chain = plain(4, 9, 3)
    first, again, other = (lower_estimate(chain, seconds=0, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.usefixtures("clock")
def test_more_time_is_no_worse():
    chain = plain(6, 12, 12, 3)
    at_once, later = (float(lower_estimate(chain, seconds=s)) for s in (0, 10))
    assert later >= at_once


def test_float32_sorting_and_images():
    model = nn.Sequential(nn.Linear(6, 8), MaxMin(), nn.Linear(8, 3))
    chain = Chain(
        (Block(Dense(model[0].weight, model[0].bias), GroupSorting(MaxMin(), 2)),),
        Dense(model[2].weight),
    )
    estimate = lower_estimate(chain, seconds=0)
    assert estimate.dtype == torch.float64
    assert estimate.shape == ()
    torch.testing.assert_close(estimate, lower_estimate(model.double(), (6,), seconds=0))
    image = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()).double()
    assert float(lower_estimate(image, (1, 5, 5), seconds=0)) > 0.1


def test_a_function_needs_a_shape():
    with pytest.raises(ValueError, match="input_shape"):
        lower_estimate(lambda x: x)
