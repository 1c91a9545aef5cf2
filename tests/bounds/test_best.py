"""The best bound in a given time."""

import itertools
import math
import random
import time

import pytest
import torch
from torch import nn

import onelip
from onelip.bounds import Best, ECLipsE, LipLT, LipSDP, Product
from onelip.bounds.method import Shared
from onelip.bounds.semidefinite.forms import SlopeMultipliers
from onelip.bounds.semidefinite.matrices import matrices
from onelip.deadline import Deadline, OutOfTimeError
from onelip.errors import NonFiniteError, NotApplicableError, UnboundedModuleError, UsageError
from onelip.estimates import lower_estimate
from onelip.layers import (
    AOLConv2d,
    BCOPConv2d,
    ConvexPotentialConv2d,
    InvertibleDownsampling,
    MaxMin,
    ScaledAvgPool2d,
    ScaledMaxPool2d,
)
from onelip.reading import read
from tests.networks import PUBLISHED, dense_model, published_model, published_network


def test_the_smallest_wins_and_says_so() -> None:
    found = Best(10).report(published_model(2, 20), (4,))
    by_name = {tried.method: tried.bound for tried in found.tried}
    published = PUBLISHED[2, 20]
    assert by_name["product"] == pytest.approx(published["naive"], rel=1e-4)
    assert by_name["liplt"] == pytest.approx(published["liplt"], rel=1e-4)
    assert by_name["eclipse"] == pytest.approx(published["eclipse"], rel=1e-4)
    assert by_name["lipsdp"] == pytest.approx(published["neuron"], rel=1e-4)
    assert float(found.bound) == min(by_name.values())
    assert by_name[found.method] == float(found.bound)
    assert 0 < found.lower.bound <= float(found.bound)


@pytest.mark.parametrize("seed", range(5))
def test_more_time_never_gives_more(seed: int) -> None:
    torch.manual_seed(seed)
    model = dense_model(5, 12, 12, 3)
    bounds = [float(Best(s).report(model, (5,)).bound) for s in (1e-6, 1e-3, 0.2, 5.0)]
    # Searches that end by themselves agree up to their own rounding.
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(bounds))
    assert bounds[0] > bounds[-1]


def test_the_product_is_always_there_and_the_others_say_why_they_are_not() -> None:
    found = Best(1e-9).report(dense_model(4, 8, 8, 2), (4,))
    assert found.method == "product"
    assert [tried.method for tried in found.tried if tried.bound] == ["product"]
    assert all("give more --seconds" in tried.note for tried in found.tried[1:])


def test_what_was_stopped_is_kept_and_says_what_more_time_would_give() -> None:
    """75 layers: LipLT alone used to take three times the time of all."""
    found = Best(3).report(published_network(75, 40))
    assert time.monotonic() < 10
    tried = {one.method: one for one in found.tried}
    assert list(tried)[:4] == ["product", "eclipse-fast", "eclipse", "lipsdp"]
    closed, descended = tried["eclipse-fast"].bound, tried["lipsdp"]
    assert found.method in ("eclipse-fast", "lipsdp")
    assert closed is not None
    assert closed < 2e-8 * float(found.tried[0].bound or 0)
    assert descended.bound is None or (descended.bound <= closed * (1 + 1e-6) and descended.more)
    assert "give more --seconds" in tried["lipsdp-layer"].note


def test_methods_hand_on_their_multipliers() -> None:
    """LipSDP starts from what ECLipsE found."""
    chain = published_network(5, 20)
    shared = Shared(chain)
    levels = []
    for method in (ECLipsE(fast=True), ECLipsE(), LipSDP()):
        method.outcome(shared)
        levels.append(float(shared.level))
    assert levels == sorted(levels, reverse=True)
    assert levels[2] < 0.6 * levels[1] < 0.6 * levels[0]
    # Nothing that is handed on is trusted.
    shared.multipliers = [SlopeMultipliers(torch.full((20,), torch.nan).double())] * 4
    assert ECLipsE(seconds=0).outcome(shared).bound == matrices(chain).product


def test_methods_that_do_not_apply_say_so() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    ).eval()
    found = Best(5).report(model, (1, 8, 8))
    notes = {tried.method: tried.note for tried in found.tried if tried.bound is None}
    assert "lipsdp" in notes
    assert all(len(note) > 20 for note in notes.values())
    assert found.lower.bound <= float(found.bound) <= float(found.tried[0].bound)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU, MaxMin])
def test_no_method_is_below_the_lower_estimate(activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    for _ in range(4):
        model = dense_model(3, 6, 4, 2, activation=activation)
        found = Best(0.5).report(model, (3,))
        for tried in found.tried:
            assert tried.bound is None or found.lower.bound <= tried.bound


def test_a_chain_knows_its_shape() -> None:
    model = dense_model(3, 6, 2)
    chain = read(model, (3,))
    assert float(Best(1).report(chain).tried[0].bound) == pytest.approx(
        float(Best(1).report(model, (3,)).tried[0].bound)
    )


def test_errors() -> None:
    model = dense_model(3, 6, 2)
    with pytest.raises(UsageError, match="shape of one input"):
        Best().report(model)
    with pytest.raises(UsageError, match="seconds must be positive"):
        Best(0).report(model, (3,))
    with pytest.raises(UnboundedModuleError, match="hardshrink"):
        Best().report(nn.Sequential(model, nn.Hardshrink()).eval(), (3,))
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteError):
        Best(1).report(model, (3,))


# Deadlines


class _Counted(nn.Module):
    """A network that counts how many samples went through it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.network(x)


def test_the_lower_estimate_stops() -> None:
    """It made a whole round of 512 points: 94 s for one second on a 48 x 48 image."""
    model = _Counted(dense_model(20, 30, 30, 20))
    found = lower_estimate(model, (20,), seconds=1e-9)
    assert 0 < float(found) <= float(onelip.lipschitz_bound(model.network))
    assert model.calls <= 8
    whole = _Counted(model.network)
    assert float(lower_estimate(whole, (20,), seconds=0)) >= float(found)
    assert whole.calls > 100


def test_products_stop_and_what_was_proved_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pieces of work fit, a bound comes out, and more of them are never worse."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten()
    )
    chain = read(model.double().eval(), (2, 9, 9))
    monkeypatch.setattr(
        "onelip.bounds.products.costs.WRITTEN_OUT", 50
    )  # through the bottleneck, too
    whole = {kind: float(kind().bound(chain)) for kind in (Product, LipLT)}
    for kind in (Product, LipLT):
        bounds = []
        for pieces in (0, 1, 2, 5, 20, 50, 10**6):
            left = iter([math.inf] * pieces)
            monkeypatch.setattr(Deadline, "left", property(lambda _, left=left: next(left, 0.0)))
            try:
                bounds.append(float(kind(seconds=1).bound(chain)))
            except NotApplicableError:  # before anything was proved
                assert kind is LipLT
                assert pieces < 20
        assert bounds[-1] == pytest.approx(whole[kind], rel=1e-12)
        assert all(a >= b * (1 - 1e-9) for a, b in itertools.pairwise(bounds))
    assert bounds[0] > bounds[-1] * 1.01  # LipLT's


def test_a_factorisation_that_would_not_end_in_time_does_not_begin() -> None:
    Deadline(10).allow(1e9)
    with pytest.raises(OutOfTimeError):
        Deadline(10).allow(1e13)
    Deadline().allow(1e30)


# Never above what the modules prove of themselves


def _pools(draw: random.Random) -> nn.Module:
    return draw.choice(
        [
            nn.AvgPool2d(2),
            nn.AvgPool2d(3, 1, 1),
            ScaledAvgPool2d(2),
            ScaledMaxPool2d(2),
            InvertibleDownsampling(2),
            nn.Identity(),
        ]
    )


def _fuzzed(seed: int) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """Convolutions of several kinds, activations and pooling, which may come last."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    size, channels = draw.choice([4, 8]), 2
    shape, parts = (channels, size, size), []
    for _ in range(draw.randint(1, 2)):
        new: list[nn.Module] = [
            nn.Conv2d(channels, 4, 3, padding=1),
            ConvexPotentialConv2d(channels, 3, image_size=size),
            AOLConv2d(channels, 4, 3, padding_mode="zeros"),
            BCOPConv2d(channels, 4, 3),
        ]
        parts += [draw.choice(new), draw.choice([nn.ReLU(), MaxMin(), nn.Identity()]), _pools(draw)]
        channels, size = nn.Sequential(*parts)(torch.zeros(2, *shape)).shape[1:3]
        if size < 4:
            break
    if draw.random() < 0.5:
        parts += [nn.Flatten(), nn.Linear(channels * size * size, 3)]
    return nn.Sequential(*parts).double().eval(), shape


@pytest.mark.parametrize("seed", range(25))
def test_never_above_the_modules_own_bound_nor_any_method(seed: int) -> None:
    """A pool at the end was read as k times its norm: 1.64 for a network that proves 1."""
    model, shape = _fuzzed(seed)
    chain, own = read(model, shape), float(onelip.lipschitz_bound(model))
    found = Best(0.3).report(model, shape)
    bounds = [tried.bound for tried in found.tried if tried.bound is not None]
    assert float(found.bound) == min(bounds)
    layers = next(tried.bound for tried in found.tried if tried.method == "layer by layer")
    assert float(found.bound) <= own * (1 + 1e-9 * (layers is None))  # it may run out of time
    assert found.lower.bound <= float(found.bound)
    assert float(Product().bound(chain)) <= own * (1 + 1e-9)
    assert float(LipLT().bound(chain)) <= float(Product().bound(chain)) * (1 + 1e-9)


def test_pools_are_read_with_their_norm() -> None:
    for pool, size, norm in (
        (nn.AvgPool2d(2), 4, 0.5),
        (nn.AdaptiveAvgPool2d(1), 8, 0.125),
        (ScaledAvgPool2d(2), 4, 1.0),
        (nn.AvgPool2d(3, 1, 1), 6, 1.0),
    ):
        chain = read(nn.Sequential(pool), (3, size, size))
        assert float(Product().bound(chain)) == pytest.approx(norm, rel=1e-7)


def test_exported_programs_are_read() -> None:
    model = dense_model(3, 6, 2)
    program = torch.export.export(model, (torch.zeros(1, 3, dtype=torch.float64),))
    found = Best(1).report(program)
    assert float(found.bound) == pytest.approx(float(Best(1).report(model, (3,)).bound))
