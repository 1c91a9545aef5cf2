"""LipSDP against cvxpy, its published numbers, and constants that are known."""

import time

import pytest
import torch
from torch import nn

from onelip.bounds import LipSDP
from onelip.bounds.semidefinite.matrices import matrices
from onelip.chains import Block, Chain, Dense, Elementwise, identity
from onelip.errors import NotApplicableError, UsageError
from tests.bounds.semidefinite.programmes import optimum
from tests.networks import (
    PUBLISHED,
    SHAPES,
    chain_of,
    published_network,
    random_weights,
    sorting_chain,
)
from tests.oracles import exact_max_min, exact_relu, sampled

SMALL = [key for key in PUBLISHED if key[0] <= 5]


@pytest.mark.parametrize("mode", ["neuron", "layer"])
@pytest.mark.parametrize("key", SMALL, ids=str)
def test_the_published_numbers(key, mode) -> None:
    bound = float(LipSDP(mode).bound(published_network(*key)))
    assert bound == pytest.approx(PUBLISHED[key][mode], rel=2e-6)


CHAINS = {
    "relu": lambda: chain_of(random_weights(3, 5, 4, 2)),
    "gelu": lambda: chain_of(random_weights(3, 5, 4, 2), nn.GELU()),
    "leaky": lambda: chain_of(random_weights(6, 5, 2), nn.LeakyReLU(0.3)),
    "absolute": lambda: chain_of(random_weights(2, 5, 2), nn.LeakyReLU(-1.0)),
    "sigmoid": lambda: chain_of(random_weights(2, 4, 4, 4, 1), nn.Sigmoid()),
    "wide": lambda: chain_of(random_weights(9, 4, 5), nn.ReLU()),
    "pairs": lambda: sorting_chain(random_weights(3, 4, 2)),
    "deep pairs": lambda: sorting_chain(random_weights(3, 6, 4, 2)),
    "triples": lambda: sorting_chain(random_weights(4, 6, 2), 3),
}


@pytest.mark.parametrize("mode", ["neuron", "layer"])
@pytest.mark.parametrize("name", CHAINS)
def test_cvxpy_finds_nothing_better(name: str, mode) -> None:
    chain = CHAINS[name]()
    best = optimum(matrices(chain), shared=mode == "layer")
    bound = float(LipSDP(mode).bound(chain))
    assert sampled(chain, 20) <= bound
    best = min(best, float(matrices(chain).product))
    assert best * (1 - 1e-3) <= bound <= best * (1 + 3e-5)  # free multipliers have no largest value


@pytest.mark.parametrize("sizes", SHAPES)
def test_random_networks(sizes) -> None:
    tight = 0
    for _ in range(8):
        weights = random_weights(*sizes)
        truth = exact_relu(weights)
        neuron, layer = (
            float(LipSDP(mode).bound(chain_of(weights))) for mode in ("neuron", "layer")
        )
        assert truth <= neuron <= layer * (1 + 1e-6)
        tight += neuron < truth * (1 + 1e-6)
    assert tight >= 2


def test_sorting() -> None:
    gained = 0
    for _ in range(12):
        weights = random_weights(4, 4, 2)
        chain = sorting_chain(weights)
        bound = float(LipSDP().bound(chain))
        assert exact_max_min(weights) <= bound <= float(matrices(chain).product)
        gained += bound < 0.99 * float(matrices(chain).product)
    assert gained >= 6


def test_it_may_stop_at_any_time() -> None:
    chain = published_network(5, 20)
    best, bounds = float(LipSDP().bound(chain)), []
    for seconds in (0.0, 0.1, 1e9):
        start = time.monotonic()
        bounds.append(float(LipSDP(seconds=seconds).bound(chain)))
        assert seconds > 1 or time.monotonic() - start < seconds + 5
        assert best <= bounds[-1] * (1 + 1e-8) <= float(matrices(chain).product)
    assert bounds[-1] == best


@pytest.mark.slow
def test_a_hidden_layer_of_a_thousand() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(784, 1024), nn.Linear(1024, 10)
    chain = chain_of([first.weight.data, second.weight.data])
    assert float(LipSDP().bound(chain)) == pytest.approx(0.46516475, rel=1e-6)


def test_layers_that_do_nothing() -> None:
    weight = torch.randn(3, 4).double()
    assert LipSDP().bound(chain_of([0 * weight, torch.ones(2, 3).double()])) == 0
    dead = chain_of([weight * torch.tensor([[1.0], [0.0], [0.0]]), torch.ones(2, 3).double()])
    assert float(LipSDP().bound(dead)) == pytest.approx(float(weight[0].norm()) * 2**0.5, rel=2e-6)
    unseen = chain_of([weight, torch.tensor([[1.0, 0.0, 0.0]]).double()])
    assert float(LipSDP().bound(unseen)) == pytest.approx(float(weight[0].norm()), rel=1e-6)
    alone = Chain((), Dense(weight))
    assert LipSDP().bound(alone) == matrices(alone).product


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e5, 1e150])
def test_sizes_of_weights_do_not_matter(scale: float) -> None:
    weights = random_weights(4, 5, 3, 2)
    bound = float(LipSDP().bound(chain_of(weights)))
    moved = float(LipSDP().bound(chain_of([scale * weights[0], *weights[1:]])))
    assert moved == pytest.approx(scale * bound, rel=1e-6)


def test_modes_and_networks_that_are_refused() -> None:
    with pytest.raises(UsageError, match="LipSDP-Network proves nothing"):
        LipSDP("network").bound(published_network(2, 20))
    with pytest.raises(UsageError, match="'neuron' or 'layer', got 'neurons'"):
        LipSDP("neurons").bound(published_network(2, 20))
    dense = Dense(torch.eye(3))
    skip = Chain((Block(dense, Elementwise.of(nn.ReLU()), dense, identity((3,))),), dense)
    with pytest.raises(NotApplicableError, match="skip"):
        LipSDP().bound(skip)
    wide = chain_of([torch.ones(2000, 1500), torch.ones(600, 2000)])
    with pytest.raises(NotApplicableError, match="2600 rows"):
        LipSDP("layer").bound(wide)
