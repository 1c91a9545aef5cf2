"""ECLipsE against its published numbers, LipSDP, and constants that are known."""

import math

import pytest
import torch
from torch import nn

from onelip.bounds import Best, ECLipsE, LipSDP
from onelip.bounds.semidefinite.forms import form
from onelip.bounds.semidefinite.layerwise import behind_layer, fast, forward
from onelip.bounds.semidefinite.matrices import matrices
from onelip.bounds.semidefinite.multipliers import proved
from onelip.chains import Block, Chain, Dense, Elementwise, identity
from onelip.errors import NotApplicableError
from onelip.reading import read
from tests.bounds.semidefinite.programmes import optimum
from tests.networks import (
    PUBLISHED,
    SHAPES,
    chain_of,
    published_network,
    random_weights,
    sorting_chain,
)
from tests.oracles import exact_max_min, exact_relu, sampled, sigma_max


@pytest.mark.parametrize("key", PUBLISHED, ids=str)
def test_the_published_numbers(key) -> None:
    network = matrices(published_network(*key))
    level = forward(network, fast)[1]
    assert float(network.product) == pytest.approx(PUBLISHED[key]["naive"], rel=1e-5)
    as_published = float(network.unscaled(level.sqrt()))
    assert as_published == pytest.approx(PUBLISHED[key]["eclipse_fast"], rel=1e-5)
    assert float(ECLipsE(fast=True).bound(published_network(*key))) <= as_published * (1 + 1e-9)


@pytest.mark.parametrize("key", [key for key in PUBLISHED if key[0] <= 5], ids=str)
def test_the_published_numbers_of_optimised_weights(key) -> None:
    bound = float(ECLipsE().bound(published_network(*key)))
    assert bound == pytest.approx(PUBLISHED[key]["eclipse"], rel=1e-5)


@pytest.mark.slow
def test_the_published_number_of_twenty_layers() -> None:
    bound = float(ECLipsE().bound(published_network(20, 20)))
    assert bound == pytest.approx(PUBLISHED[20, 20]["eclipse"], rel=1e-4)


def test_the_matrix_behind_a_layer_by_hand() -> None:
    """``X_1 = l I - l^2 m^2 W W^T`` with ``l = 1 / (2 m^2 |W|^2)`` for ReLU, m = 1/2."""
    weight = random_weights(4, 3)[0]
    network = matrices(chain_of([weight, torch.ones(1, 3).double()]))
    scaled = network.weights[0]
    single = fast(network.kinds[0], scaled, network.weights[1])
    number = 2 / sigma_max(scaled) ** 2
    torch.testing.assert_close(
        single.weights, torch.full((3,), number, dtype=torch.float64), rtol=1e-8, atol=0
    )
    found = behind_layer(form(network.kinds[0], single), scaled, torch.eye(4).double())
    expected = number * torch.eye(3).double() - number**2 / 4 * scaled @ scaled.T
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("sizes", SHAPES)
def test_random_networks(sizes) -> None:
    for _ in range(12):
        weights = random_weights(*sizes)
        chain, truth = chain_of(weights), exact_relu(weights)
        best, quick = float(ECLipsE().bound(chain)), float(ECLipsE(fast=True).bound(chain))
        assert truth <= best <= quick <= float(matrices(chain).product)
        assert best <= truth * 1.2


def test_one_hidden_layer_is_lipsdp() -> None:
    for activation in (nn.ReLU(), nn.GELU(), nn.LeakyReLU(-0.5), nn.Tanh()):
        chain = chain_of(random_weights(5, 7, 3), activation)
        assert float(ECLipsE().bound(chain)) == pytest.approx(optimum(matrices(chain)), rel=1e-6)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.Sigmoid(), nn.LeakyReLU(0.1)])
def test_three_hidden_layers(activation) -> None:
    for _ in range(3):
        chain = chain_of(random_weights(3, 6, 5, 4, 2), activation)
        assert (
            sampled(chain)
            <= float(ECLipsE().bound(chain))
            <= float(ECLipsE(fast=True).bound(chain))
        )


def test_sorting() -> None:
    for _ in range(20):
        weights = random_weights(4, 4, 2)
        chain, truth = sorting_chain(weights), exact_max_min(weights)
        best, quick = float(ECLipsE().bound(chain)), float(ECLipsE(fast=True).bound(chain))
        assert truth <= best <= quick <= float(matrices(chain).product)
    assert sampled(deep := sorting_chain(random_weights(3, 6, 4, 2))) <= float(
        ECLipsE().bound(deep)
    )


@pytest.mark.slow
def test_a_hundred_layers_of_a_hundred() -> None:
    chain = published_network(100, 100)
    bound = float(ECLipsE(fast=True).bound(chain))
    # The product of norms is 9.03, ECLipsE-Fast as published 1.62e-10. Nothing here may have a
    # floor in relation to the product: 3.7e-13 was returned where a tenth of it is provable.
    assert 1.7e-14 < bound < 1.8e-14
    assert float(Best(seconds=1).bound(chain)) <= bound
    jacobian = torch.autograd.functional.jacobian(chain.forward, torch.randn(1, 4).double())
    assert float(jacobian.norm()) <= bound


def test_where_no_multipliers_are_found_the_product_is_left() -> None:
    """Equal rows that are sorted, and weights of which nothing is left: both were an assertion."""
    weights = random_weights(4, 2, 2)
    weights[0][1] = weights[0][0]
    image = nn.Sequential(
        nn.Conv2d(1, 1, 2), nn.ReLU(), nn.Conv2d(1, 1, 2), nn.Flatten(), nn.Linear(1, 1)
    )
    nn.init.zeros_(image[2].weight)
    nothing = read(image.double().eval(), (1, 3, 3))
    for network, truth in ((sorting_chain(weights), exact_max_min(weights)), (nothing, 0.0)):
        for method in (ECLipsE(fast=True), ECLipsE(), LipSDP(), Best(seconds=1)):
            bound = float(method.bound(network))
            assert truth <= bound <= float(matrices(network).product)


def test_no_time_gives_the_closed_form() -> None:
    chain = published_network(5, 20)
    assert ECLipsE(seconds=0).bound(chain) == ECLipsE(fast=True).bound(chain)


def test_float32_weights_count_as_they_are() -> None:
    weights = [weight.float() for weight in random_weights(4, 3, 2)]
    truth = exact_relu([weight.double() for weight in weights])
    assert truth <= float(ECLipsE(fast=True).bound(chain_of(weights)))


@pytest.mark.parametrize("method", [ECLipsE().bound, ECLipsE(fast=True).bound])
def test_edge_cases(method) -> None:
    weight = torch.randn(3, 4).double()
    assert float(method(Chain((), Dense(weight)))) == pytest.approx(sigma_max(weight), rel=1e-8)
    assert method(chain_of([0 * weight, torch.ones(2, 3).double()])) == 0
    one = chain_of([torch.tensor([[2.0]]), torch.tensor([[-3.0]])])
    assert 6 <= float(method(one)) <= 6 * (1 + 1e-7)
    dead = chain_of([weight * torch.tensor([[1.0], [0.0], [0.0]]), torch.ones(2, 3).double()])
    truth = float(weight[0].norm()) * math.sqrt(2)
    assert truth <= float(method(dead)) <= truth * (1 + 2e-6 if method == ECLipsE().bound else 2)
    constant = chain_of([weight, weight.T.contiguous()], nn.PReLU(init=1.0))
    linear = sigma_max(weight.T @ weight)
    assert linear <= float(method(constant)) <= linear * (1 + 1e-4)
    deep = chain_of([torch.eye(3).double() / 3] * 100)
    assert 3.0**-100 <= float(method(deep)) <= 3.0**-100 * (1 + 1e-5)


def test_networks_that_are_not_covered() -> None:
    dense = Dense(torch.eye(3))
    skip = Chain((Block(dense, Elementwise.of(nn.ReLU()), dense, identity((3,))),), dense)
    for method in (ECLipsE(), ECLipsE(fast=True)):
        with pytest.raises(NotApplicableError, match="skip"):
            method.bound(skip)
    wide = chain_of([torch.ones(2000, 1500), torch.ones(600, 2000)])
    with pytest.raises(NotApplicableError, match="fast=True"):
        ECLipsE().bound(wide)


def test_a_layer_of_slopes_behind_sorting() -> None:
    weights = random_weights(4, 6, 5, 2)
    for first, second in (("relu", "sorting"), ("sorting", "relu")):
        kinds = {
            "relu": Elementwise.of(nn.ReLU()),
            "sorting": sorting_chain(random_weights(4, 4, 2)).blocks[0].nonlinearity,
        }
        blocks = (Block(Dense(weights[0]), kinds[first]), Block(Dense(weights[1]), kinds[second]))
        if second == "sorting":
            blocks = (blocks[0], Block(Dense(random_weights(6, 4)[0]), kinds[second]))
        chain = Chain(blocks, Dense(torch.randn(2, blocks[1].inner.rows).double()))
        found = proved(matrices(chain), forward(matrices(chain), fast)[0])
        assert sampled(chain) <= float(ECLipsE().bound(chain)) <= float(found)
