"""Networks mCnF: the published shapes, and nothing in them but torch's own layers."""

from collections import Counter

import pytest
import torch
from torch import nn

from onelip import lipschitz_bound
from onelip.errors import UsageError
from onelip.layers import MaxMin, Normalize
from onelip.models import MODELS, c4f3, c6f2, c8f2, mcnf

CONVOLUTIONS = {
    "4c3f": "1-32-3-1-1 32-32-4-2-1 32-64-3-1-1 64-64-4-2-1",
    "6c2f": "3-32-3-1-1 32-32-4-2-1 32-64-3-1-1 64-64-4-2-1 64-64-3-1-1 64-64-4-2-1",
    "8c2f": "3-64-3-1-1 64-64-3-1-0 64-64-4-2-0 64-128-3-1-1 128-128-3-1-1 128-128-4-2-0 "
    "128-256-3-1-1 256-256-4-2-0",
}
DENSE = {
    "4c3f": [(64 * 7 * 7, 512), (512, 512), (512, 10)],
    "6c2f": [(64 * 4 * 4, 512), (512, 10)],
    "8c2f": [(256 * 6 * 6, 256), (256, 200)],
}
IMAGES = {"4c3f": ((1, 28, 28), 10), "6c2f": ((3, 32, 32), 10), "8c2f": ((3, 64, 64), 200)}
EVERY = pytest.mark.parametrize("name", IMAGES)


def described(part: nn.Conv2d) -> str:
    numbers = (part.in_channels, part.out_channels, part.kernel_size, part.stride, part.padding)
    assert (part.dilation, part.groups, part.padding_mode) == ((1, 1), 1, "zeros")
    return "-".join(str(n if isinstance(n, int) else n[0]) for n in numbers)


@EVERY
def test_published_shapes(name):
    shape, classes = IMAGES[name]
    model = MODELS[name](shape, classes)
    convolutions = [described(part) for part in model if type(part) is nn.Conv2d]
    dense = [(p.in_features, p.out_features) for p in model if type(p) is nn.Linear]
    assert convolutions == CONVOLUTIONS[name].split()
    assert dense == DENSE[name]
    assert name == f"{len(convolutions)}c{len(dense)}f"
    assert model(torch.rand(2, *shape)).shape == (2, classes)


@EVERY
def test_plain_layers_in_order(name):
    """ReLU behind every layer but the last; torch's own types, which every tool can read."""
    model = MODELS[name](*IMAGES[name])
    kinds = [type(part) for part in model]
    assert {*kinds} == {nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear}
    maps = [i for i, kind in enumerate(kinds) if kind in (nn.Conv2d, nn.Linear)]
    assert [kinds[i + 1] for i in maps[:-1]] == [nn.ReLU] * (len(maps) - 1)
    assert maps[-1] == len(kinds) - 1
    assert kinds.count(nn.Flatten) == 1


def test_every_stride_fits_the_image_of_8c2f():
    """The reason for its padding: no pixel is left over, so the adjoint has the image's size."""
    images = torch.rand(1, 3, 64, 64)
    for part in c8f2((3, 64, 64), 200, width=0.1):
        if isinstance(part, nn.Conv2d) and part.stride == (2, 2):
            assert (images.shape[2] + 2 * part.padding[0] - 4) % 2 == 0
        images = part(images)


@pytest.mark.parametrize(("name", "kind"), [("leaky-relu", nn.LeakyReLU), ("max-min", MaxMin)])
def test_activations(name, kind):
    model = c6f2((3, 16, 16), 10, activation=name, width=0.25)
    counted = Counter(type(part) for part in model)
    assert counted[kind] == 7
    assert counted[nn.ReLU] == 0
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize("width", [0.001, 0.1, 1 / 3, 1, 2.5])
def test_width(width):
    model = c4f3((1, 8, 8), 10, width=width, activation="max-min")
    sizes = [p.out_channels for p in model if isinstance(p, nn.Conv2d)]
    sizes += [p.out_features for p in model if isinstance(p, nn.Linear)][:-1]
    published = [32, 32, 64, 64, 512, 512]
    assert all(size % 2 == 0 and size >= 2 for size in sizes)  # MaxMin needs pairs
    for size, whole in zip(sizes, published, strict=True):
        assert abs(size - width * whole) <= (1 if width * whole > 1 else 2)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("scaling", "bound"),
    [({"mean": (0.5,) * 3, "std": (0.5, 0.25, 0.5)}, 4), ({"mean": (0.5,) * 3}, 1), ({}, None)],
)
def test_scaling_is_a_layer(scaling, bound):
    model = c6f2((3, 16, 16), 10, width=0.1, **scaling)
    assert isinstance(model[0], Normalize) == (bound is not None)
    if bound:
        assert float(lipschitz_bound(model[0])) == pytest.approx(bound, rel=1e-12)
    else:
        assert type(model[0]) is nn.Conv2d
    images = torch.rand(2, 3, 16, 16)
    mean = torch.tensor(scaling.get("mean", (0.0,) * 3)).view(3, 1, 1)
    std = torch.tensor(scaling.get("std", (1.0,) * 3)).view(3, 1, 1)
    body = model[1:] if scaling else model
    torch.testing.assert_close(model(images), body((images - mean) / std))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "gelu"}, "no activation 'gelu'; known: relu, leaky-relu, max-min"),
        ({"width": 0}, "width must be positive, got 0"),
        ({"width": float("nan")}, "width must be positive, got nan"),
        ({"width": float("inf")}, "width must be positive, got inf"),
        ({"input_shape": (1, 3, 3)}, "too small for 4 convolutions"),
        ({"blocks": ((8, 5, 1, 0),), "input_shape": (1, 8, 4)}, "too small for 1 convolution"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        mcnf(**{"input_shape": (1, 8, 8), "classes": 10, **arguments})
