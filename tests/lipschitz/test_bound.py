"""The entry point: what it knows, multiplies and refuses."""

import math

import pytest
import torch
from torch import nn

from onelip import lipschitz_bound
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.lipschitz import RECORDS, LipschitzModule, rule
from tests.oracles import sigma_max


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Reversed(nn.Sequential):
    def forward(self, x):
        for part in reversed(self):
            x = part(x)
        return x


UNKNOWN = [
    Doubled(2, 2),
    Reversed(nn.ReLU()),
    nn.Softmax(1),
    nn.LayerNorm(3),
    nn.Bilinear(2, 2, 2),
    nn.Hardshrink(),
    nn.ReflectionPad2d(1),
    nn.Upsample(scale_factor=2),
    nn.ModuleList(),
]


@pytest.mark.parametrize("module", UNKNOWN, ids=lambda m: type(m).__name__)
def test_what_is_not_known_raises_and_is_named(module):
    with pytest.raises(UnboundedModuleError, match=rf"{type(module).__name__}; derive it"):
        lipschitz_bound(module)
    with pytest.raises(UnboundedModuleError, match=type(module).__name__):
        lipschitz_bound(nn.Sequential(nn.ReLU(), nn.Sequential(module)))


def test_a_sequence_multiplies():
    parts = [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)]
    expected = math.prod(sigma_max(parts[i].weight) for i in (0, 2))
    assert float(lipschitz_bound(nn.Sequential(*parts))) == pytest.approx(expected, rel=1e-7)
    assert float(lipschitz_bound(nn.Sequential(*parts))) >= expected * (1 - 1e-15)
    assert float(lipschitz_bound(nn.Sequential())) == 1


def test_a_module_that_occurs_twice_counts_twice():
    layer = nn.Linear(2, 2)
    layer.weight.data = 3 * torch.eye(2)
    assert float(lipschitz_bound(nn.Sequential(layer, layer))) == pytest.approx(9, rel=1e-8)


def test_one_lipschitz_parts_make_exactly_one():
    assert float(lipschitz_bound(nn.Sequential(*[nn.ReLU() for _ in range(50)]))) == 1


def test_a_bound_that_overflows_is_no_bound():
    layers = [nn.Linear(1, 1).double() for _ in range(4)]
    for layer in layers:
        layer.weight.data.fill_(1e200)
    with pytest.raises(NonFiniteError, match="the bound of Sequential is inf"):
        lipschitz_bound(nn.Sequential(*layers))


def test_rules_can_be_added():
    class Halved(nn.Module):
        def forward(self, x):
            return x / 2

    rule(Halved)(lambda module: 0.5)
    try:
        assert float(lipschitz_bound(Halved())) == 0.5
    finally:
        del RECORDS[Halved]


def test_a_method_that_answers_nonsense():
    class Broken(LipschitzModule):
        def lipschitz_bound(self):
            return torch.tensor(math.nan)

    with pytest.raises(NonFiniteError, match="the bound of Broken is nan"):
        lipschitz_bound(Broken())


def test_the_result_is_plain():
    bound = lipschitz_bound(nn.Linear(3, 2))
    assert bound.dtype == torch.float64
    assert bound.shape == ()
    assert not bound.requires_grad


def test_windows_that_follow_from_the_image_need_its_size():
    with pytest.raises(UnboundedModuleError, match="AdaptiveAvgPool2d takes its windows from"):
        lipschitz_bound(nn.AdaptiveAvgPool2d(2))
    for size in (1, (1, 1)):
        assert float(lipschitz_bound(nn.AdaptiveAvgPool2d(size))) == 1
