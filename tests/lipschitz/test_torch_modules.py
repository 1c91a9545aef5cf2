"""Rules of torch's modules, and the settings without one."""

import math

import pytest
import torch
from torch import nn

from onelip import lipschitz_bound
from onelip.bounds import Product
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.layers import FixedConv2d
from onelip.reading import read
from tests.oracles import matrix_of, sigma_max


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


def _circular(kind, built_with, kernel=3, **later):
    """A convolution of one channel that wraps pixels, with settings that were changed later."""
    conv = kind(1, 1, kernel, padding=built_with, padding_mode="circular", dtype=torch.float64)
    for name, value in later.items():
        setattr(conv, name, value)
    return conv


def test_torch_wraps_the_pixels_that_it_noted_at_construction(each):
    """After ``padding`` was changed, or the kernel, the attribute says another number."""
    one = nn.Parameter(torch.ones(1, 1, 2, 2, dtype=torch.float64))
    convs = [
        _circular(nn.Conv2d, 3, padding=(0, 0)),
        _circular(nn.Conv2d, 3, padding="valid"),
        _circular(nn.Conv2d, 1, padding=(4, 4)),
        _circular(nn.Conv2d, "same", 4, padding=(0, 0)),
        _circular(nn.Conv2d, "same", 5, weight=one),
        _circular(nn.Conv2d, 3, padding=(0, 0), stride=(2, 2)),
        _circular(nn.Conv1d, 3, padding=(0,)),
    ]
    for conv in each(convs):
        shape = (1, 4) if isinstance(conv, nn.Conv1d) else (1, 4, 4)
        norm = sigma_max(matrix_of(conv, shape))
        assert norm <= float(lipschitz_bound(conv)) * (1 + 1e-14)
        chain, images = read(conv, shape), torch.randn(3, *shape, dtype=torch.float64)
        torch.testing.assert_close(chain.forward(images), conv(images))
        assert norm <= float(Product(any_size=False).bound(chain.exact())) * (1 + 1e-14)
        if isinstance(conv, nn.Conv2d) and conv.stride == (1, 1):
            fixed = FixedConv2d(conv, image_size=(4, 4))
            assert norm <= float(lipschitz_bound(fixed)) * (1 + 1e-14)


def test_uneven_wrapping_for_another_kernel_is_refused():
    conv = _circular(nn.Conv2d, "same", 4, weight=nn.Parameter(torch.ones(1, 1, 1, 1).double()))
    for ask in (lipschitz_bound, lambda part: read(part, (1, 4, 4))):
        with pytest.raises(UnboundedModuleError, match="Conv2d wraps more pixels on one side"):
            ask(conv)
