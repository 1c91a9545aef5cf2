"""Multipliers in closed form: never worse than the published one, and as good as they seem."""

import math

import pytest
import torch
from torch import nn

from onelip.bounds.semidefinite import closed_forms
from onelip.bounds.semidefinite.closed_forms import balanced, in_closed_form
from onelip.bounds.semidefinite.layerwise import fast, forward, strictly, towards
from onelip.bounds.semidefinite.matrices import matrices
from onelip.bounds.semidefinite.multipliers import proved
from tests.networks import (
    PUBLISHED,
    SHAPES,
    chain_of,
    published_network,
    random_weights,
    sorting_chain,
)
from tests.oracles import exact_relu, sampled

ACTIVATIONS = (nn.ReLU(), nn.GELU(), nn.Tanh(), nn.LeakyReLU(0.3), nn.LeakyReLU(-1.0), nn.SELU())


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_never_worse_than_published_and_proved_as_they_seem(activation) -> None:
    for sizes in ((3, 5, 2), (4, 6, 5, 3), (2, 9, 9, 9, 9, 1), (6, 2, 7, 3, 6)):
        chain = chain_of(random_weights(*sizes), activation)
        network = matrices(chain)
        found, level = in_closed_form(network)
        assert level <= forward(network, fast)[1] * (1 + 1e-9)
        bound = proved(network, found, level)
        assert sampled(chain) <= float(bound)
        seeming = network.unscaled(level.sqrt()).minimum(network.product)
        assert float(bound) == pytest.approx(float(seeming), rel=1e-6)


@pytest.mark.parametrize("sizes", SHAPES)
def test_above_the_exact_constant(sizes) -> None:
    for _ in range(30):
        weights = random_weights(*sizes)
        network = matrices(chain_of(weights))
        assert exact_relu(weights) <= float(proved(network, *in_closed_form(network)))


def test_the_deeper_the_more_is_gained() -> None:
    gains = []
    for key in ((2, 20), (5, 20), (20, 20)):
        bound = proved(network := matrices(published_network(*key)), *in_closed_form(network))
        gains.append(PUBLISHED[key]["eclipse_fast"] / float(bound))
    assert gains == sorted(gains)
    assert gains[0] > 1.2
    assert gains[2] > 5


def test_units_that_nothing_reaches_or_that_reach_nothing() -> None:
    first, second, third = random_weights(4, 5, 5, 2)
    first[0], second[:, 1], third[:, 2] = 0, 0, 0
    chain = chain_of([first, second, third])
    network = matrices(chain)
    bound = proved(network, *in_closed_form(network))
    assert sampled(chain) <= float(bound) < 0.9 * float(network.product)


def test_one_rule_that_fails_leaves_the_others(monkeypatch) -> None:
    network = matrices(chain_of(random_weights(4, 6, 6, 6, 6, 3)))
    level = forward(network, fast)[1]
    monkeypatch.setattr(closed_forms, "RULES", (closed_forms.RULES[0], (50.0, 1.0)))
    found = in_closed_form(network)[1]
    assert float(found) == pytest.approx(float(level), rel=1e-9)
    monkeypatch.setattr(closed_forms, "RULES", ((50.0, 0.0), (50.0, 1.0)))
    found, level = in_closed_form(network)
    assert level == math.inf
    assert proved(network, found, level) == network.product


def test_one_layer_at_a_time_is_the_same_rule() -> None:
    network = matrices(chain_of(random_weights(4, 6, 6, 6, 6, 3)))
    level = forward(network, balanced)[1]
    assert float(level) == pytest.approx(float(in_closed_form(network)[1]), rel=1e-9)


def test_sorting_has_its_own() -> None:
    network = matrices(sorting_chain(random_weights(4, 6, 4, 2)))
    assert torch.equal(in_closed_form(network)[1], forward(network, fast)[1])
    assert torch.equal(forward(network, balanced)[1], forward(network, fast)[1])


def test_a_level_that_is_wrong_is_made_up_for() -> None:
    weights = random_weights(4, 3, 3)
    network, truth = matrices(chain_of(weights)), exact_relu(weights)
    found, level = in_closed_form(network)
    good = float(proved(network, found))
    for by in (1e-9, 0.5, 0.99, 1.5, 1e9, math.nan, math.inf, 0.0, -1.0):
        bound = float(proved(network, found, by * level))
        assert truth <= bound <= good * (1 + 1e-6) or by > 1
        assert bound <= float(network.product)


def test_searches_may_start_close_to_known_multipliers() -> None:
    network = matrices(chain_of(random_weights(4, 6, 6, 3)))
    start, level = strictly(network)
    found, least = in_closed_form(network)
    mixed, between = towards(start, level, found, least)
    assert least < between < level
    assert float(proved(network, mixed, between)) == pytest.approx(
        float(network.unscaled(between.sqrt())), rel=1e-6
    )
    assert towards(start, level, found, 2 * level) == (start, level)
