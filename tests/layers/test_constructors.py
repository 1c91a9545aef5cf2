"""What constructors share: torch's arguments in torch's order, and where numbers are made."""

import inspect
import pickle
from collections.abc import Callable
from typing import get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import flows, layers
from onelip.layers.composite import Composite
from onelip.layers.constrained import ConstrainedConv2d
from onelip.layers.options import Conv2dOptions
from onelip.testing import check_layer
from tests.cases import LAYERS

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
POTENTIALS = {
    flows.QuadraticPotential: lambda: flows.QuadraticPotential(3, 4),
    flows.RidgeConv2d: lambda: flows.RidgeConv2d(2, 3, image_size=4),
    flows.RidgeLinear: lambda: flows.RidgeLinear(3, 4),
    flows.SkewConv2d: lambda: flows.SkewConv2d(2, image_size=4),
    flows.SkewLinear: lambda: flows.SkewLinear(3),
}


def named(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.__name__)


def numbers(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers that a layer has made, not those of a module that was given."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [tensor for name, tensor in tensors if not name.startswith(("activation.", "block."))]


def takes_tensors(kind: type[nn.Module]) -> bool:
    """Whether a constructor is given its numbers, by themselves or in a module."""
    hints = get_type_hints(kind.__init__).values()
    given = issubclass(kind, Composite) and kind is not layers.Residual
    given |= kind in (layers.Accumulated, layers.AdjointResidual)
    return given or any(hint is Tensor or hint is nn.Conv2d for hint in hints)


def makers() -> dict[type[nn.Module], Callable[[], nn.Module]]:
    """A factory for each class that makes numbers: of the contract's table, and of flows."""
    rows = {}
    for case in LAYERS:
        layer = case.build()
        if numbers(layer) and not takes_tensors(type(layer)):
            rows.setdefault(type(layer), case.build)
    return rows | POTENTIALS


MAKERS = makers()


@named(MAKERS)
def test_numbers_are_made_where_they_are_asked_for(kind, monkeypatch):
    init, factory = kind.__init__, {}
    monkeypatch.setattr(kind, "__init__", lambda *a, **options: init(*a, **options, **factory))
    for device, dtype in (("cpu", torch.float64), ("meta", torch.float64), ("meta", torch.half)):
        factory |= {"device": device, "dtype": dtype}
        made = numbers(MAKERS[kind]())
        assert {tensor.device.type for tensor in made} == {device}
        assert {tensor.dtype for tensor in made if tensor.is_floating_point()} == {dtype}


@named(MAKERS)
def test_defaults_of_torch_are_respected(kind):
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            made = numbers(MAKERS[kind]())
    finally:
        torch.set_default_dtype(before)
    assert all(tensor.is_meta for tensor in made)
    assert {tensor.dtype for tensor in made if tensor.is_floating_point()} == {torch.float64}


@named([layers.AOLLinear, layers.BjorckLinear, layers.UnitNormLinear])
def test_orthogonal_to_begin_with_in_half_precision(kind):
    """``nn.init.orthogonal_`` has none."""
    weight = kind(8, 4, dtype=torch.bfloat16).raw_weight.double().reshape(-1, 4)
    weight = weight if kind is layers.BjorckLinear else weight.reshape(4, 8).T
    assert torch.allclose(weight.T @ weight, torch.eye(4).double(), atol=0.02)


def test_options_are_those_of_the_base():
    """A type, for callers, and the constructor that holds the defaults: neither forgets one."""
    plain = list(inspect.signature(nn.Conv2d.__init__).parameters)[:10]
    assert list(inspect.signature(ConstrainedConv2d.__init__).parameters)[:10] == plain
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
    assert kind(1, 3, 3, 3, image_size=6).stride in (3, (3, 3))


@named(PLAIN_CONVS + SIZED_CONVS)
def test_options_reach_the_convolution(kind):
    options = {"padding": 2, "padding_mode": "zeros", "dilation": 2, "groups": 2}
    layer = kind(4, 6, 3, bias=False, image_size=7, **options)
    plain = nn.Conv2d(4, 6, 3, bias=False, **options)
    assert layer.bias is None
    assert layer.image_size == (7, 7)
    assert {name: getattr(layer, name) for name in options} == {
        name: getattr(plain, name) for name in options
    }


TORCH_ARGUMENTS = (4, 6, (3, 2), (1, 2), (1, 0), (2, 1), 2, False, "zeros")


@named(PLAIN_CONVS + SIZED_CONVS)
def test_arguments_by_position_as_in_torch(kind):
    """In pairs; with a stride along one axis."""
    arguments, names = TORCH_ARGUMENTS, ("kernel_size", "stride", "padding", "dilation", "groups")
    plain = nn.Conv2d(*arguments)
    layer = kind(*arguments, image_size=(9, 8))
    assert [getattr(layer, name) for name in names] == [getattr(plain, name) for name in names]
    assert layer.padding_mode == "zeros"
    assert layer.bias is None
    x = torch.randn(2, 4, 9, 8)
    assert layer(x).shape == plain(x).shape
    plain.weight = nn.Parameter(layer.weight.detach())
    assert torch.allclose(layer(x), plain(x), atol=1e-6)
    assert torch.allclose(onelip.export(layer)(x), plain(x), atol=1e-4)
    check_layer(kind(2, 2, (1, 4), (1, 2), image_size=(3, 4)), (2, 3, 4))


def test_sizes_of_numpy_and_lists_are_whole_numbers_too():
    layer = layers.AOCConv2d(2, 3, [np.int64(3), 1], np.int64(1))
    assert (layer.kernel_size, layer.stride) == ((3, 1), (1, 1))
    assert layers.AOCConv1d(2, 3, [3], (1,)).kernel_size == (1, 3)
    with pytest.raises(ValueError, match="must be one whole number"):
        layers.AOCConv1d(2, 3, (3, 3))


@named(PLAIN_CONVS + SIZED_CONVS)
def test_the_same_size_divided_by_the_stride(kind):
    layer = kind(2, 3, (2, 3), (2, 1), "same", image_size=(6, 4))
    assert layer(torch.zeros(1, 2, 6, 4)).shape == (1, 3, 3, 4)
    with pytest.raises(ValueError, match="beside one of a stride needs an odd kernel_size, got 4"):
        kind(2, 3, 4, (2, 1), "same", image_size=(6, 4))


@named([*FOURIER_CONVS, layers.SOCConv2d])
def test_pairs_of_equal_numbers_and_a_refusal_of_others(kind):
    assert kind(1, 3, (3, 3), (1, 1), image_size=6).kernel_size == 3
    with pytest.raises(ValueError, match=r"kernel_size=\(3, 5\) differs along the axes"):
        kind(1, 3, (3, 5), image_size=6)
    with pytest.raises(ValueError, match=r"stride=\(1, 2\) differs along the axes"):
        kind(1, 3, 3, (1, 2), image_size=6)


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
