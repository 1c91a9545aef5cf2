"""Torch modules and layers as chains."""

import copy
import math
from decimal import Decimal, getcontext
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from onelip import LipschitzModule, layers
from onelip.chains import Elementwise, GroupSorting, Scale
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.lipschitz import lipschitz_bound
from onelip.norms.rounding import gamma
from onelip.reading import read
from tests.cases import CASES, LAYERS, TORCH, Case
from tests.reading.checks import check, naive, opaque


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_layer(case: Case) -> None:
    model = copy.deepcopy(case.build()).double().eval()
    check(read(model, case.input_shape), model, case.input_shape)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_live_chain_in_single_precision_and_training(case: Case) -> None:
    if case.id.startswith(("Dropout", "BatchNorm", "Linear-orthogonal")):
        pytest.skip("refused in training mode")
    model = copy.deepcopy(case.build()).float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(2, *case.input_shape)
    y = read(model, case.input_shape).forward(x)
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    torch.testing.assert_close(y, model.eval()(x), rtol=1e-4, atol=1e-4)


def test_what_is_opaque() -> None:
    kinds = {kind for case in TORCH for kind in opaque(read(case.build().eval(), case.input_shape))}
    assert kinds == {"MaxPool2d", "ConvTranspose1d", "ConvTranspose3d"}
    plain = ("AOL", "BCOP", "RKO", "OSSN", "SVCM", "LiResNet", "Convex", "SLL", "Sandwich")
    for case in LAYERS:
        if case.id.startswith(plain):
            assert opaque(read(case.build().eval(), case.input_shape)) == []


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.id)
def test_the_layers_own_proof_is_kept(case: Case) -> None:
    model = case.build().double().eval()
    bound = float(lipschitz_bound(model))
    assert naive(read(model, case.input_shape).exact()) <= bound * (1 + 1e-6)


def _random_network(seed: int) -> tuple[nn.Sequential, tuple[int, ...]]:
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    groups = draw(1, 2)
    kernel, dilation = (draw(1, 3), draw(1, 3)), (draw(1, 2), draw(1, 2))
    mode = ("zeros", "circular")[draw(0, 1)]
    even = draw(0, 3) == 0
    conv = nn.Conv2d(
        2 * groups,
        3 * groups,
        kernel,
        stride=1 if even else (draw(1, 2), draw(1, 3)),
        padding="same" if even else (draw(0, 2), draw(0, 2)),
        dilation=dilation,
        groups=groups,
        padding_mode=mode,
        bias=bool(draw(0, 1)),
    )
    pool = (nn.Identity(), nn.AvgPool2d((draw(1, 2), draw(1, 2)), draw(1, 2)), nn.MaxPool2d(1))
    norm = nn.BatchNorm2d(3 * groups)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.1, 2)
    parts = nn.Sequential(conv, norm, nn.LeakyReLU(0.3, inplace=True), pool[draw(0, 2)])
    return nn.Sequential(parts, nn.Flatten()).double().eval(), (2 * groups, 5 + draw(0, 2), 6)


def test_random_convolutions(each) -> None:
    for seed in each(range(40)):
        model, shape = _random_network(seed)
        check(read(model, shape), model, shape)


def test_maps_hold_the_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    chain = read(model, (3,))
    assert chain.blocks[0].inner.weight is model[0].weight
    assert chain.last.bias is model[2].bias
    assert chain.blocks[0].name == "1 (ReLU)"
    assert chain.plain


def test_gradients_reach_every_parameter() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 2, padding="same", padding_mode="circular"),
        nn.BatchNorm2d(4),
        nn.PReLU(4),
        nn.Flatten(),
        layers.UnitNormLinear(36, 2),
    ).eval()
    x = torch.randn(2, 1, 3, 3)
    model(x).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    read(model, (1, 3, 3)).forward(x).square().sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


def test_an_activation_in_place_leaves_the_input_alone() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3))
    x = torch.randn(2, 3)
    kept = x.clone()
    read(model, (3,)).forward(x)
    assert torch.equal(x, kept)
    assert model[0].inplace


def test_activations_before_and_behind_everything() -> None:
    model = nn.Sequential(nn.Tanh(), nn.ReLU())
    chain = read(model, (3,))
    assert [block.inner.norm() for block in chain.blocks] == [1, 1]
    check(chain, model, (3,))


def test_a_network_without_hidden_layers() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 1)).double()
    chain = read(model, (1, 2, 2))
    assert chain.blocks == ()
    check(chain, model, (1, 2, 2))


def test_one_neuron() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid(), nn.Linear(1, 1)).double()
    check(read(model, (1,)), model, (1,))


def test_linear_along_the_last_of_several_axes() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    chain = read(model, (2, 4, 3))
    check(chain, model, (2, 4, 3))
    assert naive(chain.exact()) == pytest.approx(float(lipschitz_bound(model)), rel=1e-9)


@pytest.mark.parametrize("height", [6, 5])
def test_adaptive_average_pooling(height) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d((2, None)))
    check(read(model, (2, height, 3)), model, (2, height, 3))


def test_slopes_of_prelu_are_those_of_its_channels() -> None:
    model = nn.PReLU(2)
    model.weight.data = torch.tensor([-0.5, 3.0])
    phi = read(model, (2, 2)).blocks[0].nonlinearity
    assert isinstance(phi, Elementwise)
    assert phi.low.tolist() == [[-0.5, -0.5], [1.0, 1.0]]
    assert phi.high.tolist() == [[1.0, 1.0], [3.0, 3.0]]


def test_sorting_and_folding() -> None:
    phi = read(nn.Sequential(layers.GroupSort(3)), (6,)).blocks[0].nonlinearity
    assert isinstance(phi, GroupSorting)
    assert phi.size == 3
    phi = read(nn.Sequential(layers.Abs()), (6,)).blocks[0].nonlinearity
    assert isinstance(phi, Elementwise)
    assert (float(phi.low), float(phi.high)) == (-1, 1)


def test_normalisation_is_not_rounded_downwards() -> None:
    model = layers.Normalize([0.1, 0.2], [0.3, -0.7])
    scale = read(model, (2, 2, 2)).last
    assert isinstance(scale, Scale)
    for factor, std in zip(scale.factor.flatten().tolist(), model.std.tolist(), strict=True):
        exact = 1 / Fraction(std)
        assert abs(Fraction(factor)) >= abs(exact)
        assert abs(Fraction(factor) - exact) <= abs(exact) * Fraction(gamma(scale.operations))
    assert float(scale.norm()) >= float(lipschitz_bound(model))
    assert read(layers.Normalize([0.5], [0.25]), (1,)).last.operations == 0


def test_batch_normalisation_is_not_rounded_downwards() -> None:
    getcontext().prec = 60
    norm = nn.BatchNorm1d(50)
    nn.init.normal_(norm.weight)
    nn.init.uniform_(norm.running_var, 0, 2)
    scale = read(norm.eval(), (50,)).last
    assert isinstance(scale, Scale)
    for factor, weight, variance in zip(
        scale.factor.tolist(), norm.weight.tolist(), norm.running_var.tolist(), strict=True
    ):
        exact = abs(Decimal(weight)) / (Decimal(variance) + Decimal(norm.eps)).sqrt()
        excess = Decimal(abs(factor)) - exact
        assert 0 <= excess <= exact * Decimal(gamma(scale.operations))


def test_averages_keep_their_exact_norm() -> None:
    model = nn.AvgPool2d(3, stride=2)
    last = read(model, (4, 9, 9)).last
    windows, third = last.maps
    assert float(windows.norm()) * float(third.norm()) == pytest.approx(
        float(lipschitz_bound(model)), rel=1e-15
    )


class _Twice(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


class _Longer(layers.UnitNormLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def _hooked() -> nn.Module:
    part = nn.Linear(4, 4)
    part.register_forward_hook(lambda module, inputs, output: 2 * output)
    return part


def _patched() -> nn.Module:
    part = nn.Linear(4, 4)
    part.forward = lambda x: x  # type: ignore[method-assign]
    return part


class _Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.ones(()))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return weight * self.count


def _moving() -> nn.Module:
    part = nn.Linear(4, 4)
    parametrize.register_parametrization(part, "weight", _Counting(), unsafe=True)
    return part.eval()


REFUSED = {
    "hook": (_hooked, "hook"),
    "patched": (_patched, "patched"),
    "layer-subclass": (lambda: _Longer(4, 4), "inherits"),
    "parametrized": (lambda: parametrizations.spectral_norm(nn.Linear(4, 4)), "training mode"),
    "moving": (_moving, "each time"),
    "dropout": (nn.Dropout, "random in training"),
    "batch-norm": (lambda: nn.BatchNorm1d(4), "batch statistics"),
    "no-statistics": (lambda: nn.BatchNorm1d(4, track_running_stats=False).eval(), "statistics"),
    "ceil": (lambda: nn.AvgPool2d(2, ceil_mode=True), "ceil_mode=False"),
    "indices": (lambda: nn.MaxPool2d(2, return_indices=True), "return_indices"),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(build, message: str) -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(build()))
    with pytest.raises(UnboundedModuleError, match=message) as caught:
        read(model, (4,))
    if message not in ("hook", "patched"):
        assert str(caught.value).startswith("1.0 (")


@pytest.mark.parametrize("module", [nn.Hardshrink(), nn.MultiheadAttention(4, 1)])
def test_modules_of_torch_are_read_by_their_forward(module) -> None:
    with pytest.raises(UnboundedModuleError):
        read(nn.Sequential(nn.Identity(), nn.Sequential(module)).eval(), (4,))


@pytest.mark.parametrize("build", [lambda: _Twice(4, 4), _Residual])
def test_a_class_of_ones_own_is_read_by_its_forward(build) -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(build())).double().eval()
    x = torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(read(model, (4,)).exact().forward(x), model(x))


MISFITS = {
    "linear": (nn.Linear(3, 2), (4,), r"takes inputs of shape \(\*, 3\), got \(4,\)"),
    "channels": (nn.Conv2d(3, 2, 1), (2, 4, 4), r"\(3, height, width\), got \(2, 4, 4\)"),
    "vector": (nn.Conv2d(3, 2, 1), (3,), r"\(3, height, width\), got \(3,\)"),
    "small": (nn.Conv2d(3, 2, 5), (3, 4, 4), "large enough for the kernel"),
    "wraps": (nn.Conv2d(1, 1, 7, padding=3, padding_mode="circular"), (1, 2, 2), "large enough"),
    "batch-norm": (nn.BatchNorm2d(3).eval(), (2, 4, 4), r"\(3, ...\), got \(2, 4, 4\)"),
    "prelu": (nn.PReLU(3), (2, 4), r"\(3, ...\)"),
    "normalize": (layers.Normalize([0.0] * 3, [1.0] * 3), (2, 4), r"\(3, ...\)"),
    "groups": (layers.GroupSort(3), (4,), "multiple of 3"),
    "shuffle": (nn.PixelShuffle(2), (3, 2, 2), r"does not take inputs of shape \(3, 2, 2\)"),
    "sized": (layers.OSSNConv2d(1, 1, 3, image_size=4), (1, 5, 5), r"images of \(4, 4\)"),
    "pool": (nn.MaxPool2d(4), (1, 2, 2), "does not take inputs"),
    "average": (nn.AvgPool2d(4), (1, 2, 2), "large enough for a window"),
    "flatten": (nn.Flatten(0), (2, 2), "flattens the batch"),
    "householder": (layers.Householder(4), (2,), "does not take inputs"),
}


@pytest.mark.parametrize(("part", "shape", "message"), MISFITS.values(), ids=MISFITS.keys())
def test_shapes_that_do_not_fit(part: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=f"0 .{type(part).__name__}.: .*{message}"):
        read(nn.Sequential(part), shape)


@pytest.mark.parametrize("shape", [(), (3, 0)])
def test_input_shapes_that_are_none(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="without the batch"):
        read(nn.ReLU(), shape)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_no_numbers_have_no_exact_chain(number: float) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[0].weight.data[0, 0] = number
    with pytest.raises(NonFiniteError):
        read(model, (2,)).exact()


@pytest.mark.parametrize("size", [0.0, 1e-200, 1e100])
def test_weights_of_any_size(size: float) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    for parameter in model.parameters():
        parameter.data *= size
    x = torch.ones(1, 2, dtype=torch.float64)
    assert torch.equal(read(model, (2,)).exact().forward(x), model(x))


class _OwnLayer(LipschitzModule):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cos().sum(1, keepdim=True) / math.sqrt(3)

    def lipschitz_bound(self) -> torch.Tensor:
        return torch.ones((), dtype=torch.float64)


def test_a_module_with_a_bound_that_is_not_known_here() -> None:
    model = nn.Sequential(nn.Linear(3, 3), _OwnLayer(), nn.Linear(1, 1)).double()
    chain = read(model, (3,))
    assert opaque(chain) == ["_OwnLayer"]
    check(chain, model, (3,))
