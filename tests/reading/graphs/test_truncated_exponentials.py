"""Exponentials of skew convolutions in files have the layer's bound; what looks like one, not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import onelip
from onelip import layers
from onelip.bounds import Product
from onelip.layers.gradient_step import mirrored
from onelip.reading import read, read_program
from onelip.reading.graphs.truncated_exponentials import Polynomial
from onelip.testing import jacobian_norm


def program(model, shape):
    return torch.export.export(model.eval(), (torch.zeros(1, *shape),))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("mode", "stride"), [pytest.param("circular", 1, marks=pytest.mark.slow), ("zeros", 2)]
)
def test_a_layer_on_images_too_large_to_write_out(stride, mode):
    torch.manual_seed(0)
    layer = layers.SOCConv2d(2, 4, 3, image_size=24, stride=stride, padding_mode=mode)
    model = onelip.export(nn.Sequential(layer, nn.ReLU(), layers.SOCConv2d(4, 4, 3)))
    shape = (2, 24, 24)
    found = Product().bound(read_program(program(model, shape)))
    assert float(found) == pytest.approx(float(Product().bound(read(model, shape))), rel=2e-6)


class Series(nn.Module):
    """Horner's rule on a kernel, with one thing that can be wrong."""

    def __init__(self, wrong: str):
        super().__init__()
        kernel = torch.randn(3, 3, 3, 3).double()
        self.kernel = kernel - mirrored(kernel)
        self.wrong = wrong
        if wrong == "not skew":
            self.kernel[0, 0, 1, 1] += 1e-9
        self.other = self.kernel.clone()
        if wrong == "another kernel":
            self.other[0, 1] *= 1.5

    def forward(self, x):
        u = x
        for i in range(8, 0, -1):
            kernel = self.other if i == 3 else self.kernel
            step = 2.0 if self.wrong == "another factor" and i == 5 else 1.0
            start = 1.1 * x if self.wrong == "another start" and i == 2 else x
            u = start + step / i * F.conv2d(u, kernel, padding=1)
        return u


@pytest.mark.parametrize(
    "wrong", ["", "not skew", "another kernel", "another factor", "another start"]
)
def test_what_only_looks_like_one(wrong):
    torch.manual_seed(1)
    model = Series(wrong).double()
    x = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    chain = read_program(torch.export.export(model, (x,)))
    known = chain.last.norm() is not None
    assert known == (wrong == "")
    if known:
        assert isinstance(chain.last, Polynomial)
        truth = float(jacobian_norm(model, x[0]))
        assert truth * (1 - 1e-9) <= float(chain.last.norm()) <= truth * 3
    sample = torch.randn(4, 3, 4, 4, dtype=torch.float64)
    assert torch.allclose(chain.exact().forward(sample), model(sample), rtol=1e-9, atol=1e-9)
