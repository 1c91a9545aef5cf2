"""One row per public layer, and per torch module with a rule: what the contract is put to."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrizations

from onelip import layers


@dataclass(frozen=True)
class Case:
    id: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


def _convex(
    name: str, channels: int = 2, hidden: int = 3, size: int | tuple[int, int] = 4, **options
) -> Case:
    """A convolutional Convex Potential layer; ``options`` may hold the kernel's size."""
    kernel = options.pop("kernel_size", 3)
    height, width = (size, size) if isinstance(size, int) else size
    return Case(
        f"ConvexPotentialConv2d-{name}",
        lambda: layers.ConvexPotentialConv2d(channels, hidden, kernel, image_size=size, **options),
        (channels, height, width),
    )


def _dense(name: str, features: int = 5, hidden: int = 7, **options) -> Case:
    return Case(
        f"ConvexPotentialLinear-{name}",
        lambda: layers.ConvexPotentialLinear(features, hidden, **copy.deepcopy(options)),
        (features,),
    )


def _gradient_step(**options) -> layers.GradientStep:
    weight = 0.5 * torch.randn(3, 2, 3, 3)
    step = torch.tensor(0.05)
    return layers.GradientStep(weight, torch.randn(3), nn.ReLU(), step, **options)


def _small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 2), layers.MaxMin(), nn.Flatten(), nn.Linear(12, 3))


def _batch_norm(kind: type[nn.Module], channels: int, **options) -> nn.Module:
    module = kind(channels, **options)
    nn.init.normal_(module.running_mean)
    nn.init.uniform_(module.running_var, 0.01, 2)
    if module.affine:
        nn.init.normal_(module.weight)
    return module.eval()


def _kernel(
    name: str, shape: tuple[int, ...], kind: type[nn.Module], *arguments, **options
) -> Case:
    """A layer with a constrained kernel or matrix, and an activation of its own each time."""
    name = f"{kind.__name__}-{name}"
    return Case(name, lambda: kind(*arguments, **copy.deepcopy(options)), shape)


def _fixed_conv() -> layers.FixedConv2d:
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="circular")
    return layers.FixedConv2d(conv, image_size=(4, 4))


def _fixed_fourier(height: int, width: int) -> layers.FixedFourierConv2d:
    """Blocks that are Hermitian in no column."""
    spectrum = torch.randn(height, width // 2 + 1, 3, 2, dtype=torch.cfloat)
    return layers.FixedFourierConv2d(spectrum, torch.randn(3), image_size=(height, width))


def _fixed_soc() -> layers.FixedSOCConv2d:
    free = 0.2 * torch.randn(2, 2, 3, 3)
    skew = free - free.flip(2, 3).transpose(0, 1)
    return layers.FixedSOCConv2d(skew, torch.randn(2), 1, 2, padding_mode="zeros")


def _sandwich() -> layers.Sandwich:
    inner, outer, psi = torch.randn(3, 4), torch.randn(2, 3), 0.5 + torch.rand(3)
    return layers.Sandwich(inner, torch.randn(3), nn.Softplus(), outer, psi)


def _branch() -> nn.Module:
    """A block of three features that works in place."""
    return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3))


def _contraction() -> nn.Module:
    return nn.Sequential(_branch(), layers.Rescale(0.5, trained=False))


def _weights() -> list[torch.Tensor]:
    return [torch.tensor(0.3), torch.tensor(-0.7)]


CIRCULAR = {"padding_mode": "circular"}

LAYERS = [
    Case("HorizontalFlip", layers.HorizontalFlip, (2, 3, 4)),
    Case("Shift", lambda: layers.Shift(1, -2), (1, 3, 4)),
    Case("Shift-wrap", lambda: layers.Shift(-1, 1, wrap=True), (1, 3, 5)),
    Case(
        "Averaged",
        lambda: layers.Averaged([_small()], [nn.Identity(), layers.HorizontalFlip()]),
        (1, 3, 4),
    ),
    Case("Averaged-networks", lambda: layers.Averaged([_small(), _small()]), (1, 3, 4)),
    _kernel("square", (2, 4, 4), layers.AOCConv2d, 2, 2, 3),
    _kernel("stride", (2, 4, 4), layers.AOCConv2d, 2, 3, 3, stride=2),
    _kernel("stride-wide", (1, 6, 6), layers.AOCConv2d, 1, 5, 4, stride=2),
    _kernel("stride-3", (2, 3, 3), layers.AOCConv2d, 2, 4, 4, stride=3, image_size=3),
    _kernel("groups", (4, 3, 3), layers.AOCConv2d, 4, 6, 2, groups=2),
    _kernel("few-channels", (1, 4, 4), layers.AOCConv2d, 1, 2, 3, 2),
    _kernel("rectangle", (2, 4, 6), layers.AOCConv2d, 2, 3, (1, 3), (2, 3), "same"),
    _kernel("stride-dilation", (2, 6, 6), layers.AOCConv2d, 2, 3, 2, stride=3, dilation=2),
    _kernel("skips", (2, 4, 4), layers.AOCConv2d, 2, 2, 2, stride=2, dilation=2),
    _kernel("same", (2, 5), layers.AOCConv1d, 2, 3, 3),
    _kernel("dilation", (1, 6), layers.AOCConv1d, 1, 2, 2, 3, dilation=2),
    _kernel("stride-groups", (4, 6), layers.AOCConv1d, 4, 4, 4, stride=2, groups=2),
    _kernel("even-zeros", (2, 5), layers.AOCConv1d, 2, 3, 2, padding_mode="zeros"),
    _kernel("stride-odd", (3, 6), layers.AOCConv1d, 3, 2, 5, stride=3),
    _kernel("up", (4, 2, 3), layers.AOCConvTranspose2d, 4, 1, 4, stride=2),
    _kernel("times-stride", (4, 2, 3), layers.AOCConvTranspose2d, 4, 1, 3, 2, None),
    _kernel("cropped", (2, 3, 3), layers.AOCConvTranspose2d, 2, 1, (3, 2), (1, 2), 1, (0, 1)),
    _kernel("up-dilation", (2, 2, 3), layers.AOCConvTranspose2d, 2, 3, 2, 3, dilation=2),
    _kernel("odd", (2, 3, 3), layers.AOCConvTranspose2d, 2, 2, 3, stride=2, groups=2),
    _kernel("same", (2, 4, 4), layers.AOLConv2d, 2, 3, 3),
    _kernel("shrinks-odd", (3, 3, 5), layers.AOLConv2d, 3, 2, 2, image_size=(3, 5)),
    _kernel("stride", (2, 4, 4), layers.AOLConv2d, 2, 3, 3, stride=2),
    _kernel("stride-dilation", (1, 6, 6), layers.AOLConv2d, 1, 2, 3, stride=3, dilation=2),
    _kernel("stride-beyond", (1, 6, 6), layers.AOLConv2d, 1, 2, 2, stride=3),
    _kernel("groups-zeros", (4, 3, 3), layers.AOLConv2d, 4, 6, 3, groups=2, padding_mode="zeros"),
    _kernel("rectangle", (1, 4, 6), layers.AOLConv2d, 1, 3, (2, 3), (1, 2), padding=(1, 0)),
    _kernel("wide-padding", (1, 3, 3), layers.AOLConv2d, 1, 2, 3, padding=2),
    _kernel("thrice", (2, 4, 4), layers.AOLConv2d, 2, 3, 3, rescalings=3),
    _kernel("same", (2, 5), layers.AOLConv1d, 2, 3, 3),
    _kernel("stride-zeros", (2, 5), layers.AOLConv1d, 2, 3, 3, 2, 1, padding_mode="zeros"),
    _kernel("up", (2, 3, 2), layers.AOLConvTranspose2d, 2, 2, (3, 2), 2, (1, 0), groups=2),
    _kernel("narrow", (5,), layers.AOLLinear, 5, 3),
    _kernel("wide", (3,), layers.AOLLinear, 3, 5, bias=False),
    _kernel("square", (2, 4, 4), layers.BCOPConv2d, 2, 2, 3),
    _kernel("grows", (2, 3, 3), layers.BCOPConv2d, 2, 5, 3),
    _kernel("shrinks", (4, 3, 3), layers.BCOPConv2d, 4, 2, 2),
    _kernel("zeros", (3, 3, 3), layers.BCOPConv2d, 3, 3, 3, padding_mode="zeros"),
    _kernel("stride", (2, 4, 4), layers.BCOPConv2d, 2, 3, 4, stride=2),
    _kernel("rectangle", (2, 4, 6), layers.BCOPConv2d, 2, 3, (4, 3), (2, 3)),
    _kernel("dilation", (2, 5, 5), layers.BCOPConv2d, 2, 2, 3, dilation=2),
    _kernel("one-channel", (1, 4, 4), layers.BCOPConv2d, 1, 1, 3, bias=False),
    _kernel("1x1", (2, 2, 2), layers.BCOPConv2d, 2, 3, 1),
    _kernel("bjorck", (2, 3, 3), layers.BCOPConv2d, 2, 2, 2, orthogonalise=layers.bjorck),
    _kernel("same", (2, 5), layers.BCOPConv1d, 2, 3, 3),
    _kernel("stride-groups", (4, 6), layers.BCOPConv1d, 4, 2, 4, 2, groups=2),
    _kernel("wide", (4,), layers.BjorckLinear, 4, 6),
    _kernel("one-step", (4,), layers.BjorckLinear, 4, 3, iterations=1),
    _kernel("square", (2, 4, 4), layers.BROConv2d, 2, 2, 3, image_size=4),
    _kernel("grows-odd", (2, 3, 5), layers.BROConv2d, 2, 3, 2, image_size=(3, 5), rank=2),
    _kernel("stride", (1, 4, 4), layers.BROConv2d, 1, 3, 4, image_size=4, stride=2),
    _kernel("square", (5,), layers.BROLinear, 5, 5),
    _kernel("narrow", (5,), layers.BROLinear, 5, 3, rank=4),
    _kernel("wide", (3,), layers.BROLinear, 3, 6, bias=False),
    _kernel("square", (2, 4, 4), layers.CayleyConv2d, 2, 2, 3, image_size=4),
    _kernel("grows-odd", (2, 3, 5), layers.CayleyConv2d, 2, 3, 2, image_size=(3, 5)),
    _kernel("wraps", (3, 2, 1), layers.CayleyConv2d, 3, 2, 3, image_size=(2, 1), bias=False),
    _kernel("stride", (1, 4, 4), layers.CayleyConv2d, 1, 3, 4, image_size=4, stride=2),
    _kernel("narrow", (5,), layers.CayleyLinear, 5, 3),
    _kernel("wide", (3,), layers.CayleyLinear, 3, 5, bias=False),
    _kernel("narrow", (5,), layers.CholeskyLinear, 5, 3),
    _kernel("wide", (3,), layers.CholeskyLinear, 3, 5, bias=False),
    Case("Residual", lambda: layers.Residual(_branch(), 0.3), (3,)),
    Case("WeightedResidual", lambda: layers.WeightedResidual(_branch(), *_weights()), (3,)),
    Case("MeanSquareResidual", lambda: layers.MeanSquareResidual(_branch()), (3,)),
    Case("Split", lambda: layers.Split([nn.Identity(), _branch()], (1, 3)), (4,)),
    Case("Concatenated", lambda: layers.Concatenated([nn.Identity(), _branch()]), (3,)),
    Case("AdjointResidual", lambda: layers.AdjointResidual(layers.CholeskyLinear(4, 6)), (4,)),
    Case(
        "AdjointResidual-conv",
        lambda: layers.AdjointResidual(layers.AOCConv2d(2, 3, 3, bias=False), nn.Softplus()),
        (2, 3, 4),
    ),
    Case(
        "AdjointResidual-zeros",
        lambda: layers.AdjointResidual(
            layers.RKOConv2d(2, 3, 3, padding_mode="zeros", image_size=4), nn.LeakyReLU(0.2)
        ),
        (2, 4, 4),
    ),
    Case("InvertibleResidual", lambda: layers.InvertibleResidual(_contraction()), (3,)),
    Case("Monotone", lambda: layers.Monotone(nn.Linear(3, 1), (0, 2), slope=1.5), (3,)),
    Case("LPReLU", layers.LPReLU, (3,)),
    Case("LPReLU-channels", lambda: layers.LPReLU(2, -1.5), (2, 3)),
    Case("SoftHuber", layers.SoftHuber, (3,)),
    _kernel("wide", (3,), layers.FrobeniusLinear, 3, 4),
    _kernel("head", (4,), layers.FrobeniusLinear, 4, 1, bias=False, k=3.0),
    _kernel("same", (2, 4, 4), layers.FrobeniusConv2d, 2, 3, 3),
    _kernel("groups", (4, 4, 4), layers.FrobeniusConv2d, 4, 2, 3, stride=2, groups=2, k=0.5),
    Case("LayerCentering", lambda: layers.LayerCentering(2), (2, 3, 2)),
    Case("BatchCentering", lambda: layers.BatchCentering(2), (2, 3, 2)),
    Case("BatchCentering-vector", lambda: layers.BatchCentering(4, bias=False), (4,)),
    Case("ChannelShuffle", lambda: layers.ChannelShuffle(2), (6, 2)),
    Case("InvertibleUpsampling", lambda: layers.InvertibleUpsampling(2), (4, 1, 2)),
    Case("ScaledAdaptiveAvgPool2d", layers.ScaledAdaptiveAvgPool2d, (2, 3, 4)),
    Case("ScaledAdaptiveAvgPool2d-2", lambda: layers.ScaledAdaptiveAvgPool2d((3, 2)), (1, 3, 6)),
    Case("ScaledAdaptiveL2NormPool2d", layers.ScaledAdaptiveL2NormPool2d, (2, 3, 4)),
    Case("Accumulated", lambda: layers.Accumulated(nn.Linear(5, 3)), (5,)),
    Case("Accumulated-conv", lambda: layers.Accumulated(_fixed_conv()), (2, 4, 4)),
    Case("Accumulated-soc", lambda: layers.Accumulated(_fixed_soc()), (1, 4, 4)),
    Case("Accumulated-step", lambda: layers.Accumulated(_gradient_step()), (2, 4, 4)),
    Case("ChannelMaxPool", layers.ChannelMaxPool, (4, 2)),
    Case("FixedConv2d", _fixed_conv, (2, 4, 4)),
    Case("FixedFourierConv2d", lambda: _fixed_fourier(4, 4), (2, 4, 4)),
    Case("FixedFourierConv2d-odd", lambda: _fixed_fourier(2, 5), (2, 2, 5)),
    _kernel("square", (2, 4, 4), layers.LOTConv2d, 2, 2, 3, image_size=4),
    _kernel("one-step", (2, 3, 5), layers.LOTConv2d, 2, 3, 2, image_size=(3, 5), iterations=1),
    _kernel("stride", (1, 4, 4), layers.LOTConv2d, 1, 3, 4, image_size=4, stride=2),
    _kernel("same", (2, 4, 4), layers.OSSNConv2d, 2, 3, 3, image_size=4),
    _kernel("stride-odd", (1, 3, 6), layers.OSSNConv2d, 1, 2, 3, image_size=(3, 6), stride=3),
    _kernel("groups", (4, 3, 3), layers.OSSNConv2d, 4, 4, 2, image_size=3, groups=2),
    _kernel("zeros", (2, 3, 3), layers.OSSNConv2d, 2, 3, 3, image_size=3, padding_mode="zeros"),
    _kernel("same", (2, 4, 4), layers.ProjectedOSSNConv2d, 2, 3, 3, image_size=4),
    _kernel("same", (2, 4, 4), layers.RKOConv2d, 2, 3, 3),
    _kernel("stride", (2, 4, 4), layers.RKOConv2d, 2, 3, 4, stride=2),
    _kernel("rectangle", (2, 4, 4), layers.RKOConv2d, 2, 3, (2, 3), (2, 1), dilation=(3, 1)),
    _kernel("groups-zeros", (4, 3, 3), layers.RKOConv2d, 4, 4, 3, groups=2, padding_mode="zeros"),
    _kernel("same", (2, 5), layers.RKOConv1d, 2, 3, 3),
    _kernel("stride-dilation", (2, 6), layers.RKOConv1d, 2, 3, 2, 2, dilation=3, groups=1),
    _kernel("up", (4, 2, 3), layers.RKOConvTranspose2d, 4, 1, 2, 2),
    _kernel("cropped", (2, 3, 3), layers.RKOConvTranspose2d, 2, 3, 3, 2, None),
    Case("FixedSOCConv2d", _fixed_soc, (1, 3, 3)),
    _kernel("odd", (2, 3, 3), layers.SOCConv2d, 2, 2, 3),
    _kernel("even", (2, 4, 4), layers.SOCConv2d, 2, 2, 3, image_size=4, terms=5),
    _kernel("zeros", (2, 3, 4), layers.SOCConv2d, 2, 2, 3, padding_mode="zeros"),
    _kernel("grows-5x5", (2, 4, 3), layers.SOCConv2d, 2, 4, 5, image_size=(4, 3)),
    _kernel("shrinks", (4, 3, 3), layers.SOCConv2d, 4, 2, 3, padding_mode="zeros", image_size=3),
    _kernel("stride", (1, 4, 6), layers.SOCConv2d, 1, 3, 3, stride=2, bias=False),
    _kernel("stride-zeros", (1, 6, 4), layers.SOCConv2d, 1, 5, 3, stride=2, padding_mode="zeros"),
    _kernel("1x1", (3, 2, 2), layers.SOCConv2d, 3, 3, 1),
    _kernel("groups", (4, 3, 3), layers.SOCConv2d, 4, 6, 3, groups=2),
    _kernel("even-kernel", (2, 4, 4), layers.SOCConv2d, 2, 4, 4, 2, groups=2),
    _kernel("exact", (2, 3, 3), layers.SOCConv2d, 2, 3, 3, exact_gradient=True, terms=4),
    _kernel("long-turns", (2, 3, 3), layers.SOCConv2d, 2, 2, 3, correction=3.0),
    _convex("zeros"),
    _convex("circular", padding_mode="circular"),
    _convex("narrow", channels=3, hidden=1),
    _convex("wide", channels=1, hidden=6),
    _convex("1x1", kernel_size=1),
    _convex("5x5", kernel_size=5),
    _convex("5x5-circular", kernel_size=5, padding_mode="circular"),
    _convex("wraps", kernel_size=5, padding_mode="circular", size=3),
    _convex("not-square", size=(3, 5)),
    _convex("not-square-circular", size=(5, 3), padding_mode="circular"),
    _convex("tanh", activation=nn.Tanh()),
    _convex("fixed-step", step=1.0),
    _dense("relu"),
    _dense("narrow", features=6, hidden=2),
    _dense("tanh", activation=nn.Tanh()),
    _dense("softplus", activation=nn.Softplus()),
    _dense("leaky-relu", activation=nn.LeakyReLU(0.2)),
    _dense("steep-leaky-relu", activation=nn.LeakyReLU(3.0)),
    _dense("prelu", activation=nn.PReLU()),
    _dense("elu", activation=nn.ELU(1.5)),
    _dense("sigmoid", activation=nn.Sigmoid()),
    _dense("fixed-step", step=1.0),
    Case("Abs", layers.Abs, (3, 2)),
    Case("CurvePool2d", lambda: layers.CurvePool2d(4, 3), (4, 2, 2)),
    Case("CurvePool2d-point", lambda: layers.CurvePool2d(2, 1), (2,)),
    Case("TruncateChannels", lambda: layers.TruncateChannels(2), (3, 2, 2)),
    Case("GradientStep", _gradient_step, (2, 4, 4)),
    Case("GradientStep-sized", lambda: _gradient_step(image_size=(3, 4)), (2, 3, 4)),
    Case("GradientStep-circular", lambda: _gradient_step(padding_mode="circular"), (2, 3, 3)),
    Case("HalfAbs", lambda: layers.HalfAbs(4), (4, 2)),
    Case("HalfAbs-odd", lambda: layers.HalfAbs(3), (3,)),
    Case("GroupSort-3", lambda: layers.GroupSort(3), (6, 2, 2)),
    Case("GroupSort-all", lambda: layers.GroupSort(5), (5,)),
    Case("GroupSort-None", lambda: layers.GroupSort(None), (4, 2)),
    Case("Householder", lambda: layers.Householder(4), (4, 2, 2)),
    Case("Householder-2", lambda: layers.Householder(6, order=2), (6,)),
    Case("Householder-3", lambda: layers.Householder(2, order=3), (2, 3)),
    Case("InvertibleDownsampling", lambda: layers.InvertibleDownsampling(2), (2, 4, 4)),
    _kernel("zeros", (2, 4, 4), layers.LiResNetConv2d, 2, image_size=4),
    _kernel("circular", (3, 3, 3), layers.LiResNetConv2d, 3, image_size=3, padding_mode="circular"),
    Case("LipschitzExtension", lambda: layers.LipschitzExtension(3, 7), (3,)),
    Case("UnitNormLinear", lambda: layers.UnitNormLinear(4, 3), (4,)),
    Case("MLPHead", lambda: layers.MLPHead(4, 3, hidden=6), (4,)),
    Case("MLPHead-tanh", lambda: layers.MLPHead(3, 6, hidden=2, activation=nn.Tanh()), (3,)),
    Case("UnitNormLinear-wide", lambda: layers.UnitNormLinear(3, 6), (3,)),
    Case("UnitNormLinear-no-bias", lambda: layers.UnitNormLinear(4, 3, False), (4,)),
    Case("MaxMin", layers.MaxMin, (4, 3)),
    Case("NActivation", lambda: layers.NActivation(3), (3, 2, 2)),
    Case("Normalize", lambda: layers.Normalize([0.1, 0.2], [0.3, -0.2]), (2, 2, 2)),
    Case("Rescale", lambda: layers.Rescale(1.5), (3, 2)),
    Case("Rescale-fixed", lambda: layers.Rescale(-0.3, trained=False), (4,)),
    _kernel("relu", (5,), layers.SLLLinear, 5, 7),
    _kernel("narrow", (6,), layers.SLLLinear, 6, 2),
    _kernel("one-row", (4,), layers.SLLLinear, 4, 1),
    _kernel("leaky-relu", (4,), layers.SLLLinear, 4, 6, activation=nn.LeakyReLU(3.0)),
    _kernel("prelu", (4,), layers.SLLLinear, 4, 6, activation=nn.PReLU()),
    _kernel("zeros", (2, 4, 4), layers.SLLConv2d, 2, 3, 3, image_size=4),
    _kernel("any-size", (2, 3, 3), layers.SLLConv2d, 2, 3, 3),
    _kernel("odd", (2, 3, 5), layers.SLLConv2d, 2, 1, 5, image_size=(3, 5), **CIRCULAR),
    _kernel("1x1", (3, 2, 2), layers.SLLConv2d, 3, 5, 1, **CIRCULAR),
    _kernel("same", (2, 4, 4), layers.SVCMConv2d, 2, 3, 3, image_size=4),
    _kernel("stride-odd", (1, 6, 9), layers.SVCMConv2d, 1, 2, 4, image_size=(6, 9), stride=3),
    _kernel("groups", (4, 3, 3), layers.SVCMConv2d, 4, 4, 2, image_size=3, groups=2),
    _kernel("zeros", (2, 3, 3), layers.SVCMConv2d, 2, 3, 3, image_size=3, padding_mode="zeros"),
    Case("Sandwich", _sandwich, (4,)),
    _kernel("narrow", (5,), layers.SandwichLinear, 5, 3),
    _kernel("wide", (3,), layers.SandwichLinear, 3, 5, bias=False),
    _kernel("tanh", (3,), layers.SandwichLinear, 3, 3, activation=nn.Tanh()),
    _kernel("sigmoid", (3,), layers.SandwichLinear, 3, 3, activation=nn.Sigmoid()),
    _kernel("prelu", (4,), layers.SandwichLinear, 4, 3, activation=nn.PReLU()),
    Case("ProjectionPool2d", lambda: layers.ProjectionPool2d(4), (4, 2, 2)),
    Case("ProjectionPool2d-dense", lambda: layers.ProjectionPool2d(6), (6,)),
    Case("ScaledAvgPool2d", lambda: layers.ScaledAvgPool2d(2), (2, 4, 4)),
    Case("ScaledAvgPool2d-overlap", lambda: layers.ScaledAvgPool2d(3, 2), (1, 7, 7)),
    Case("ScaledAvgPool2d-pair", lambda: layers.ScaledAvgPool2d((2, 3), (2, 1)), (1, 4, 5)),
    Case("ScaledL2NormPool2d-pair", lambda: layers.ScaledL2NormPool2d((2, 3)), (1, 4, 6)),
    Case("ScaledMaxPool2d-pair", lambda: layers.ScaledMaxPool2d((2, 3), (1, 3)), (1, 4, 6)),
    Case("ScaledL2NormPool2d", lambda: layers.ScaledL2NormPool2d(2), (2, 4, 4)),
    Case("ScaledL2NormPool2d-overlap", lambda: layers.ScaledL2NormPool2d(3, 2), (1, 5, 5)),
    Case("ScaledMaxPool2d", lambda: layers.ScaledMaxPool2d(2), (2, 4, 4)),
    Case("ScaledMaxPool2d-overlap", lambda: layers.ScaledMaxPool2d(3, 1), (1, 5, 5)),
    Case("ZeroPadChannels", lambda: layers.ZeroPadChannels(4), (3, 2, 2)),
]


def _conv(name: str, shape: tuple[int, ...], *arguments, **options) -> Case:
    return Case(f"Conv2d-{name}", lambda: nn.Conv2d(*arguments, **options), shape)


def _elementwise(module: nn.Module) -> Case:
    return Case(repr(module).replace(" ", ""), lambda: module, (6,))


TORCH = [
    Case("Linear", lambda: nn.Linear(4, 3), (4,)),
    Case("Linear-without-bias", lambda: nn.Linear(2, 5, bias=False), (2,)),
    Case("Linear-orthogonal", lambda: parametrizations.orthogonal(nn.Linear(4, 4)), (4,)),
    _conv("valid", (2, 5, 5), 2, 3, 3),
    _conv("zeros", (2, 4, 4), 2, 3, 3, padding=1),
    _conv("circular", (2, 4, 4), 2, 3, 3, padding=1, padding_mode="circular"),
    _conv("stride", (2, 5, 5), 2, 3, 3, padding=1, stride=2),
    _conv("circular-stride", (1, 3, 3), 1, 1, 3, padding=1, padding_mode="circular", stride=2),
    _conv("circular-excess", (1, 2, 2), 1, 2, 1, padding=1, padding_mode="circular"),
    _conv("circular-even", (1, 1, 1), 1, 1, 2, padding=1, padding_mode="circular"),
    _conv("dilation", (1, 5, 5), 1, 2, 3, padding=2, dilation=2),
    _conv("groups", (4, 3, 3), 4, 4, 3, padding=1, groups=2),
    _conv("depthwise", (3, 3, 3), 3, 6, 3, padding="same", groups=3),
    _conv("even-same", (1, 4, 4), 1, 2, 4, padding="same"),
    _conv("not-square", (1, 4, 3), 1, 2, (1, 3), padding=(0, 2)),
    Case("Conv1d", lambda: nn.Conv1d(2, 3, 3, padding=1, stride=2), (2, 6)),
    Case(
        "Conv1d-circular",
        lambda: nn.Conv1d(2, 2, 2, padding="same", padding_mode="circular"),
        (2, 5),
    ),
    Case("ConvTranspose2d", lambda: nn.ConvTranspose2d(2, 3, 3), (2, 3, 3)),
    Case(
        "ConvTranspose2d-stride",
        lambda: nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        (2, 3, 2),
    ),
    Case("ConvTranspose2d-dilation", lambda: nn.ConvTranspose2d(1, 2, 2, dilation=2), (1, 3, 3)),
    Case("ConvTranspose1d", lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), (2, 4)),
    Case("ConvTranspose3d", lambda: nn.ConvTranspose3d(1, 2, 2, stride=2), (1, 2, 2, 2)),
    Case("Conv3d", lambda: nn.Conv3d(1, 2, 2, padding=1), (1, 2, 3, 2)),
    Case(
        "Conv2d-reflect", lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), (1, 3, 4)
    ),
    Case(
        "Conv1d-replicate",
        lambda: nn.Conv1d(2, 2, 3, padding=1, padding_mode="replicate"),
        (2, 5),
    ),
    Case("AvgPool2d", lambda: nn.AvgPool2d(2), (1, 4, 4)),
    Case("AvgPool2d-overlap", lambda: nn.AvgPool2d(3, stride=1, padding=1), (1, 4, 4)),
    Case("AvgPool2d-stride", lambda: nn.AvgPool2d((2, 3), stride=(3, 2)), (1, 5, 5)),
    Case("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d(1), (2, 4, 4)),
    Case("AvgPool2d-divisor", lambda: nn.AvgPool2d(2, divisor_override=3), (1, 4, 4)),
    Case("MaxPool2d", lambda: nn.MaxPool2d(2), (1, 4, 4)),
    Case("MaxPool2d-overlap", lambda: nn.MaxPool2d(3, stride=2, padding=1), (1, 5, 5)),
    Case("MaxPool2d-dilation", lambda: nn.MaxPool2d(2, stride=2, dilation=2), (1, 5, 5)),
    Case("MaxPool2d-ceil", lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True), (1, 6, 6)),
    Case("BatchNorm1d", lambda: _batch_norm(nn.BatchNorm1d, 4), (4,)),
    Case("BatchNorm2d", lambda: _batch_norm(nn.BatchNorm2d, 2), (2, 2, 2)),
    Case("BatchNorm2d-plain", lambda: _batch_norm(nn.BatchNorm2d, 2, affine=False), (2, 2, 2)),
    Case("Dropout", lambda: nn.Dropout(0.5), (4,)),
    Case("Flatten", nn.Flatten, (2, 2)),
    Case("PixelShuffle", lambda: nn.PixelShuffle(2), (4, 2, 2)),
    Case("ZeroPad2d", lambda: nn.ZeroPad2d(1), (1, 2, 2)),
    *map(
        _elementwise,
        [
            nn.ReLU(),
            nn.Tanh(),
            nn.Sigmoid(),
            nn.GELU(),
            nn.GELU(approximate="tanh"),
            nn.SiLU(),
            nn.Mish(),
            nn.SELU(),
            nn.Hardswish(),
            nn.Softsign(),
            nn.Softshrink(),
            nn.CELU(0.5),
            nn.ELU(-2.0),
            nn.LeakyReLU(-1.5),
            nn.PReLU(6),
        ],
    ),
    Case(
        "Sequential",
        lambda: nn.Sequential(
            layers.Normalize([0.5], [0.25]),
            nn.Conv2d(1, 4, 2, stride=2),
            layers.MaxMin(),
            layers.ConvexPotentialConv2d(4, 3, image_size=2),
            nn.Flatten(),
            layers.UnitNormLinear(16, 3),
        ),
        (1, 4, 4),
    ),
    Case("Sequential-shared", lambda: _twice(nn.Linear(3, 3)), (3,)),
]


def _twice(module: nn.Module) -> nn.Sequential:
    return nn.Sequential(module, nn.ReLU(), module)


CASES = LAYERS + TORCH
