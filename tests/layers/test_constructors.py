"""What constructors share: torch's arguments in torch's order, and where numbers are made."""

import inspect
import pickle
from functools import partial
from typing import get_type_hints

import pytest
import torch
from torch import nn

from onelip import flows, layers
from onelip.layers.constrained import ConstrainedConv2d
from onelip.layers.options import Conv2dOptions

PLAIN_CONVS = [layers.AOCConv2d, layers.AOLConv2d, layers.BCOPConv2d, layers.RKOConv2d]
SIZED_CONVS = [layers.OSSNConv2d, layers.ProjectedOSSNConv2d, layers.SVCMConv2d]
FOURIER_CONVS = [layers.BROConv2d, layers.CayleyConv2d, layers.LOTConv2d]
LINEAR = [
    layers.AOLLinear,
    layers.BROLinear,
    layers.BjorckLinear,
    layers.CayleyLinear,
    layers.CholeskyLinear,
    layers.UnitNormLinear,
    layers.SandwichLinear,
]
WITH_NUMBERS = {
    layers.AOCConv1d: partial(layers.AOCConv1d, 2, 3, 3),
    layers.AOCConvTranspose2d: partial(layers.AOCConvTranspose2d, 4, 2, 3),
    **{kind: partial(kind, 2, 3, 3) for kind in PLAIN_CONVS},
    **{kind: partial(kind, 2, 3, 3, image_size=4) for kind in SIZED_CONVS + FOURIER_CONVS},
    **{kind: partial(kind, 5, 3) for kind in LINEAR},
    layers.SOCConv2d: partial(layers.SOCConv2d, 2, 3, 3),
    layers.LiResNetConv2d: partial(layers.LiResNetConv2d, 2, image_size=4),
    layers.ConvexPotentialConv2d: partial(layers.ConvexPotentialConv2d, 2, 3, image_size=4),
    layers.ConvexPotentialLinear: partial(layers.ConvexPotentialLinear, 4, 3),
    layers.SLLConv2d: partial(layers.SLLConv2d, 2, 3),
    layers.SLLLinear: partial(layers.SLLLinear, 4, 3),
    layers.CurvePool2d: partial(layers.CurvePool2d, 4),
    layers.ProjectionPool2d: partial(layers.ProjectionPool2d, 4),
    layers.Householder: partial(layers.Householder, 4, order=2),
    layers.NActivation: partial(layers.NActivation, 3),
    layers.MLPHead: partial(layers.MLPHead, 4, 3, 6),
    layers.Normalize: partial(layers.Normalize, [0.1, 0], [1, 0.2]),
    layers.Rescale: partial(layers.Rescale, 1.5),
}
POTENTIALS = {
    flows.QuadraticPotential: partial(flows.QuadraticPotential, 3, 4),
    flows.RidgeConv2d: partial(flows.RidgeConv2d, 2, 3, image_size=4),
    flows.RidgeLinear: partial(flows.RidgeLinear, 3, 4),
    flows.SkewConv2d: partial(flows.SkewConv2d, 2, image_size=4),
    flows.SkewLinear: partial(flows.SkewLinear, 3),
}
WITHOUT_NUMBERS = [  # of their own: they have none, or take tensors and modules that are given
    layers.Abs,
    layers.ChannelMaxPool,
    layers.TruncateChannels,
    layers.FixedConv2d,
    layers.FixedFourierConv2d,
    layers.FixedSOCConv2d,
    layers.GradientStep,
    layers.GroupSort,
    layers.InvertibleDownsampling,
    layers.MaxMin,
    layers.Sandwich,
    layers.ScaledAvgPool2d,
    layers.ScaledL2NormPool2d,
    layers.ScaledMaxPool2d,
    layers.ZeroPadChannels,
]


def named(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.__name__)


def floating(module: nn.Module) -> list[torch.Tensor]:
    """The parameters and buffers that have a precision; counters have none."""
    tensors = [*module.parameters(), *module.buffers()]
    assert tensors
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def test_every_public_layer_is_listed():
    public = [getattr(layers, name) for name in layers.__all__]
    assert {kind for kind in public if isinstance(kind, type)} == {*WITH_NUMBERS, *WITHOUT_NUMBERS}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@named([*WITH_NUMBERS, *POTENTIALS])
def test_numbers_are_made_where_they_are_asked_for(kind, dtype):
    build = {**WITH_NUMBERS, **POTENTIALS}[kind]
    module = build(device="meta", dtype=dtype)
    assert all(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])
    assert {tensor.dtype for tensor in floating(module)} == {dtype}
    assert {tensor.dtype for tensor in floating(build(dtype=dtype))} == {dtype}


@named([*WITH_NUMBERS, *POTENTIALS])
def test_defaults_of_torch_are_respected(kind):
    build, before = {**WITH_NUMBERS, **POTENTIALS}[kind], torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert {tensor.dtype for tensor in floating(build())} == {torch.float64}
    finally:
        torch.set_default_dtype(before)
    with torch.device("meta"):
        assert all(tensor.is_meta for tensor in floating(build()))


def test_options_are_those_of_the_base():
    """A type, for callers, and the constructor that holds the defaults: neither forgets one."""
    hints = get_type_hints(ConstrainedConv2d.__init__)
    own = [
        name
        for name, parameter in inspect.signature(ConstrainedConv2d.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert {name: hints[name] for name in own} == {
        name: hint
        for name, hint in get_type_hints(Conv2dOptions).items()
        if name not in ("device", "dtype")
    }


@named([*PLAIN_CONVS, *SIZED_CONVS, *FOURIER_CONVS, layers.SOCConv2d])
def test_stride_is_positional_as_in_torch(kind):
    assert kind(1, 3, 3, 3, image_size=6).stride == 3


@named(PLAIN_CONVS + SIZED_CONVS)
def test_options_reach_the_convolution(kind):
    options = {"padding": 2, "padding_mode": "zeros", "dilation": 2, "groups": 2}
    layer = kind(4, 6, 3, bias=False, image_size=7, **options)
    assert layer.bias is None
    assert layer.image_size == (7, 7)
    assert {name: getattr(layer, name) for name in options} == options


@named([*FOURIER_CONVS, layers.SOCConv2d])
def test_an_option_that_a_family_does_not_have_is_named(kind):
    with pytest.raises(TypeError, match="dilation"):
        kind(2, 3, 3, image_size=4, dilation=2)


@named(LINEAR)
def test_bias_is_positional_as_in_torch(kind):
    assert kind(4, 3).bias is not None
    assert kind(4, 3, False).bias is None


RENAMED = {
    "onelip.layers.Absolute": layers.Abs,
    "onelip.layers.FirstChannels": layers.TruncateChannels,
    "onelip.layers.HouseHolder": layers.Householder,
    "onelip.layers.LastLayer": layers.UnitNormLinear,
    "onelip.layers.absolute.Absolute": layers.Abs,
    "onelip.layers.channels.FirstChannels": layers.TruncateChannels,
    "onelip.layers.householder.HouseHolder": layers.Householder,
    "onelip.layers.last_layer.LastLayer": layers.UnitNormLinear,
    "onelip.activations.Absolute": layers.Abs,
    "onelip.activations.MaxMin": layers.MaxMin,
}
"""Old places of layers, the last part of each as a pickled model names it."""


@pytest.mark.parametrize(("old", "new"), RENAMED.items(), ids=RENAMED)
def test_old_names_are_found_with_a_warning(old, new):
    module, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{old} is onelip.layers.{new.__name__} now"):
        assert pickle.loads(f"c{module}\n{name}\n.".encode()) is new


def test_a_name_that_never_was_is_no_attribute():
    with pytest.raises(AttributeError, match="'LastLayers'"):
        _ = layers.LastLayers
