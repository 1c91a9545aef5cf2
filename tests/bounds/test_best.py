"""The best bound in a given time."""

import itertools

import pytest
import torch
from torch import nn

import onelip
from onelip.activations import MaxMin
from onelip.bounds import best as found_best
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.reading import read
from tests.bounds.networks import PUBLISHED, published_model


def _network(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    parts: list[nn.Module] = []
    for columns, rows in itertools.pairwise(widths):
        parts += [nn.Linear(columns, rows), activation()]
    return nn.Sequential(*parts[:-1]).double().eval()


def test_the_smallest_wins_and_says_so() -> None:
    found = found_best(published_model(2, 20), (4,), seconds=10)
    by_name = {tried.method: tried.bound for tried in found.tried}
    published = PUBLISHED[2, 20]
    assert by_name["naive"] == pytest.approx(published["naive"], rel=1e-4)
    assert by_name["LipLT"] == pytest.approx(published["liplt"], rel=1e-4)
    assert by_name["ECLipsE"] == pytest.approx(published["eclipse"], rel=1e-4)
    assert by_name["LipSDP-Neuron"] == pytest.approx(published["neuron"], rel=1e-4)
    assert float(found.bound) == min(by_name.values())
    assert by_name[found.method] == float(found.bound)
    assert 0 < found.lower.bound <= float(found.bound)


@pytest.mark.parametrize("seed", range(5))
def test_more_time_never_gives_more(seed: int) -> None:
    torch.manual_seed(seed)
    model = _network(5, 12, 12, 3)
    bounds = [float(found_best(model, (5,), seconds=s).bound) for s in (1e-6, 1e-3, 0.2, 5.0)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1]


def test_the_product_is_always_there_and_the_others_say_why_they_are_not() -> None:
    found = found_best(_network(4, 8, 8, 2), (4,), seconds=1e-9)
    assert found.method == "naive"
    assert all("--seconds" in tried.note for tried in found.tried[1:])


def test_methods_that_do_not_apply_say_so() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    ).eval()
    found = found_best(model, (1, 8, 8), seconds=5)
    notes = {tried.method: tried.note for tried in found.tried if tried.bound is None}
    assert "LipSDP-Neuron" in notes
    assert all(len(note) > 20 for note in notes.values())
    assert found.lower.bound <= float(found.bound) <= float(found.tried[0].bound)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU, MaxMin])
def test_no_method_is_below_the_lower_estimate(activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    for _ in range(4):
        model = _network(3, 6, 4, 2, activation=activation)
        found = found_best(model, (3,), seconds=0.5)
        for tried in found.tried:
            assert tried.bound is None or found.lower.bound <= tried.bound


def test_a_chain_knows_its_shape() -> None:
    model = _network(3, 6, 2)
    chain = read(model, (3,))
    assert float(found_best(chain, seconds=1).tried[0].bound) == pytest.approx(
        float(found_best(model, (3,), seconds=1).tried[0].bound)
    )


def test_errors() -> None:
    model = _network(3, 6, 2)
    with pytest.raises(UsageError, match="shape of one input"):
        found_best(model)
    with pytest.raises(UsageError, match="seconds must be positive"):
        found_best(model, (3,), seconds=0)
    with pytest.raises(UnboundedModuleError, match="Softmax"):
        found_best(nn.Sequential(model, nn.Softmax(1)).eval(), (3,))
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteError):
        found_best(model, (3,), seconds=1)


def test_it_is_at_hand_under_its_name() -> None:
    assert onelip.bounds.best is found_best
