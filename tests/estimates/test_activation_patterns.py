"""Enumerated linear pieces against closed forms, grids and brute force."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from onelip.chains import Block, Chain, Dense, Elementwise, Scale
from onelip.errors import NotApplicableError
from onelip.estimates import activation_patterns
from onelip.estimates.jacobian import stretch

RELU = Elementwise.of(nn.ReLU())


def plain(*sizes: int, activation: nn.Module | None = None, bias: bool = True) -> Chain:
    linear = [
        Dense(torch.randn(m, n).double() / n**0.5, torch.randn(m).double() / 2 if bias else None)
        for n, m in itertools.pairwise(sizes)
    ]
    kind = Elementwise.of(activation or nn.ReLU())
    return Chain(tuple(Block(part, kind) for part in linear[:-1]), linear[-1])


def on_grid(chain: Chain, side: float, count: int) -> Tensor:
    """The largest Jacobian on a fine grid of the plane."""
    axis = torch.linspace(-side, side, count).double() + 1e-4
    return stretch(chain.forward, torch.cartesian_prod(axis, axis)).norms.max()


def test_the_network_on_which_lipsdp_network_is_wrong():
    first = torch.tensor([[-0.76993978, 0.91454885], [-0.70216619, 1.02626461]]).double()
    last = torch.tensor([[1.2739675, -1.06217599]]).double()
    found = activation_patterns(Chain((Block(Dense(first), RELU),), Dense(last)))
    patterns = [torch.tensor(signs).double() for signs in itertools.product((0, 1), repeat=2)]
    most = max((last * signs @ first).norm() for signs in patterns)  # all four are reached
    torch.testing.assert_close(found, most)
    assert f"{float(found):.4f}" == "1.5230"


def test_patterns_that_no_input_reaches_do_not_count():
    """``relu(x) + relu(-x)`` never has both units on; ``relu(x) - relu(x - 1)`` never the second
    alone."""
    absolute = Block(Dense(torch.tensor([[1.0], [-1.0]])), RELU)
    assert float(activation_patterns(Chain((absolute,), Dense(torch.tensor([[1.0, 1.0]]))))) == 1
    step = Block(Dense(torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, -1.0])), RELU)
    assert float(activation_patterns(Chain((step,), Dense(torch.tensor([[1.0, 3.0]]))))) == 4
    assert float(activation_patterns(Chain((step,), Dense(torch.tensor([[1.0, -3.0]]))))) == 2


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.3), nn.LeakyReLU(-2.0)], ids=str)
@pytest.mark.parametrize("sizes", [(2, 5, 2), (2, 3, 3, 1)], ids=str)
def test_not_below_a_fine_grid_and_reached_by_it(activation, sizes):
    for seed in range(3):
        torch.manual_seed(seed)
        chain = plain(*sizes, activation=activation)
        box = (torch.full((2,), -3.0), torch.full((2,), 3.0))
        inside, found = activation_patterns(chain, box=box), on_grid(chain, 2.999, 300)
        assert float(found) <= float(inside) * (1 + 1e-9)
        assert float(found) >= 0.999 * float(inside)
        assert float(activation_patterns(chain)) >= float(inside) * (1 - 1e-9)


def test_without_biases_all_pieces_are_cones():
    chain = plain(2, 6, 2, bias=False)
    angles = torch.arange(0, 2 * math.pi, 1e-3).double()
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    found = stretch(chain.forward, circle).norms.max()
    torch.testing.assert_close(activation_patterns(chain), found)


def test_residual_blocks():
    block = Block(Dense(torch.eye(1)), RELU, Dense(-torch.eye(1)), Scale((1,), torch.tensor(3.0)))
    assert float(activation_patterns(Chain((block,), Dense(torch.eye(1))))) == 3
    block = Block(
        Dense(torch.eye(1)), RELU, Dense(2 * torch.eye(1)), Scale((1,), torch.tensor(3.0))
    )
    assert float(activation_patterns(Chain((block,), Dense(torch.eye(1))))) == 5


def test_units_without_weights():
    first = Dense(torch.zeros(2, 2), torch.tensor([1.0, -1.0]))
    assert float(activation_patterns(Chain((Block(first, RELU),), Dense(torch.ones(1, 2))))) == 0


def test_linear_networks():
    weight = torch.randn(3, 2).double()
    norm = torch.linalg.matrix_norm(weight, 2)
    torch.testing.assert_close(activation_patterns(Chain((), Dense(weight))), norm)


def test_what_is_not_covered():
    with pytest.raises(NotApplicableError, match="ReLU and LeakyReLU only"):
        activation_patterns(plain(2, 3, 1, activation=nn.Tanh()))
    with pytest.raises(NotApplicableError, match="more than 5 linear pieces"):
        activation_patterns(plain(2, 8, 1), limit=5)
