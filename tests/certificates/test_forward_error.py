"""Bounds of rounding against networks run in float32 and, as the exact value, in float64."""

import copy
import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import layers
from onelip.certificates.forward_error import forward_error, forward_errors
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.forward_error import Arithmetic, Computed, absolute_norm
from onelip.layers import Abs, GroupSort, Householder, MaxMin, NActivation
from onelip.lipschitz import RECORDS, through


def inputs(shape: tuple[int, ...], reach: float, rows: Tensor | None = None) -> Tensor:
    """Vectors in float32 of lengths up to reach: random, sparse, constant, tiny, along rows."""
    size = math.prod(shape)
    x = [torch.randn(200, size), torch.rand(50, size), torch.eye(size)[:30], torch.ones(1, size)]
    x += [torch.randn(20, size) * 10 ** torch.linspace(-3, 3, size), torch.randn(20, size).sign()]
    if rows is not None:
        x += [rows, rows.sign(), rows.abs(), rows - rows.mean(1, keepdim=True)]
    x = torch.cat(x).double()
    x = x / x.norm(dim=1, keepdim=True).clamp_min(1e-300) * (reach * 0.999999)
    x = torch.cat([x, x[::7] * 1e-3, x[::11] * 1e-25, x[::13] * 1e-37, x[::17] * 1e-42, x[:1] * 0])
    return x.float().reshape(-1, *shape)


@torch.no_grad()
def seen(model: nn.Module, x: Tensor, exact: nn.Module | None = None) -> Tensor:
    """The distance of each output to that of the same network in float64."""
    exact = copy.deepcopy(model).double() if exact is None else exact
    return (model(x).double() - exact(x.double())).flatten(1).norm(dim=1)


@torch.no_grad()
def check(model: nn.Module, shape: tuple[int, ...], reach: float, exact=None, rows=None) -> float:
    """No error above the bound; the largest share of it that was seen."""
    x = inputs(shape, reach, rows)
    bound = float(forward_error(model, shape, reach))
    twin = copy.deepcopy(model).double()
    own = float(forward_error(twin, shape, reach)) if twin.state_dict() else bound * 1e-8
    worst = float(seen(model, x, exact).max())
    assert worst <= bound + own
    assert own <= bound * 1e-3
    return worst / bound if bound else 0.0


conv = nn.Conv2d


def batch_norm(kind, channels: int) -> nn.Module:
    module = kind(channels)
    nn.init.normal_(module.running_mean, std=3)
    nn.init.uniform_(module.running_var, 0.01, 2)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    return module.eval()


def soc(**options) -> layers.FixedSOCConv2d:
    free = 0.2 * torch.randn(4, 4, 3, 3)
    skew = free - free.flip(2, 3).transpose(0, 1)
    return layers.FixedSOCConv2d(skew, torch.randn(3), 1, 3, stride=2, **options)


def grouped_soc() -> layers.FixedSOCConv2d:
    free = 0.2 * torch.randn(2, 2, 2, 3, 3)
    skew = (free - free.flip(3, 4).transpose(1, 2)).flatten(0, 1)
    return layers.FixedSOCConv2d(skew, torch.randn(4), 2, 4, groups=2, padding_mode="zeros")


def prelu() -> nn.PReLU:
    module = nn.PReLU(4)
    nn.init.normal_(module.weight)
    return module


def n_activation() -> NActivation:
    module = NActivation(4)
    nn.init.normal_(module.theta)
    return module


def short_curve(scale: float) -> layers.CurvePool2d:
    module = layers.CurvePool2d(4, 4)
    module.corners.data = torch.randn(1, 2, 2) * 0.01 + module.corners.data * scale
    return module


def branch() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 12))


def centred(channels: int) -> nn.Module:
    module = layers.BatchCentering(channels).eval()
    for number in module.state_dict().values():
        nn.init.normal_(number)
    return module


THIRDS = [torch.tensor(number / 3) for number in (1.0, -2.0, -5.0)]
IMAGE = (4, 6, 6)
CASES = {
    "linear": (lambda: nn.Linear(40, 30), (40,)),
    "linear-no-bias": (lambda: nn.Linear(40, 30, bias=False), (40,)),
    "linear-rows": (lambda: nn.Linear(6, 3), IMAGE),
    "conv": (lambda: conv(4, 5, 3), IMAGE),
    "conv-zeros": (lambda: conv(4, 5, 3, padding=1), IMAGE),
    "conv-same": (lambda: conv(4, 5, 5, padding="same", bias=False), IMAGE),
    "conv-stride": (lambda: conv(4, 5, 3, padding=1, stride=2), IMAGE),
    "conv-dilation": (lambda: conv(4, 5, 3, padding=2, dilation=2), IMAGE),
    "conv-groups": (lambda: conv(4, 6, 3, groups=2), IMAGE),
    "conv-circular": (lambda: conv(4, 5, 3, padding=1, padding_mode="circular"), IMAGE),
    "conv-circular-wide": (lambda: conv(4, 5, 3, padding=4, padding_mode="circular"), IMAGE),
    "conv-oblong": (lambda: conv(4, 2, (1, 3), padding=(0, 2), stride=(3, 2)), (4, 5, 7)),
    "conv-1d": (lambda: nn.Conv1d(4, 5, 3, padding=1, padding_mode="circular"), (4, 9)),
    "conv-transpose": (lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, groups=2), IMAGE),
    "fixed": (
        lambda: layers.FixedConv2d(conv(4, 4, 3, stride=2, padding=1), image_size=(6, 6)),
        IMAGE,
    ),
    "unshuffled": (
        lambda: nn.Sequential(nn.PixelUnshuffle(2), conv(16, 8, 3, stride=2, padding=1)),
        IMAGE,
    ),
    "batch-norm": (lambda: batch_norm(nn.BatchNorm2d, 4), IMAGE),
    "batch-norm-1d": (lambda: batch_norm(nn.BatchNorm1d, 7), (7,)),
    "normalize": (lambda: layers.Normalize([0.1, 5.0, 0.3, 0], [0.2, 0.7, -0.01, 3]), IMAGE),
    "rescale": (lambda: layers.Rescale(-1 / 3), IMAGE),
    "leaky": (lambda: nn.LeakyReLU(0.1), IMAGE),
    "leaky-steep": (lambda: nn.LeakyReLU(-3.3), IMAGE),
    "prelu": (prelu, IMAGE),
    "average": (lambda: nn.AvgPool2d(3, stride=2, padding=1), IMAGE),
    "average-divisor": (lambda: nn.AvgPool2d((2, 3), divisor_override=7), IMAGE),
    "scaled-average": (lambda: layers.ScaledAvgPool2d(3, 2), IMAGE),
    "scaled-average-pair": (lambda: layers.ScaledAvgPool2d((2, 3), (1, 2)), IMAGE),
    "norm-pool-pair": (lambda: layers.ScaledL2NormPool2d((2, 3), (2, 1)), IMAGE),
    "scaled-max": (lambda: layers.ScaledMaxPool2d(3, 1), IMAGE),
    "norm-pool": (lambda: layers.ScaledL2NormPool2d(3, 1), IMAGE),
    "norm-pool-2": (lambda: layers.ScaledL2NormPool2d(2), IMAGE),
    "n-activation": (n_activation, IMAGE),
    "tanh": (nn.Tanh, IMAGE),
    "sigmoid": (nn.Sigmoid, IMAGE),
    "softplus": (nn.Softplus, IMAGE),
    "softplus-steep": (lambda: nn.Softplus(beta=7.3), IMAGE),
    "softplus-flat": (lambda: nn.Softplus(beta=0.01), IMAGE),
    "gradient-step": (
        lambda: onelip.export(layers.ConvexPotentialConv2d(4, 5, 3, image_size=6)),
        IMAGE,
    ),
    "gradient-step-softplus": (
        lambda: layers.GradientStep(
            torch.randn(9, 12), torch.randn(9), nn.Softplus(), torch.tensor(0.03)
        ),
        (12,),
    ),
    "sll": (lambda: onelip.export(layers.SLLLinear(12, 20)), (12,)),
    "sandwich": (lambda: onelip.export(layers.SandwichLinear(12, 9)), (12,)),
    "gelu": (nn.GELU, IMAGE),
    "gelu-tanh": (lambda: nn.GELU(approximate="tanh"), IMAGE),
    "silu": (nn.SiLU, IMAGE),
    "curve-point": (lambda: layers.CurvePool2d(4, 1), IMAGE),
    "curve": (lambda: layers.CurvePool2d(4, 4), IMAGE),
    "curve-short": (lambda: short_curve(1e-3), IMAGE),
    "curve-tiny": (lambda: short_curve(1e-22), IMAGE),
    "residual": (lambda: onelip.export(layers.Residual(branch(), 0.3)), (12,)),
    "residual-inner": (lambda: layers.WeightedResidual(branch(), *THIRDS), (12,)),
    "mean-square": (lambda: layers.MeanSquareResidual(branch()), (12,)),
    "mean-square-of-0": (lambda: layers.MeanSquareResidual(branch(), eps=0.0), (12,)),
    "split": (lambda: layers.Split([branch(), nn.Tanh()], (12, 3)), (15,)),
    "concatenated": (lambda: layers.Concatenated([branch(), nn.Tanh(), branch()]), (12,)),
    "invertible": (lambda: layers.InvertibleResidual(branch()), (12,)),
    "monotone": (lambda: layers.Monotone(nn.Linear(12, 1), [0, 3, 7], slope=2 / 3), (12,)),
    "soft-huber": (layers.SoftHuber, IMAGE),
    "soft-huber-wide": (lambda: layers.SoftHuber(30.0), IMAGE),
    "lp-relu": (lambda: layers.LPReLU(4, 0.3), IMAGE),
    "average-whole": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "layer-centering": (lambda: layers.LayerCentering(4), IMAGE),
    "batch-centering": (lambda: centred(4), IMAGE),
    "adaptive-average": (lambda: layers.ScaledAdaptiveAvgPool2d((3, 1)), IMAGE),
    "adaptive-norm": (layers.ScaledAdaptiveL2NormPool2d, IMAGE),
    "soc": (lambda: soc(image_size=6), (1, 6, 6)),
    "soc-groups": (grouped_soc, (2, 5, 4)),
    "soc-zeros": (lambda: soc(padding_mode="zeros", terms=6), (1, 6, 8)),
}
EXACT = {
    "flatten": nn.Flatten,
    "zero-pad": lambda: nn.ZeroPad2d(2),
    "shuffle": lambda: nn.PixelShuffle(2),
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "max": lambda: nn.MaxPool2d(3, stride=1),
    "identity": nn.Identity,
    "dropout": lambda: nn.Dropout().eval(),
    "absolute": Abs,
    "sort": lambda: GroupSort(4),
    "max-min": MaxMin,
    "channel-max": layers.ChannelMaxPool,
    "first": lambda: layers.TruncateChannels(2),
    "zero-channels": lambda: layers.ZeroPadChannels(7),
    "downsampling": lambda: layers.InvertibleDownsampling(3),
    "upsampling": lambda: layers.InvertibleUpsampling(2),
    "channel-shuffle": lambda: layers.ChannelShuffle(2),
}


# Never below


def test_no_error_is_above_the_bound(each):
    for reach, name in each(itertools.product([1e-3, 3.0, 1e4], CASES)):
        build, shape = CASES[name]
        for _ in range(3):
            model = build().eval()
            rows = model.weight.detach() if name.startswith("linear") and len(shape) == 1 else None
            assert check(model, shape, reach, rows=rows) > 1e-6  # and the bound says something


def test_what_only_moves_numbers_is_exact(each):
    for name in each(EXACT):
        model = nn.Sequential(EXACT[name]())
        x = inputs(IMAGE, 5.0)
        assert float(seen(model, x).max()) == 0
        assert 0 < float(forward_error(model, IMAGE, 5.0)) < 1e-35  # inputs may be flushed to 0


def network(kind: str) -> tuple[nn.Module, tuple[int, ...]]:
    if kind == "dense":
        parts = [nn.Flatten(), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 40), MaxMin()]
        return nn.Sequential(*parts, nn.Linear(40, 5)), (1, 8, 8)
    if kind == "orthogonal":
        parts = [layers.BCOPConv2d(4, 8, 3), MaxMin(), layers.AOCConv2d(8, 16, 3, stride=2)]
        parts = [nn.PixelUnshuffle(2), *parts, NActivation(16), nn.Flatten(), nn.Linear(64, 5)]
        return nn.Sequential(*parts), (1, 8, 8)
    parts = [layers.Normalize([0.5], [0.25]), layers.ZeroPadChannels(4)]
    parts += [layers.ConvexPotentialConv2d(4, 6, 3, image_size=8) for _ in range(3)]
    parts += [nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), layers.ConvexPotentialLinear(64, 20)]
    return nn.Sequential(*parts, layers.UnitNormLinear(64, 5)), (1, 8, 8)


@pytest.mark.parametrize("gain", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("kind", ["dense", "orthogonal", "convex"])
def test_whole_networks(kind, gain):
    for _ in range(2):
        model, shape = network(kind)
        for parameter in model.parameters():
            parameter.data *= gain
        check(onelip.export(model), shape, 8.0)


OFFSETS = {
    "linear": ["bias"],
    "conv-circular": ["bias"],
    "conv-transpose": ["bias"],
    "batch-norm": ["running_mean", "bias"],
    "normalize": ["mean"],
    "n-activation": ["theta"],
    "gradient-step-softplus": ["inner.bias"],
    "sandwich": ["inner.bias"],
    "soc": ["bias"],
    "curve": ["corners"],
}


@pytest.mark.parametrize("name", OFFSETS)
def test_what_is_added_counts(name):
    """Shifts of 1e5 or so round away most of inputs of length 1; a bound without them is wrong."""
    (build, shape), single = CASES[name], Arithmetic.of(torch.float32)
    for _ in range(3):
        model = build().eval()
        plain = float(forward_error(model, shape, 1.0))
        for offset in OFFSETS[name]:
            number = dict([*model.named_parameters(), *model.named_buffers()])[offset]
            number.data = torch.randn_like(number).abs() * 1e5
        check(nn.Sequential(model, nn.ReLU()), shape, 1.0)
        assert float(seen(model, inputs(shape, 1.0)).max()) > plain
        with torch.no_grad():
            start = float(model(torch.zeros(1, *shape)).norm())
        assert start <= through(model, Computed(shape, 1.0), single).offset * (1 + 1e-5)


def rational(model: nn.Sequential, x: list[float]) -> list[Fraction]:
    """Linear layers and ReLU, exactly."""
    values = [Fraction(v) for v in x]
    for part in model:
        if isinstance(part, nn.ReLU):
            values = [max(v, Fraction(0)) for v in values]
            continue
        rows = zip(part.weight.tolist(), part.bias.tolist(), strict=True)
        values = [
            Fraction(bias) + sum(Fraction(w) * v for w, v in zip(row, values, strict=True))
            for row, bias in rows
        ]
    return values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_small_networks_in_rationals(dtype):
    parts = [nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)]
    for _ in range(5):
        model = nn.Sequential(*(type(p)(*_sizes(p)) for p in parts)).to(dtype)
        x = torch.randn(20, 7, dtype=dtype)
        reach = float(x.double().norm(dim=1).max()) * (1 + 1e-12)
        bound, worst = Fraction(float(forward_error(model, (7,), reach))), Fraction(0)
        for sample, output in zip(x.tolist(), model(x).tolist(), strict=True):
            pairs = zip(output, rational(model, sample), strict=True)
            worst = max(worst, sum(((Fraction(y) - t) ** 2 for y, t in pairs), Fraction(0)))
        assert bound**2 / 10**6 < worst <= bound**2


def _sizes(part: nn.Module) -> tuple[int, ...]:
    return (part.in_features, part.out_features) if isinstance(part, nn.Linear) else ()


def sequential(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``W x + b`` in float32, each sum from left to right."""
    terms = np.concatenate([bias[:, None], weight * x], 1).astype(np.float32)
    return np.add.accumulate(terms, axis=1, dtype=np.float32)[:, -1]


def test_the_order_of_summation_does_not_matter():
    """Left to right in float32, sorted in both directions, against rationals."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        n = int(rng.integers(1, 400))
        layer = nn.Linear(n, 2)
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        x = (rng.random(n) ** 4).astype(np.float32)
        reach = math.sqrt(sum(float(v) ** 2 for v in x)) * (1 + 1e-12)
        bound = Fraction(float(forward_error(layer, (n,), reach)))
        truth = [
            Fraction(float(b))
            + sum(Fraction(float(w)) * Fraction(float(v)) for w, v in zip(row, x, strict=True))
            for row, b in zip(weight, bias, strict=True)
        ]
        for order in (np.arange(n), np.argsort(x), np.argsort(-x), np.argsort(weight[0] * x)):
            found = sequential(weight[:, order], bias, x[order])
            off = [Fraction(float(f)) - t for f, t in zip(found, truth, strict=True)]
            assert sum(o * o for o in off) <= bound**2


def test_a_hundred_thousand_equal_numbers():
    """The sum from left to right comes within a factor of 20 of the bound, so n u is needed."""
    n = 100_000
    layer = nn.Linear(n, 1)
    layer.weight.data.fill_(0.1)
    layer.bias.data.zero_()
    x = np.full(n, 1 / 3, dtype=np.float32)
    found = float(sequential(layer.weight.detach().numpy(), np.zeros(1, np.float32), x)[0])
    off = abs(found - float(np.float32(0.1)) * float(x[0]) * n)
    bound = float(forward_error(layer, (n,), float(x[0]) * math.sqrt(n) * (1 + 1e-12)))
    assert bound / 20 < off <= bound
    u = 2.0**-24
    too_small = 3 * math.sqrt(n) * u * float(x[0]) * 0.1 * n  # a statistician's rule
    assert off > too_small


def test_the_inputs_would_show_a_rule_that_is_too_small(each, monkeypatch):
    """Negative control: with round-off 5000 times smaller, the same inputs contradict the bound."""
    for name in each(CASES):
        build, shape = CASES[name]
        model = build().eval()
        worst = float(seen(model, inputs(shape, 3.0)).max())
        assert worst <= float(forward_error(model, shape, 3.0))
        with monkeypatch.context() as patch:
            patch.setattr(Arithmetic, "gamma", lambda self, count: count * self.unit / 5000)
            assert worst > float(forward_error(model, shape, 3.0))


def test_errors_are_carried_through_later_layers():
    """A factor of 1000 behind a layer, and 64 layers that each double the error of the first."""
    first = nn.Linear(20, 10)
    parts = forward_errors(nn.Sequential(first, layers.Rescale(1024.0)), (20,), 1.0)
    assert float(parts[1]) >= 1024 * float(parts[0])
    model = nn.Sequential(first, *(layers.Rescale(2.0) for _ in range(20)))
    x = inputs((20,), 1.0)
    assert float(seen(model, x).max()) > float(parts[0])  # exact doublings of an error
    check(model, (20,), 1.0)


def test_a_new_n_activation_costs_little():
    """Its thresholds of -100 are out of reach and do not count."""
    check(NActivation(4), (4,), 1.0)
    assert float(forward_error(NActivation(4), (4,), 1.0)) < 2e-6


# Angles: the exact function has the cosines that were computed


def folded(layer: Householder, x: Tensor) -> Tensor:
    cos, sin = layer.tents()[0][:, 0].detach().double()
    pairs = x.double().unflatten(1, (-1, 2))
    first, second = pairs[:, :, 0], pairs[:, :, 1]
    below = (sin * first - cos * second).clamp(max=0)
    return torch.stack([first - 2 * sin * below, second + 2 * cos * below], 2).flatten(1)


def test_householder():
    for _ in range(20):
        layer = Householder(40)
        nn.init.uniform_(layer.theta, -4, 4)
        x = inputs((40,), 3.0)
        off = (layer(x).detach().double() - folded(layer, x)).norm(dim=1).max()
        assert 1e-3 < float(off / forward_error(layer, (40,), 3.0)) <= 1


@pytest.mark.parametrize("order", [2, 3, 5])
def test_householder_of_higher_order(order):
    """The same layer in float64, with points on both sides of the borders of the pieces."""
    for _ in range(4):
        layer = Householder(40, order=order)
        layer.theta.data += torch.randn_like(layer.theta) * 3
        twin = copy.deepcopy(layer).double()
        x = torch.cat([inputs((40,), 3.0), borders(twin)])
        off = seen(layer, x, twin).max()
        own = float(forward_error(twin, (40,), 3.0))
        assert 1e-3 < float(off) / float(forward_error(layer, (40,), 3.0)) <= 1 - own


def borders(layer: Householder) -> Tensor:
    """Float32 points of the first pair where the piece changes, found by bisection."""
    turn = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)
    angles = turn[:, None] + torch.zeros(1, 1)
    low, high = angles[:-1, 0], angles[1:, 0]
    for _ in range(25):
        middle = (low + high) / 2
        rises = [slope(layer, t) for t in (low, middle)]
        same = rises[0] == rises[1]
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    x = torch.zeros(len(low), 40)
    x[:, 0], x[:, 1] = 2.9 * low.cos().float(), 2.9 * low.sin().float()
    return x


@torch.no_grad()
def slope(layer: Householder, angles: Tensor) -> Tensor:
    """Whether the image of the first pair turns with its angle or against it."""
    image = []
    for angle in (angles - 1e-9, angles + 1e-9):
        x = torch.zeros(len(angles), 40, dtype=torch.float64)
        x[:, 0], x[:, 1] = angle.cos(), angle.sin()
        image.append(layer(x)[:, :2])
    return (image[0][:, 0] * image[1][:, 1] - image[0][:, 1] * image[1][:, 0]) > 0


def signed_distance(layer: layers.ProjectionPool2d, x: Tensor) -> Tensor:
    cos, sin = layer.ray().detach().double()
    first, second = x.double().chunk(2, 1)
    across = cos * second.abs() - sin * first
    along = cos * first + sin * second.abs()
    return torch.where(along < 0, cos.sign() * torch.hypot(across, along), across)


def test_projection_pool():
    for _ in range(20):
        layer = layers.ProjectionPool2d(40)
        x = inputs((40,), 3.0)
        cos, sin = layer.ray().detach()
        x[:20, :20], x[:20, 20:] = sin * (0.6 * x[:20, :20].sign()), -cos * 0.6  # along is near 0
        x[:20] *= 0.99
        off = (layer(x).detach().double() - signed_distance(layer, x)).norm(dim=1).max()
        assert 1e-3 < float(off / forward_error(layer, (40,), 3.0)) <= 1


# Norms of absolute values


def matrix_of(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return module.double()(basis).flatten(1).mT.detach()


def test_absolute_norms(each):
    for name in each([n for n in CASES if n.startswith(("conv", "linear"))]):
        build, shape = CASES[name]
        module = build()
        found = absolute_norm(module, shape)
        module.weight.data.abs_()
        module.bias = None
        truth = float(torch.linalg.matrix_norm(matrix_of(module, shape), 2))
        assert truth <= found <= 1.5 * truth


def test_a_frobenius_norm_may_be_the_smaller():
    layer = nn.Linear(100, 100, bias=False)
    layer.weight.data.zero_()
    layer.weight.data[0] = layer.weight.data[:, 0] = 1.0
    truth = float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2))
    assert truth <= absolute_norm(layer, (100,)) <= 1.45 * truth


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e-160, 1e150, 1e300])
def test_absolute_norms_of_every_scale(scale):
    layer = nn.Linear(3, 3, dtype=torch.float64)
    layer.weight.data = torch.ones(3, 3).double() * scale
    assert 3 * scale <= absolute_norm(layer, (3,)) <= max(3.01 * scale, 1e-300)


# Edges


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_zero_weights_have_no_error_but_underflow(dtype):
    layer = nn.Linear(5, 3, dtype=dtype)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    assert 0 < float(forward_error(layer, (5,), 1.0)) < 1e-30


def test_underflow_of_products():
    """1e-26 times 1e-20 is 0 in float32; all of the value is lost."""
    layer = nn.Linear(1000, 1, bias=False)
    layer.requires_grad_(False).weight.fill_(1e-26)
    x = torch.full((1, 1000), 1e-20)
    off = float(seen(layer, x))
    assert float(layer(x)) == 0 < off <= float(forward_error(layer, (1000,), 1e-18))


def test_underflow_of_squares():
    """The norm of a window of 1e-24 is computed as 0."""
    pool = layers.ScaledL2NormPool2d(2)
    x = torch.full((1, 1, 2, 2), 1e-24)
    assert (
        float(pool(x)) == 0 < float(seen(pool, x)) <= float(forward_error(pool, (1, 2, 2), 1e-23))
    )


@pytest.mark.parametrize("scale", [1e-200, 1e-150, 1e150])
def test_scales_of_float64(scale):
    layer = nn.Linear(9, 4, dtype=torch.float64)
    layer.weight.data *= scale
    layer.bias.data.zero_()
    x = torch.randn(50, 9, dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    bound = Fraction(float(forward_error(layer, (9,), 1.001)))
    found = layer(x).detach()
    rows = [[Fraction(v) for v in row] for row in layer.weight.tolist()]
    for sample, output in zip(x.tolist(), found.tolist(), strict=True):
        off = [
            Fraction(y) - sum(w * Fraction(v) for w, v in zip(row, sample, strict=True))
            for row, y in zip(rows, output, strict=True)
        ]
        assert sum(o * o for o in off) <= bound**2
    assert float(bound) <= max(1e-12 * scale, 1e-160)


def test_one_neuron():
    check(nn.Linear(1, 1), (1,), 2.0)


def test_no_layers():
    assert forward_errors(nn.Sequential(), (3,), 1.0) == []
    assert float(forward_error(nn.Sequential(), (3,), 1.0)) == 0


def test_no_rounding_at_reach_0_without_biases():
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    assert float(forward_error(model, (5,), 0.0)) < 1e-30


def test_one_error_for_each_part_of_nested_sequences():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2))
    errors = forward_errors(model, (4,), 1.0)
    assert len(errors) == 3
    assert torch.equal(errors[-1], forward_error(model, (4,), 1.0))
    assert all(error.dtype == torch.float64 and error.shape == () for error in errors)
    body = forward_errors(model[0], (4,), 1.0)
    assert body == errors[:2]


def test_it_grows_with_reach_and_depth():
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(5)))
    errors = [float(forward_error(model, (6,), reach)) for reach in (0.0, 1.0, 10.0, 1e5)]
    assert errors == sorted(errors)


@pytest.mark.parametrize("kind", ["orthogonal", "convex"])
def test_it_changes_nothing_and_draws_nothing(kind):
    model = onelip.export(network(kind)[0])
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    forward_error(model, (1, 8, 8), 1.0)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_no_random_number_is_drawn_for_a_series():
    layer = soc(image_size=6)
    state = torch.get_rng_state()
    forward_error(layer, (1, 6, 6), 1.0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_every_mode_of_autograd(context):
    layer = conv(2, 3, 3)
    expected = forward_error(layer, (2, 5, 5), 1.0)
    with context():
        assert torch.equal(forward_error(layer, (2, 5, 5), 1.0), expected)


def test_autocast_is_off():
    layer = conv(2, 3, 3)
    expected = forward_error(layer, (2, 5, 5), 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(forward_error(layer, (2, 5, 5), 1.0), expected)


# Size


def test_orthogonal_networks_in_float32_and_float64():
    """784-512-512-10 with inputs of length 10: 0.016 and 3e-11; about 4e-7 are seen in float32."""
    dense = [nn.Linear(784, 512), nn.Linear(512, 512), nn.Linear(512, 10)]
    for layer in dense:
        nn.init.orthogonal_(layer.weight)
    model = nn.Sequential(dense[0], nn.ReLU(), dense[1], nn.ReLU(), dense[2])
    assert 1e-3 < float(forward_error(model, (784,), 10.0)) < 3e-2
    assert 1e-12 < float(forward_error(model.double(), (784,), 10.0)) < 6e-11


# Refusals


def test_overflow():
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data.fill_(1e30)
    assert not torch.isfinite(layer(torch.full((1, 4), 1e9))).all()
    with pytest.raises(NonFiniteError, match=r"may overflow.*model\.double"):
        forward_error(layer, (4,), 2e9)
    assert math.isfinite(float(forward_error(layer.double(), (4,), 2e9)))


def test_overflow_on_the_way_to_a_finite_value():
    """1e38 * 4 - 1e38 * 4 overflows in one order of summation."""
    layer = nn.Linear(8, 1, bias=False)
    layer.weight.data = torch.tensor([[1e38] * 4 + [-1e38] * 4])
    with pytest.raises(NonFiniteError, match="may overflow"):
        forward_error(layer, (8,), 3.0)


def test_overflow_of_squares():
    pool = layers.ScaledL2NormPool2d(2)
    assert math.isfinite(float(forward_error(pool, (1, 2, 2), 1e18)))
    with pytest.raises(NonFiniteError, match="may overflow"):
        forward_error(pool, (1, 2, 2), 1e20)


def test_overflow_of_what_moves_only():
    with pytest.raises(NonFiniteError, match="may overflow"):
        forward_error(nn.Sequential(nn.ReLU()), (2,), 1e39)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_weights_that_are_not_finite(value):
    layer = nn.Linear(3, 2)
    layer.weight.data[0, 0] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        forward_error(layer, (3,), 1.0)
    layer = nn.Linear(3, 2)
    layer.bias.data[0] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        forward_error(layer, (3,), 1.0)


@pytest.mark.parametrize("reach", [-1.0, math.inf, math.nan])
def test_reach_is_a_length(reach):
    with pytest.raises(UsageError, match="length of an input"):
        forward_error(nn.Linear(3, 2), (3,), reach)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bits_are_refused(dtype):
    with pytest.raises(UsageError, match=r"model\.float"):
        forward_error(nn.Linear(3, 2, dtype=dtype), (3,), 1.0)


def test_mixed_precision_is_refused():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).double())
    with pytest.raises(UsageError, match="float32, float64"):
        forward_error(model, (3,), 1.0)


class Odd(nn.Linear):
    pass


@pytest.mark.parametrize(
    "model",
    [
        nn.LayerNorm(3),
        Odd(3, 3),
        layers.BjorckLinear(3, 3),
        nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)),
    ],
    ids=["LayerNorm", "Odd", "BjorckLinear", "ParametrizedLinear"],
)
def test_unknown_parts_are_refused(model):
    with pytest.raises(UnboundedModuleError, match=f"{type(model).__name__}.*level='real'"):
        forward_error(nn.Sequential(model.eval()), (3,), 1.0)


def test_fourier_layers_are_refused():
    layer = layers.FixedFourierConv2d(torch.ones(4, 3, 1, 1).cfloat(), None, image_size=4)
    with pytest.raises(UnboundedModuleError, match=r"FixedFourierConv2d.*level='real'"):
        forward_error(layer, (1, 4, 4), 1.0)


def test_hooks_are_refused():
    layer = nn.Linear(3, 2)
    layer.register_forward_hook(lambda *_: None)
    with pytest.raises(UnboundedModuleError, match="hook"):
        forward_error(layer, (3,), 1.0)


def test_an_activation_without_a_rule_in_a_gradient_step(monkeypatch):
    unknown = dataclasses.replace(RECORDS[nn.Mish], forward_error=None)
    monkeypatch.setitem(RECORDS, nn.Mish, unknown)
    step = layers.GradientStep(torch.randn(3, 2), torch.randn(3), nn.Mish(), torch.tensor(0.1))
    with pytest.raises(UnboundedModuleError, match="Mish"):
        forward_error(step, (2,), 1.0)


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="no NNPACK in this torch")
@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_winograd_is_refused():
    """Without oneDNN torch takes NNPACK for batches of 16: its errors are some 30 times larger."""
    layer = conv(16, 16, 3, padding=1)
    x = torch.randn(16, 16, 16, 16)
    direct = float(seen(layer, x).max())
    with torch.backends.mkldnn.flags(enabled=False):
        assert float(seen(layer, x).max()) > 2 * direct
        with pytest.raises(UnboundedModuleError, match="NNPACK"):
            forward_error(layer, (16, 16, 16), 1.0)
        forward_error(layer.double(), (16, 16, 16), 1.0)


def test_convolutions_elsewhere_are_refused():
    layer = layers.FixedConv2d(conv(1, 1, 1), image_size=None).to("meta")
    with pytest.raises(UnboundedModuleError, match="rounding on meta"):
        forward_error(layer, (1, 2, 2), 1.0)


def test_softplus_beyond_the_range_of_exp():
    assert math.isfinite(float(forward_error(nn.Softplus(threshold=80), (3,), 1.0)))
    with pytest.raises(UnboundedModuleError, match="threshold"):
        forward_error(nn.Softplus(threshold=200), (3,), 1.0)


def test_an_image_that_does_not_fit():
    with pytest.raises(ValueError, match="proved for images"):
        forward_error(layers.FixedConv2d(conv(1, 1, 1), image_size=(3, 3)), (1, 2, 2), 1.0)


def test_through_starts_anywhere():
    """The head behind a body: what is known of its input is an argument."""
    head = nn.Linear(4, 3)
    arithmetic = Arithmetic.of(torch.float32)
    clean = through(head, Computed((4,), 2.0), arithmetic)
    off = through(head, Computed((4,), 2.0, 0.5), arithmetic)
    norm = float(onelip.lipschitz_bound(head))
    assert off.error >= clean.error + norm * 0.5


def test_the_weight_in_use_counts_not_the_size_that_was_asked_first():
    layer = nn.Linear(1, 2)
    layer.weight = nn.Parameter(torch.full((2, 100_000), 0.1))
    x = torch.full((1, 100_000), 0.1)
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    error = float((layer(x).double() - exact).norm().detach())
    assert error <= float(forward_error(nn.Sequential(layer), (100_000,), float(x.norm())))


def test_a_kernel_that_meets_only_padding():
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    layer.weight.data.zero_()
    layer.weight.data[0, 0, 0, 0] = 1.0
    assert float(forward_error(nn.Sequential(layer), (1, 1, 1), 1.0)) < 1e-30


def test_convolutions_in_float32_on_other_processors_are_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    layer = nn.Sequential(nn.Conv2d(1, 1, 3))
    with pytest.raises(UnboundedModuleError, match="on arm64 a convolution in float32"):
        forward_error(layer, (1, 4, 4), 1.0)
    forward_error(layer.double(), (1, 4, 4), 1.0)


def test_code_that_is_compiled_in_place_rounds_in_an_unknown_order():
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    model[0].compile(backend="eager")
    with pytest.raises(UnboundedModuleError, match=r"compiled in place .model.compile"):
        forward_error(model, (2,), 1.0)
    assert forward_error(copy.deepcopy(model), (2,), 1.0) > 0
