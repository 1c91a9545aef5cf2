"""Rules of torch's modules, and the settings without one."""

import math

import pytest
import torch
from torch import nn

from onelip import lipschitz_bound
from onelip.errors import NonFiniteError, UnboundedModuleError


@pytest.mark.parametrize(
    "kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout]
)
def test_dropout(kind):
    assert float(lipschitz_bound(kind().eval())) == 1
    with pytest.raises(UnboundedModuleError, match=rf"{kind.__name__} is random in training"):
        lipschitz_bound(kind())


def test_batch_norm():
    layer = nn.BatchNorm2d(2)
    with pytest.raises(UnboundedModuleError, match="divides by batch statistics"):
        lipschitz_bound(layer)
    with pytest.raises(UnboundedModuleError, match="track_running_stats"):
        lipschitz_bound(nn.BatchNorm2d(2, track_running_stats=False).eval())
    layer.eval()
    layer.running_var.copy_(torch.tensor([4.0, 0.25]))
    layer.weight.data = torch.tensor([8.0, -3.0])
    assert float(lipschitz_bound(layer)) == pytest.approx(6, rel=1e-4)
    layer.running_var.fill_(-1.0)
    with pytest.raises(NonFiniteError):
        lipschitz_bound(layer)
    layer.running_var.fill_(math.nan)
    with pytest.raises(NonFiniteError):
        lipschitz_bound(layer)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.AvgPool2d(3, ceil_mode=True), "divides by less at the border"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), "count_include_pad=True"),
        (nn.MaxPool2d(2, return_indices=True), "return_indices=False"),
        (nn.CELU(-1.0), "steep without limit"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_settings_without_a_bound(module, message):
    with pytest.raises(UnboundedModuleError, match=message):
        lipschitz_bound(module)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_weights(value):
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        lipschitz_bound(nn.Sequential(layer))


def test_the_bias_does_not_matter():
    layer = nn.Linear(2, 2)
    before = lipschitz_bound(layer)
    layer.bias.data.fill_(1e30)
    assert torch.equal(before, lipschitz_bound(layer))
