"""Models: the numbers of the paper, and what becomes of them."""

import inspect
from collections import Counter

import pytest
import torch
from torch import nn

from onelip import export, lipschitz_bound
from onelip.layers import (
    ConvexPotentialConv2d,
    ConvexPotentialLinear,
    Normalize,
    TruncateChannels,
    UnitNormLinear,
)
from onelip.models import MODELS, convex_potential_network

SMALL = {
    "conv_layers": 2,
    "channels": 6,
    "hidden_channels": 4,
    "pool": 2,
    "linear_layers": 2,
    "features": 12,
}


def small(**changes):
    torch.manual_seed(0)
    return convex_potential_network((1, 8, 8), 10, **{**SMALL, **changes})


TABLE_1 = [
    ("cpl_s", 20, 45, 7, 2048),
    ("cpl_m", 30, 60, 10, 2048),
    ("cpl_l", 90, 60, 15, 4096),
    ("cpl_xl", 120, 70, 15, 4096),
]


@pytest.mark.parametrize(("name", "convolutions", "channels", "dense", "features"), TABLE_1)
def test_numbers_of_table_1(name, convolutions, channels, dense, features):
    numbers = inspect.signature(MODELS[name]).parameters
    expected = {
        "conv_layers": convolutions,
        "channels": channels,
        "linear_layers": dense,
        "features": features,
        "hidden_channels": 5,
        "kernel_size": 3,
        "head": "truncate",
        "step": None,
    }
    assert {key: numbers[key].default for key in expected} == expected


@pytest.mark.parametrize(("name", "convolutions", "channels", "dense", "features"), TABLE_1)
def test_layers_of_table_1(monkeypatch, name, convolutions, channels, dense, features):
    monkeypatch.setattr(ConvexPotentialConv2d, "reset_parameters", lambda self: None)
    monkeypatch.setattr(ConvexPotentialLinear, "reset_parameters", lambda self: None)
    model = MODELS[name]((3, 32, 32), 10)  # gigabytes that nobody touches
    kinds = Counter(type(part) for part in model)
    assert kinds[ConvexPotentialConv2d] == convolutions
    assert kinds[ConvexPotentialLinear] == dense
    width = channels * 8 * 8
    for part in model:
        if isinstance(part, ConvexPotentialConv2d):
            assert part.weight.shape == (5, channels, 3, 3)
            assert part.image_size == (32, 32)
        elif isinstance(part, ConvexPotentialLinear):
            assert part.weight.shape == (features, width)
    assert isinstance(model[0], Normalize)
    assert isinstance(model[-1], TruncateChannels)
    parameters = convolutions * (45 * channels + 5) + dense * features * (width + 1)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_small_models_are_small():
    for name, shape in (("cpl_digits", (1, 8, 8)), ("cpl_mnist", (1, 28, 28))):
        model = MODELS[name](shape, 10)
        assert isinstance(model[-1], UnitNormLinear)
        assert sum(p.numel() for p in model.parameters()) < 6e6
        assert model(torch.rand(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("head", ["truncate", "unit-rows"])
def test_exported_is_1_lipschitz_up_to_the_head(padding_mode, head):
    model = small(padding_mode=padding_mode, head=head)
    images = torch.rand(5, 1, 8, 8)
    for _ in range(3):  # long steps towards large weights
        loss = -model.train()(images).square().sum()
        for parameter, slope in zip(
            model.parameters(), torch.autograd.grad(loss, [*model.parameters()]), strict=True
        ):
            parameter.data -= 10 * slope
    exported = export(model.eval())
    assert lipschitz_bound(exported[:-1]) == 1
    assert all(lipschitz_bound(part) == 1 for part in exported[:-1])
    if head == "truncate":
        assert lipschitz_bound(exported) == 1
    allowed = float(lipschitz_bound(exported)) * (1 + 1e-4)
    pairs = images[:-1], images[1:]
    distance = (exported(pairs[0]) - exported(pairs[1])).norm(dim=1)
    assert (distance <= allowed * (pairs[0] - pairs[1]).flatten(1).norm(dim=1)).all()


def test_head_with_unit_rows():
    model = small(head="unit-rows")
    assert isinstance(model[-1], UnitNormLinear)
    model[-1].raw_weight.data *= torch.linspace(0.1, 7, 10)[:, None]
    head = export(model)[-1]
    assert type(head) is nn.Linear
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(10))
    features = torch.rand(3, head.in_features)
    torch.testing.assert_close(head(features), model[-1](features))


def test_truncating_head_keeps_the_first_features():
    model = small()
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.eval()(images), model[:-1](images)[:, :10])


def test_the_mean_is_subtracted_inside():
    plain, shifted = small().eval(), small(mean=(0.5,)).eval()
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(shifted(images), plain(images - 0.5))
    assert 1 <= lipschitz_bound(shifted[0]) < 1 + 1e-15


def test_fixed_step():
    short, long = small(step=1e-3), small(step=100.0)
    parts = [part for part in short if isinstance(part, ConvexPotentialConv2d)]
    assert [float(part.step()) for part in parts] == pytest.approx([1e-3] * 2)
    assert lipschitz_bound(export(short)) == 1
    bound = lipschitz_bound(export(long))
    assert bound > 10  # a relaxed network stays relaxed, and says so
    assert bound == pytest.approx(float(lipschitz_bound(long.eval())), rel=1e-6)


def test_dense_network():
    model = small(conv_layers=0)
    kinds = Counter(type(part) for part in model)
    assert kinds == {nn.Flatten: 1, ConvexPotentialLinear: 2, TruncateChannels: 1}
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_a_thousand_layers():
    """Depth is a number: no signal vanishes or explodes (appendix D.1)."""
    model = small(conv_layers=1000, channels=4, hidden_channels=1, linear_layers=1).eval()
    assert sum(isinstance(part, ConvexPotentialConv2d) for part in model) == 1000
    with torch.no_grad():
        logits = model(torch.rand(2, 1, 8, 8))
    assert logits.isfinite().all()
    assert logits.norm() > 1e-3
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": 3}, "pool=3 does not divide an image of 8 x 8"),
        ({"pool": 0}, "pool must be at least 1"),
        ({"conv_layers": -1}, "conv_layers must be at least 0"),
        ({"linear_layers": -1}, "linear_layers must be at least 0"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"hidden_channels": 0}, "hidden_channels must be at least 1"),
        ({"features": 0}, "features must be at least 1"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"kernel_size": -1}, "kernel_size must be at least 1"),
        ({"mean": (0.5, 0.5)}, "per channel"),
        ({"step": 0.0}, "step must be positive"),
        ({"channels": 1, "pool": 8}, "1 features cannot be truncated to 10 logits: unit-rows"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_fewer_channels_than_the_image():
    with pytest.raises(ValueError, match="channels must be at least 3, got 2"):
        convex_potential_network((3, 8, 8), 2, conv_layers=1, channels=2)
