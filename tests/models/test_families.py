"""Networks of BCOP, LipConvnets and "1-Lipschitz Layers Compared", in every family."""

from collections import Counter

import pytest
import torch
from torch import nn

from onelip import export, layers, lipschitz_bound
from onelip.errors import UsageError
from onelip.layers import ChannelMaxPool, InvertibleDownsampling, MaxMin, Normalize
from onelip.models import (
    MODELS,
    convolutional_network,
    fc3,
    kw3,
    kw_large,
    kw_small,
    lip_convnet,
    simple_convnet,
)
from onelip.models.families import CONVOLUTIONS, convolution, linear

MEASURED = ("liresnet", "ossn", "svcm")  # their norm is what power steps or projections left
REFINED = ("cpl", "soc")  # export shortens steps, or adds terms of a series
DIGIT = (1, 8, 8)


def linear_maps(model: nn.Module) -> list[tuple[str, int, int]]:
    found = []
    for part in model.modules():
        if hasattr(part, "in_channels"):
            found.append((type(part).__name__, part.in_channels, part.out_channels))
        elif hasattr(part, "in_features"):
            found.append((type(part).__name__, part.in_features, part.out_features))
    return found


def test_kw_small_has_the_published_shape():
    assert linear_maps(kw_small((1, 28, 28), 10)) == [
        ("BCOPConv2d", 1, 16),
        ("BCOPConv2d", 16, 32),
        ("CholeskyLinear", 1568, 100),
        ("CholeskyLinear", 100, 10),
    ]


def test_kw_large_has_the_published_shape():
    model = kw_large((3, 32, 32), 10, convolution="rko")
    assert linear_maps(model) == [
        ("RKOConv2d", 3, 32),
        ("RKOConv2d", 32, 32),
        ("RKOConv2d", 32, 64),
        ("RKOConv2d", 64, 64),
        ("CholeskyLinear", 4096, 512),
        ("CholeskyLinear", 512, 512),
        ("CholeskyLinear", 512, 10),
    ]
    strides = [part.stride[0] for part in model if hasattr(part, "stride")]
    sizes = [part.kernel_size[0] for part in model if hasattr(part, "stride")]
    assert (strides, sizes) == ([1, 2, 1, 2], [3, 4, 3, 4])
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_kw3_is_three_times_as_wide():
    model = kw3((3, 8, 8), 10)
    assert isinstance(model[0], Normalize)
    assert [shape[2] for shape in linear_maps(model)] == [96, 96, 192, 192, 1536, 1536, 10]


def test_fc3_is_dense():
    model = fc3((1, 28, 28), 10)
    assert [shape[1:] for shape in linear_maps(model)] == [
        (784, 1024),
        (1024, 1024),
        (1024, 1024),
        (1024, 10),
    ]
    assert Counter(type(part) for part in model)[MaxMin] == 3


@pytest.mark.parametrize("depth", [5, 15])
def test_lip_convnet_has_one_layer_more_than_its_name(depth):
    model = lip_convnet((3, 32, 32), 10, depth=depth, channels=2, convolution="aoc")
    kinds = Counter(type(part) for part in model.modules())
    assert kinds[layers.AOCConv2d] == depth + 1
    assert kinds[ChannelMaxPool] == kinds[InvertibleDownsampling] == 5
    assert kinds[MaxMin] == 1 + 5 * (depth // 5 - 1)
    assert linear_maps(model)[-1] == ("AOCConv2d", 128, 128)
    assert model[-1].weight.shape == (10, 64)  # 2 channels, doubled by each of five blocks


@pytest.mark.parametrize("pooling", ["max", "projection", "stride"])
@pytest.mark.parametrize("family", ["bcop", "soc"])
def test_lip_convnet_with_every_pooling(family, pooling):
    torch.manual_seed(0)
    model = lip_convnet((3, 32, 32), 10, channels=4, convolution=family, pooling=pooling)
    _check(model, (3, 32, 32), family, scale=1 / 0.2507)


@pytest.mark.parametrize("family", CONVOLUTIONS)
def test_lip_convnet_in_every_family(family):
    torch.manual_seed(0)
    model = lip_convnet((3, 32, 32), 10, channels=2, convolution=family)
    images = torch.rand(2, 3, 32, 32)
    assert model(images).shape == (2, 10)
    assert export(model)(images).shape == (2, 10)


@pytest.mark.parametrize("family", CONVOLUTIONS)
def test_simple_convnet_in_every_family(family):
    torch.manual_seed(0)
    model = simple_convnet((1, 32, 32), 4, width=2, depth=1, convolution=family)
    images = torch.rand(2, 1, 32, 32)
    assert model(images).shape == (2, 4)
    assert export(model)(images).shape == (2, 4)
    kinds = Counter(type(part) for part in model.modules())
    assert kinds[MaxMin] == (0 if family in ("cpl", "sll") else 6)


@pytest.mark.parametrize("family", CONVOLUTIONS)
def test_kw_small_in_every_family(family):
    torch.manual_seed(0)
    _check(convolutional_network(DIGIT, 10, convolution=family), DIGIT, family)


@pytest.mark.parametrize("family", ["aol", "bjorck", "bro", "cayley", "cholesky"])
def test_dense_families(family):
    torch.manual_seed(0)
    model = fc3(DIGIT, 10, features=(20, 16), linear=family)
    _check(model, DIGIT, family)


@pytest.mark.parametrize(
    "name",
    ["absolute", "full-sort", "householder", "householder-2", "max-min", "n-activation", "relu"],
)
def test_activations(name):
    torch.manual_seed(0)
    _check(convolutional_network(DIGIT, 10, activation=name), DIGIT, "bcop")


def _check(model: nn.Module, shape: tuple[int, ...], family: str, scale: float = 1.0) -> None:
    """Shapes, gradients for every parameter, and the proved bound of the body."""
    images = torch.rand(4, *shape)
    logits = model.train()(images)
    assert logits.shape == (4, 10)
    logits[:, 0].sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    exported = export(model.eval())
    if family not in REFINED:
        torch.testing.assert_close(exported(images), model(images), atol=2e-4, rtol=1e-3)
    bound = float(lipschitz_bound(exported[:-1]))
    if family in MEASURED:
        assert bound < 3**7
    else:
        assert bound <= scale * (1 + 1e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: lip_convnet((3, 32, 32), 10, depth=7), "depth must be a positive multiple of 5"),
        (lambda: lip_convnet((1, 28, 28), 10), "32 does not divide 28 x 28"),
        (lambda: simple_convnet((3, 32, 32), 10, width=2), "width=2 must be even and hold the 3"),
        (lambda: simple_convnet((3, 32, 32), 10, depth=0), "depth=0 be positive"),
        (lambda: convolutional_network((1, 7, 7), 10), "a stride of 2 does not divide 7 x 7"),
        (lambda: convolutional_network(DIGIT, 10, convolution="conv"), "no convolution 'conv'; k"),
        (lambda: convolutional_network(DIGIT, 10, activation="gelu"), "no activation 'gelu'; kn"),
        (lambda: convolutional_network(DIGIT, 10, head="conv"), "no head 'conv'; known: unit-rows"),
        (lambda: fc3(DIGIT, 10, linear="dense"), "no linear 'dense'; known: aol"),
        (lambda: fc3(DIGIT, 10, features=(6,), head="truncate"), "6 features cannot be truncated"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(UsageError, match=message):
        build()


def test_families_with_an_activation_inside_get_no_other():
    parts = convolution("cpl", 3, 8, 3, image_size=(8, 8), stride=2, activation="max-min")
    assert [type(part) for part in parts] == [
        InvertibleDownsampling,
        layers.ConvexPotentialConv2d,
        layers.TruncateChannels,
    ]
    assert nn.Sequential(*parts)(torch.rand(1, 3, 8, 8)).shape == (1, 8, 4, 4)


def test_linear_families_are_orthogonal_or_short():
    for name in ("aol", "bjorck", "bro", "cayley", "cholesky"):
        layer = linear(name, 12, 5)
        assert torch.linalg.matrix_norm(layer.weight, 2) <= 1 + 1e-5


def test_every_model_is_callable_with_a_shape_and_classes():
    assert all(callable(model) for model in MODELS.values())
