"""The entry point: what it knows, multiplies and refuses."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import onelip
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
    nn.ConvTranspose1d(1, 1, 3),
    nn.Hardshrink(),
    nn.Conv3d(1, 1, 3),
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


@pytest.mark.parametrize(
    "kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout]
)
def test_dropout(kind):
    assert float(lipschitz_bound(kind().eval())) == 1
    with pytest.raises(UnboundedModuleError, match=rf"{kind.__name__} is random in training"):
        lipschitz_bound(kind())


def test_batch_norm():
    layer = nn.BatchNorm2d(2)
    with pytest.raises(UnboundedModuleError, match="divides by batch statistics"):
        lipschitz_bound(layer)
    with pytest.raises(UnboundedModuleError, match="track_running_stats"):
        lipschitz_bound(nn.BatchNorm2d(2, track_running_stats=False).eval())
    layer.eval()
    layer.running_var.copy_(torch.tensor([4.0, 0.25]))
    layer.weight.data = torch.tensor([8.0, -3.0])
    assert float(lipschitz_bound(layer)) == pytest.approx(6, rel=1e-4)
    layer.running_var.fill_(-1.0)
    with pytest.raises(NonFiniteError):
        lipschitz_bound(layer)
    layer.running_var.fill_(math.nan)
    with pytest.raises(NonFiniteError):
        lipschitz_bound(layer)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.AvgPool2d(3, ceil_mode=True), "divides by less at the border"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), "count_include_pad=True"),
        (nn.MaxPool2d(2, return_indices=True), "return_indices=False"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
        (nn.CELU(-1.0), "steep without limit"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_settings_without_a_bound(module, message):
    with pytest.raises(UnboundedModuleError, match=message):
        lipschitz_bound(module)


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


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_weights(value):
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        lipschitz_bound(nn.Sequential(layer))


def test_a_bound_that_overflows_is_no_bound():
    layers = [nn.Linear(1, 1).double() for _ in range(4)]
    for layer in layers:
        layer.weight.data.fill_(1e200)
    with pytest.raises(NonFiniteError, match="the bound of Sequential is inf"):
        lipschitz_bound(nn.Sequential(*layers))


def test_the_bias_does_not_matter():
    layer = nn.Linear(2, 2)
    before = lipschitz_bound(layer)
    layer.bias.data.fill_(1e30)
    assert torch.equal(before, lipschitz_bound(layer))


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


def test_the_contract_is_abstract():
    with pytest.raises(TypeError, match="lipschitz_bound"):
        LipschitzModule()


def test_the_result_is_plain():
    bound = lipschitz_bound(nn.Linear(3, 2))
    assert bound.dtype == torch.float64
    assert bound.shape == ()
    assert not bound.requires_grad


def test_a_forward_written_later_does_not_inherit_a_proof():
    class Doubled(onelip.layers.MaxMin):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(UnboundedModuleError, match="inherits lipschitz_bound from MaxMin"):
        lipschitz_bound(Doubled())


@pytest.mark.parametrize("name", ["inner", "adjoint", "step", "norm_bound", "forward"])
def test_a_layer_is_final(name):
    kind = onelip.layers.ConvexPotentialLinear
    derived = type("Derived", (kind,), {name: lambda self, *a: 5 * getattr(kind, name)(self, *a)})
    layer = derived(4, 4) if name != "step" else derived(4, 4, step=1.0)
    with pytest.raises(UnboundedModuleError, match="Derived inherits lipschitz_bound"):
        lipschitz_bound(layer.eval())


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


def test_windows_that_follow_from_the_image_need_its_size():
    with pytest.raises(UnboundedModuleError, match="AdaptiveAvgPool2d takes its windows from"):
        lipschitz_bound(nn.AdaptiveAvgPool2d(2))
    for size in (1, (1, 1)):
        assert float(lipschitz_bound(nn.AdaptiveAvgPool2d(size))) == 1
