"""Hooks, patches and parametrizations that move, which no rule speaks for."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import onelip
from onelip import lipschitz_bound
from onelip.errors import UnboundedModuleError
from tests.oracles import sigma_max


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_parametrised_module_keeps_its_rule():
    layer = parametrizations.orthogonal(nn.Linear(4, 4)).eval()
    assert float(lipschitz_bound(layer)) == pytest.approx(1, abs=1e-5)
    layer.parametrizations.weight.original.data.normal_()
    assert float(lipschitz_bound(layer)) >= sigma_max(layer.weight)
    subclass = parametrizations.orthogonal(Doubled(4, 4))
    with pytest.raises(UnboundedModuleError, match="Doubled"):
        lipschitz_bound(subclass)


def test_spectral_norm_is_measured_and_not_believed():
    """torch's parametrization divides by an estimate."""
    layer = parametrizations.spectral_norm(nn.Linear(50, 50), n_power_iterations=1).eval()
    layer.parametrizations.weight.original.data.normal_()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    bound = float(lipschitz_bound(layer))
    assert bound >= sigma_max(layer.weight)
    assert bound > 1.1
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.register_forward_hook(lambda m, i, o: 10 * o),
        lambda m: m.register_forward_pre_hook(lambda m, i: (10 * i[0],)),
        lambda m: setattr(m, "forward", lambda x: 10 * x),
    ],
    ids=["hook", "pre-hook", "patched"],
)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_hidden_behaviour_is_refused_at_any_depth(spoil, depth):
    inner = nn.ReLU()
    spoil(inner)
    module = inner
    for _ in range(depth):
        module = nn.Sequential(nn.Flatten(), module)
    with pytest.raises(UnboundedModuleError, match=r"ReLU has a (forward hook|patched method), "):
        lipschitz_bound(module)


def test_hooks_inside_a_layer_are_refused():
    layer = onelip.layers.ConvexPotentialLinear(3, 3)
    layer.activation.register_forward_hook(lambda m, i, o: 10 * o)
    with pytest.raises(UnboundedModuleError, match=r"handle\.remove"):
        lipschitz_bound(layer)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_of_old_is_a_hook():
    with pytest.raises(UnboundedModuleError, match=r"Linear has the forward hook .*WeightNorm"):
        lipschitz_bound(weight_norm(nn.Linear(2, 2)))


def test_global_hooks_and_patched_methods_are_refused():
    conv = nn.Conv2d(1, 1, 1)
    conv._conv_forward = lambda x, weight, bias: 5 * x
    with pytest.raises(UnboundedModuleError, match="patched method"):
        lipschitz_bound(conv)
    handle = nn.modules.module.register_module_forward_hook(lambda module, x, y: 3 * y)
    try:
        with pytest.raises(UnboundedModuleError, match="for all modules"):
            lipschitz_bound(nn.ReLU())
    finally:
        handle.remove()


def test_a_query_does_not_move_the_power_iteration_of_torch():
    layer = parametrizations.spectral_norm(nn.Linear(5, 5)).train()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with pytest.raises(UnboundedModuleError, match="parametrized Linear"):
        lipschitz_bound(layer)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
