"""When our files on other libraries are read, and which of their modules they never speak for."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import onelip
from onelip import lipschitz
from onelip.errors import NonFiniteError, UnboundedModuleError

deel = pytest.importorskip("deel.torchlip")

PROGRAM = """
import sys
import onelip, torch
def loaded():
    return {name.split(".")[0] for name in sys.modules} & {"deel", "orthogonium"}
assert not loaded(), loaded()
onelip.lipschitz_bound(torch.nn.Linear(2, 2))
onelip.export(torch.nn.Sequential(torch.nn.Linear(2, 2)))
assert not loaded(), loaded()
from deel import torchlip
onelip.lipschitz_bound(torchlip.GroupSort2())
assert loaded() == {"deel"}, loaded()
"""


def test_nothing_is_imported_before_it_is_met():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)


def test_a_class_of_ones_own_inherits_neither_bound_nor_export():
    class Doubled(deel.SpectralLinear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer = Doubled(3, 3).eval()
    with pytest.raises(UnboundedModuleError, match=r"known for .*Doubled; .*derive it"):
        onelip.lipschitz_bound(layer)
    exported, x = onelip.export(layer), torch.randn(2, 3)
    assert type(exported) is Doubled
    assert torch.equal(exported(x), layer(x))


def test_a_rule_of_ones_own_comes_first(monkeypatch):
    monkeypatch.setitem(
        lipschitz.RECORDS,
        deel.GroupSort2,
        lipschitz.ModuleRecord(lipschitz_bound=lambda _: 7.0),
    )
    assert float(onelip.lipschitz_bound(deel.GroupSort2())) == 7


def test_a_library_with_other_classes_is_not_trusted(monkeypatch):
    monkeypatch.setitem(lipschitz.LIBRARIES, "deel.torchlip", "onelip.foreign.nowhere")
    with pytest.raises(UnboundedModuleError, match=r"another version of deel\.torchlip"):
        onelip.lipschitz_bound(deel.GroupSort2())


class Counts(nn.Module):
    """Another weight with each reading."""

    def __init__(self, start: float = 1.0):
        super().__init__()
        self.register_buffer("count", torch.tensor(start))

    def forward(self, weight):
        self.count += 1
        return weight / self.count


class Noise(nn.Module):
    def forward(self, weight):
        return weight + 0.01 * torch.randn_like(weight)


class Settles(Counts):
    """Counts to 3 and stays there."""

    def forward(self, weight):
        self.count.copy_((self.count + 1).clamp(max=3))
        return weight / self.count


@pytest.mark.parametrize("kind", [Counts, Noise])
def test_weights_that_move_in_eval_mode_are_refused_and_can_be_exported(kind):
    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", kind())
    layer.eval()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(UnboundedModuleError, match=r"each time it is read.*onelip\.export"):
        onelip.lipschitz_bound(layer)
    exported = onelip.export(nn.Sequential(layer))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert float(onelip.lipschitz_bound(exported)) > 0
    with pytest.raises(UnboundedModuleError, match="each time it is read"):
        onelip.certify(nn.Sequential(layer).eval(), torch.rand(1, 3))


def test_weights_that_have_settled_are_bounded():
    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Settles(1.0))
    with pytest.raises(UnboundedModuleError, match="each time it is read"):
        onelip.lipschitz_bound(layer.eval())
    for _ in range(3):
        layer(torch.zeros(1, 3))
    expected = torch.linalg.matrix_norm(layer.weight.detach().double(), 2)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(float(expected))


def test_a_weight_that_is_no_number_is_said_to_be_none():
    layer = deel.SpectralLinear(3, 3).eval()
    layer.parametrizations.weight[1]._w_bjorck.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        onelip.lipschitz_bound(layer)


def test_reading_through_a_cache_gives_each_layer_its_own_weight():
    layers = [deel.SpectralLinear(4, 4, k_coef_lip=float(k)).eval() for k in (1, 2, 3, 4)]
    x = torch.randn(2, 4)
    with parametrize.cached():
        exported = [onelip.export(layer) for layer in layers]
        found = [float(onelip.lipschitz_bound(layer)) for layer in layers]
    assert found == pytest.approx([1, 2, 3, 4], rel=1e-5)
    for plain, layer in zip(exported, layers, strict=True):
        assert torch.equal(plain(x), layer(x))


def test_asking_and_exporting_leave_the_random_numbers_alone():
    model = deel.Sequential(deel.SpectralConv2d(2, 3, 3), deel.GroupSort(3), nn.Flatten()).eval()
    before = torch.get_rng_state()
    onelip.lipschitz_bound(model)
    onelip.export(model)
    assert torch.equal(torch.get_rng_state(), before)
