"""Multipliers by gradients: as good as those of the interior-point method, and in time."""

import pytest
import torch
from torch import nn

from onelip.bounds import Best, ECLipsE, LipSDP
from onelip.bounds.method import Shared
from onelip.bounds.semidefinite import descent
from onelip.bounds.semidefinite.closed_forms import in_closed_form
from onelip.bounds.semidefinite.descent import descended
from onelip.bounds.semidefinite.forms import SlopeMultipliers
from onelip.bounds.semidefinite.matrices import matrices
from onelip.bounds.semidefinite.multipliers import proved
from tests.networks import chain_of, published_network, random_weights, sorting_chain
from tests.oracles import sampled

ACTIVATIONS = (nn.ReLU(), nn.GELU(), nn.LeakyReLU(-0.5), nn.LeakyReLU(0.3), nn.SELU())


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_close_to_the_optimum(activation: nn.Module) -> None:
    for sizes in ((5, 9, 1), (3, 6, 5, 4), (4, 5, 5, 5, 2)):
        chain = chain_of(random_weights(*sizes), activation)
        network = matrices(chain)
        found = descended(network, *in_closed_form(network))
        bound, least = (
            float(proved(network, found.multipliers, found.level)),
            float(LipSDP().bound(chain)),
        )
        assert least * (1 - 1e-5) <= bound <= least * (1 + 5e-3)
        assert sampled(chain) <= bound
        assert bound == pytest.approx(float(network.unscaled(found.level.sqrt())), rel=1e-6)
        assert found.seconds == 0
        assert found.gap < 0.01


def test_units_without_weight_and_layers_without_effect() -> None:
    first, second, third = random_weights(4, 5, 5, 2)
    first[0], second[:, 1], third[:, 2] = 0, 0, 0
    chain = chain_of([first, second, third])
    network = matrices(chain)
    found = descended(network, *in_closed_form(network))
    bound = float(proved(network, found.multipliers, found.level))
    assert sampled(chain) <= bound <= float(LipSDP().bound(chain)) * 1.01


def test_it_stops_in_time_with_what_it_has() -> None:
    network = matrices(published_network(20, 40))
    start, level = in_closed_form(network)
    found = descended(network, start, level, seconds=0.4)
    assert found.level < level
    assert found.seconds > 0
    none = descended(network, start, level, seconds=0)
    assert torch.equal(none.level, level)
    assert none.gap == 1


def test_multipliers_that_do_not_hold_stay_what_they_are() -> None:
    network = matrices(chain_of(random_weights(3, 4, 2)))
    start = [SlopeMultipliers(torch.full((4,), 1e6, dtype=torch.float64))]
    found = descended(network, start, torch.ones((), dtype=torch.float64))
    assert found.multipliers is start
    assert found.gap == 1


def test_a_gradient_that_is_wrong_costs_tightness_only(monkeypatch) -> None:
    weights = random_weights(3, 6, 5, 2)
    network = matrices(chain_of(weights))
    monkeypatch.setattr(descent, "_direction", lambda g, _: -g.flip(0) * torch.rand(len(g)))
    found = descended(network, *in_closed_form(network))
    assert sampled(chain_of(weights)) <= float(proved(network, found.multipliers, found.level))


def test_lipsdp_takes_gradients_where_the_matrix_is_large(monkeypatch) -> None:
    chain = published_network(20, 60)
    fast = float(ECLipsE(fast=True).bound(chain))
    outcome = LipSDP(seconds=0.8).outcome(Shared(chain))
    assert float(outcome.bound) < 0.8 * fast
    assert "more" in outcome.more
    found = Best(seconds=4).report(chain)
    assert found.method == "lipsdp"
    monkeypatch.setattr("onelip.bounds._lipsdp.LARGEST", 10)
    small = chain_of(random_weights(3, 6, 6, 2))
    by_gradients = float(LipSDP().bound(small))
    monkeypatch.undo()
    assert by_gradients == pytest.approx(float(LipSDP().bound(small)), rel=5e-3)


def test_sorting_has_the_interior_point_method_only() -> None:
    chain = sorting_chain(random_weights(4, 6, 4, 2))
    assert float(LipSDP(seconds=60).bound(chain)) == pytest.approx(
        float(LipSDP().bound(chain)), rel=1e-6
    )
