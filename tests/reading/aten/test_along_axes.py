"""Operators along axes in a class's forward: the chain computes them, and its bound holds."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onelip import bounds
from onelip.errors import OnelipError
from onelip.reading import read
from onelip.testing import jacobian_norm

torch.manual_seed(0)
W, B = torch.rand(6, dtype=torch.float64) + 0.5, torch.randn(6, dtype=torch.float64)


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("w", W)
        self.register_buffer("b", B)

    def forward(self, x):
        return self.function(self, x)


READ = {
    "softmax": lambda _, x: x.softmax(1),
    "softmax of the last axis": lambda _, x: F.softmax(x, -1),
    "log-softmax": lambda _, x: F.log_softmax(x, 2),
    "sum": lambda _, x: x.sum((1, 3)),
    "sum of all": lambda _, x: x.sum((1, 2, 3)),
    "sum that keeps axes": lambda _, x: x.sum(-1, keepdim=True),
    "mean of channels": lambda _, x: x.mean(1),
    "mean of pixels": lambda _, x: x.mean((2, 3)),
    "largest": lambda _, x: x.amax((2, 3)),
    "smallest": lambda _, x: x.amin(1, keepdim=True),
    "largest of an axis": lambda _, x: x.max(2)[0],
    "largest of an axis, by name": lambda _, x: x.max(dim=1, keepdim=True).values,
    "smallest of an axis": lambda _, x: x.min(-1).values,
    "logsumexp": lambda _, x: x.logsumexp((1, 2)),
    "cumulative sum": lambda _, x: x.cumsum(2),
    "layer norm": lambda m, x: F.layer_norm(x.flatten(2).mT, (6,), m.w, m.b, 0.1),
    "layer norm without scale": lambda _, x: F.layer_norm(x, x.shape[2:], eps=0.3),
    "group norm": lambda m, x: F.group_norm(x, 3, m.w, m.b, 0.2),
    "instance norm": lambda m, x: F.instance_norm(x, weight=m.w, bias=m.b, eps=0.2),
    "nearest": lambda _, x: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda _, x: F.interpolate(x, size=(5, 7)),
    "nearest-exact": lambda _, x: F.interpolate(x, size=(5, 3), mode="nearest-exact"),
    "bilinear": lambda _, x: F.interpolate(x, size=(7, 6), mode="bilinear"),
    "bilinear, aligned": lambda _, x: F.interpolate(
        x, scale_factor=2, mode="bilinear", align_corners=True
    ),
    "linear": lambda _, x: F.interpolate(x.flatten(2), size=9, mode="linear"),
    "expand": lambda _, x: x[:, :, None].expand(-1, -1, 3, -1, -1),
    "repeat": lambda _, x: x.repeat(1, 2, 1, 3),
    "tile": lambda _, x: x.tile(1, 1, 2, 1),
    "roll": lambda _, x: x.roll((1, 2), (1, 3)),
    "movedim": lambda _, x: x.movedim(1, 3),
    "index_select": lambda _, x: x.index_select(1, torch.tensor([2, 0, 0])),
    "narrow": lambda _, x: x.narrow(2, 1, 2),
    "attention by constants": lambda m, x: m.w.softmax(0)[:, None, None] * x,
}


@pytest.mark.parametrize("name", READ)
def test_is_read_and_bounded(name):
    model = Of(READ[name]).eval()
    chain = read(model, (6, 3, 4)).exact()
    x = torch.randn(4, 6, 3, 4, dtype=torch.float64)
    x[1] *= 1e-3  # where a normalisation is steepest
    x[2] *= 10
    assert torch.allclose(chain.forward(x), model(x), rtol=1e-9, atol=1e-12)
    seen = max(float(jacobian_norm(model, one)) for one in x)
    bound = float(bounds.Product().bound(chain))
    assert seen <= bound * (1 + 1e-12)
    assert bound <= max(20 * seen, 1.0)


def test_softmax_and_layer_norm_have_their_constants():
    """1/2, and the steepest point of the normalisation: all numbers equal."""
    softmax = read(Of(READ["softmax"]).eval(), (6, 3, 4)).exact()
    assert float(bounds.Product().bound(softmax)) == pytest.approx(0.5, rel=1e-9)
    normal = read(Of(READ["layer norm without scale"]).eval(), (6, 3, 4)).exact()
    point = torch.full((6, 3, 4), 0.7, dtype=torch.float64)
    steepest = float(jacobian_norm(Of(READ["layer norm without scale"]), point))
    assert float(bounds.Product().bound(normal)) == pytest.approx(steepest, rel=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda _, x: x.softmax(0),
        lambda _, x: x.sum(0),
        lambda _, x: x.cumsum(0),
        lambda _, x: x.roll(1, 0),
        lambda _, x: x.max(1)[1].to(x.dtype),
        lambda _, x: x.repeat(2, 1, 1, 1),
        lambda _, x: F.layer_norm(x, (3, 4), weight=x[0, 0]),
        lambda _, x: F.interpolate(x, scale_factor=1.3),
        lambda _, x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    ],
)
def test_is_refused(function):
    with pytest.raises(OnelipError):
        read(Of(function).eval(), (6, 3, 4))
