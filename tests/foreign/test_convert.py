"""Conversion of other libraries' networks and checkpoints: equal outputs, and training goes on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm

import onelip
from onelip import layers
from onelip.errors import UnboundedModuleError, UsageError

deel = pytest.importorskip("deel.torchlip")
ortho = pytest.importorskip("orthogonium.layers")

from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d  # noqa: E402


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def trained_on(model, x):
    """The largest norm proved after three steps at a large rate."""
    model.train()
    for _ in range(3):
        model(x).square().sum().backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p.sub_(0.1 * p.grad)
                    p.grad = None
    return float(onelip.lipschitz_bound(onelip.export(model.eval()), tuple(x.shape[1:])))


def test_torchlip():
    net = deel.Sequential(
        deel.SpectralConv2d(2, 4, 3, padding=1),
        deel.GroupSort2(),
        deel.ScaledL2NormPool2d(2),
        nn.Flatten(),
        deel.SpectralLinear(64, 8),
        deel.HouseHolder(8),
        deel.FrobeniusLinear(8, 3, disjoint_neurons=True),
    ).eval()
    x = torch.rand(4, 2, 8, 8)
    before = net(x)
    result = onelip.convert(net, (2, 8, 8))
    assert torch.allclose(result.model.eval()(x), before, atol=1e-4)
    assert result.layers["4"] == "CholeskyLinear"
    assert result.layers["6"] == "UnitNormLinear"
    assert result.layers["5"] == "HalvesHouseHolder"
    assert result.layers["1"] == "GroupSort"
    assert "deel" not in {type(m).__module__.split(".")[0] for m in (result.model[0], result.model)}
    assert trained_on(result.model, x) < 1.01 * 3**0.5
    assert torch.equal(net(x), before)  # the original is left alone


def test_orthogonium():
    net = nn.Sequential(
        AdaptiveOrthoConv2d(2, 4, 3, padding=1, padding_mode="circular"),
        ortho.MaxMin(),
        nn.Flatten(),
        ortho.OrthoLinear(4 * 64, 6),
        ortho.UnitNormLinear(6, 3),
    ).eval()
    x = torch.rand(4, 2, 8, 8)
    result = onelip.convert(net, (2, 8, 8))
    assert torch.allclose(result.model.eval()(x), net(x), atol=1e-4)
    assert result.layers["3"] == "CholeskyLinear"
    assert result.layers["4"] == "UnitNormLinear"
    assert trained_on(result.model, x) < 1.02 * 3**0.5


def test_torch():
    net = nn.Sequential(
        parametrizations.spectral_norm(nn.Conv2d(2, 3, 3, padding=1), n_power_iterations=20),
        nn.ReLU(),
        nn.Flatten(),
        spectral_norm(nn.Linear(48, 8), n_power_iterations=20),
        parametrizations.orthogonal(nn.Linear(8, 5)),
    )
    x = torch.rand(4, 2, 4, 4)
    net(x)
    net.eval()
    result = onelip.convert(net, (2, 4, 4))
    assert torch.allclose(result.model.eval()(x), net(x), atol=1e-5)
    assert result.layers == {
        "0": "Conv2d under parametrize.lipschitz",
        "3": "Linear under parametrize.lipschitz",
        "4": "CholeskyLinear",
    }
    before = float(onelip.lipschitz_bound(onelip.export(result.model), (2, 4, 4)))
    assert trained_on(result.model, x) < 1.02 * before


def test_classes_of_their_own_keep_their_forward():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = deel.SpectralLinear(4, 4)

        def forward(self, x):
            return x + self.first(x)

    net, x = Net().eval(), torch.rand(2, 4)
    result = onelip.convert(net, (4,))
    assert type(result.model.first) is layers.CholeskyLinear
    assert torch.allclose(result.model(x), net(x), atol=1e-4)


def test_a_layer_that_occurs_twice_stays_one():
    once = deel.SpectralLinear(4, 4).eval()
    net, x = nn.Sequential(once, nn.ReLU(), once), torch.rand(2, 4)
    result = onelip.convert(net, (4,)).model.eval()
    assert result[0] is result[2]
    assert len(list(result.parameters())) == 2
    assert torch.allclose(result(x), net(x), atol=1e-4)


def test_strided_circular_convolutions():
    shapes = {"RKOConv2d": (2, 0), "Conv2d under parametrize.lipschitz": (4, 1)}
    for note, (kernel_size, padding) in shapes.items():
        net = AdaptiveOrthoConv2d(2, 8, kernel_size, 2, padding, padding_mode="circular").eval()
        result = onelip.convert(nn.Sequential(net), (2, 8, 8))
        assert result.layers == {"0": note}
        assert any(p.requires_grad for p in result.model.parameters())


def test_sequences_with_a_forward_of_their_own_keep_it():
    class Twice(nn.Sequential):
        def forward(self, x):
            return super().forward(super().forward(x))

    net, x = Twice(deel.SpectralLinear(4, 4)).eval(), torch.rand(2, 4)
    result = onelip.convert(net, (4,)).model
    assert type(result) is Twice
    assert torch.allclose(result(x), net(x), atol=1e-4)


@pytest.mark.parametrize("theirs", [deel.HouseHolder, ortho.HouseHolder])
def test_folds(theirs):
    """Any angles: the converted layer trains, and is Householder at theta + 2 pi on neighbours."""
    rest = () if theirs is deel.HouseHolder else (1, 1)  # orthogonium's is for images
    net, x = theirs(8).eval(), torch.randn(64, 8, *rest)
    with torch.no_grad():
        net.theta.copy_(torch.linspace(-5, 5, 4).view_as(net.theta))
    result = onelip.convert(nn.Sequential(net), (8, *rest)).model
    assert torch.allclose(result(x), net(x), atol=1e-6)
    assert result[0].theta.requires_grad
    ours = layers.Householder(8)
    with torch.no_grad():
        ours.theta.copy_(net.theta.flatten() + 2 * torch.pi)
    neighbours = x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
    folded = ours(neighbours).unflatten(1, (4, 2)).transpose(1, 2).flatten(1, 2)
    scale = 1.0 if theirs is deel.HouseHolder else 2**-0.5
    assert torch.allclose(scale * folded, net(x), atol=1e-5)


def test_layers_that_nothing_is_known_of_are_named():
    net = nn.Sequential(nn.ReLU(), ortho.custom_activations.HouseHolder_Order_2(4))
    with pytest.raises(UnboundedModuleError, match=r"^1: nothing is known of HouseHolder_Order_2"):
        onelip.convert(net, (4,))


def test_a_wrong_conversion_is_refused(monkeypatch):
    from onelip import _convert

    monkeypatch.setattr(_convert, "_fixed", lambda module: nn.Linear(4, 4))
    with pytest.raises(UnboundedModuleError, match="head: the converted layer computes"):
        onelip.convert(_named(), (4,))


def _named():
    net = nn.Sequential()
    net.add_module("head", deel.SpectralLinear(4, 4))
    return net


# checkpoints, from the formulas of the papers


def test_sll():
    kernel, bias, q = torch.randn(5, 2, 3, 3), torch.randn(1, 5, 1, 1), torch.randn(5)
    layer = layers.SLLConv2d(2, 5, 3)
    loaded = onelip.convert({"kernel": kernel, "bias": bias, "q": q}, (2, 6, 6), into=layer).model
    x = torch.randn(3, 2, 6, 6)
    gram = F.conv2d(kernel, kernel, padding=2).abs()
    t = (gram * q.exp().view(-1, 1, 1, 1) * (-q).exp().view(-1, 1, 1, 1)).sum((1, 2, 3))
    hidden = F.relu(F.conv2d(x, kernel, bias.flatten(), padding=1)) / t.view(-1, 1, 1)
    expected = x - 2 * F.conv_transpose2d(hidden, kernel, padding=1)
    assert torch.allclose(loaded(x), expected, atol=1e-5)


@pytest.mark.parametrize("stored", [False, True])
def test_convex_potential(stored):
    kernel, bias = torch.randn(5, 2, 3, 3), torch.randn(5)
    state = {"kernel": kernel, "bias": bias, "pm.u": torch.randn(1, 5, 6, 6)}
    matrix = torch.func.jacrev(lambda x: F.conv2d(x, kernel, padding=1))(torch.zeros(2, 6, 6))
    sigma = torch.linalg.matrix_norm(matrix.reshape(180, 72), 2)
    if stored:
        state["eval_sv_max"] = sigma[None]
    layer = layers.ConvexPotentialConv2d(2, 5, 3, image_size=6)
    loaded = onelip.convert(state, (2, 6, 6), into=layer).model.eval()
    x = torch.randn(3, 2, 6, 6)
    hidden = F.relu(F.conv2d(x, kernel, bias, padding=1))
    expected = x - 2 / sigma**2 * F.conv_transpose2d(hidden, kernel, padding=1)
    assert torch.allclose(loaded(x), expected, atol=1e-3)


@pytest.mark.parametrize("correction", [0.7, 1.0])
def test_soc(correction):
    raw, bias = torch.randn(4, 4, 3, 3), torch.randn(4)
    state = {"random_conv_filter": raw, "bias": bias, "correction": torch.tensor([correction])}
    layer = layers.SOCConv2d(1, 4, 3, 2, padding_mode="zeros")
    x = torch.randn(3, 1, 8, 8)
    loaded = onelip.convert(state, (1, 8, 8), into=layer).model.eval()
    skew = (raw - raw.flip(2, 3).transpose(0, 1)) / 2
    four = [skew.flatten(1), skew.transpose(0, 1).flatten(1)]
    four += [skew.permute(0, axis, 1, 5 - axis).reshape(12, 12) for axis in (2, 3)]
    kernel = correction * skew / min(torch.linalg.matrix_norm(m, 2) for m in four)
    term = total = F.pixel_unshuffle(x, 2)
    for i in range(1, 5 + 1):  # train_terms=5
        term = F.conv2d(term, kernel, padding=1) / i
        total = total + term
    assert torch.allclose(loaded(x), total + bias.view(-1, 1, 1), atol=1e-4)


def test_states_that_do_not_fit():
    state = {"kernel": torch.zeros(5, 2, 3, 3), "bias": torch.zeros(5)}
    with pytest.raises(UsageError, match="into="):
        onelip.convert(state, (2, 6, 6))
    with pytest.raises(UsageError, match="missing: q"):
        onelip.convert(state, (2, 6, 6), into=layers.SLLConv2d(2, 5, 3))
    with pytest.raises(UsageError, match="no published layout for CayleyLinear"):
        onelip.convert(state, (2,), into=layers.CayleyLinear(2, 2))
    circular = layers.SLLConv2d(2, 5, 3, padding_mode="circular")
    wrong = {"kernel": torch.randn(5, 2, 3, 3), "bias": torch.zeros(5), "q": torch.zeros(5)}
    with pytest.raises(UnboundedModuleError, match="SLLConv2d: the converted layer"):
        onelip.convert(wrong, (2, 6, 6), into=circular)
