"""Export: plain modules, fixed weights, the model left alone."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import onelip
from onelip import layers
from onelip.errors import UnboundedModuleError
from onelip.layers import GradientStep
from tests.cases import LAYERS


def network() -> nn.Sequential:
    return nn.Sequential(
        layers.Normalize([0.5], [0.25]),
        nn.Conv2d(1, 4, 2, stride=2),
        layers.MaxMin(),
        nn.Sequential(layers.ConvexPotentialConv2d(4, 6, image_size=4)),
        nn.Flatten(),
        layers.ConvexPotentialLinear(64, 32),
        layers.UnitNormLinear(64, 3),
    )


def test_a_network_in_plain_modules():
    model = network().eval()
    exported = onelip.export(model)
    kinds = [type(m) for m in exported]
    assert kinds[3] is nn.Sequential
    assert type(exported[3][0]) is kinds[5] is GradientStep
    assert kinds[6] is nn.Linear
    assert not any(m.training for m in exported.modules())
    assert not any(p.requires_grad for p in exported.parameters())
    assert float(onelip.lipschitz_bound(exported)) <= float(onelip.lipschitz_bound(model))


def test_same_outputs_where_the_estimate_is_good():
    model = network().eval()
    for layer in (model[3][0], model[5]):
        layer.power_step(500)
    x = torch.rand(5, 1, 8, 8)
    assert torch.allclose(onelip.export(model)(x), model(x), atol=1e-5)


def test_a_cold_estimate_is_repaired():
    layer = layers.ConvexPotentialLinear(30, 30).eval()
    layer.weight.data = torch.randn(30, 30)
    assert float(onelip.lipschitz_bound(layer)) > 1.05
    exported = onelip.export(layer)
    assert float(onelip.lipschitz_bound(exported)) == 1
    assert exported.inner.weight.norm() ** 2 < layer.step() * layer.weight.norm() ** 2


def test_the_model_is_left_alone():
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    exported = onelip.export(model)
    for p in exported.parameters():
        p.fill_(7.0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "wrap",
    [parametrizations.orthogonal, parametrizations.weight_norm, parametrizations.spectral_norm],
)
def test_parametrizations_become_weights(wrap):
    layer = wrap(nn.Linear(4, 4)).eval()
    model = nn.Sequential(layer, nn.ReLU())
    x = torch.randn(3, 4)
    expected = model(x)
    exported = onelip.export(model)
    assert type(exported[0]) is nn.Linear
    assert not any(parametrize.is_parametrized(m) for m in exported.modules())
    assert torch.equal(exported(x), expected)
    assert set(exported.state_dict()) == {"0.weight", "0.bias"}
    # the original still works, trains, and can be exported again
    assert parametrize.is_parametrized(layer)
    assert torch.equal(model(x), expected)
    model(x).sum().backward()
    assert torch.equal(onelip.export(model)(x), expected)


def test_a_module_that_occurs_twice_stays_twice():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared).eval()
    exported = onelip.export(model)
    x = torch.randn(50, 3)
    assert len(exported) == 4
    assert torch.equal(exported(x), model(x))


def test_names_are_kept():
    model = nn.Sequential()
    model.add_module("stem", layers.MaxMin())
    model.add_module("head", layers.UnitNormLinear(4, 2))
    assert [name for name, _ in onelip.export(model).named_children()] == ["stem", "head"]


def test_a_hook_would_be_lost_and_is_refused():
    model = network()
    model[3].register_forward_hook(lambda m, i, o: 2 * o)
    with pytest.raises(UnboundedModuleError, match="Sequential has a forward hook"):
        onelip.export(model)


def test_exporting_again_changes_nothing():
    once = onelip.export(network())
    twice = onelip.export(once)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(once(x), twice(x))


def test_exported_modules_travel():
    exported = onelip.export(network())
    x = torch.rand(2, 1, 8, 8)
    loaded = onelip.export(network())
    loaded.load_state_dict(exported.state_dict())
    assert torch.equal(loaded(x), exported(x))
    assert torch.equal(pickle.loads(pickle.dumps(exported))(x), exported(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtypes_are_kept(dtype):
    exported = onelip.export(network().to(dtype))
    assert {p.dtype for p in exported.parameters()} == {dtype}
    assert exported(torch.rand(1, 1, 8, 8, dtype=dtype)).dtype == dtype


def test_a_single_layer_and_a_plain_module():
    assert type(onelip.export(layers.UnitNormLinear(3, 2))) is nn.Linear
    assert type(onelip.export(nn.Linear(3, 2))) is nn.Linear
    assert type(onelip.export(layers.MaxMin())) is layers.MaxMin


def test_a_layer_of_ones_own_does_not_inherit_an_export():
    class Doubled(layers.ConvexPotentialLinear):
        def forward(self, x):
            return 2 * super().forward(x)

        def lipschitz_bound(self):
            return 2 * super().lipschitz_bound()

    with pytest.raises(UnboundedModuleError, match="Doubled inherits export"):
        onelip.export(Doubled(4, 4))


def test_a_container_layer_must_write_its_export():
    class Twice(onelip.LipschitzModule):
        def __init__(self):
            super().__init__()
            self.part = layers.ConvexPotentialLinear(4, 4)

        def forward(self, x):
            return self.part(self.part(x))

        def lipschitz_bound(self):
            return self.part.lipschitz_bound() ** 2

    with pytest.raises(UnboundedModuleError, match="Twice holds layers"):
        onelip.export(Twice())


def test_exporting_draws_no_random_numbers(each):
    for case in each(LAYERS):
        layer = case.build().eval()
        torch.manual_seed(0)
        onelip.lipschitz_bound(onelip.export(layer))
        after = torch.rand(1)
        torch.manual_seed(0)
        assert torch.equal(after, torch.rand(1))
