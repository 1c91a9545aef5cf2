"""Weights that are orthogonal: matrices, and kernels whose map keeps lengths."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import onelip
from onelip.errors import UsageError
from onelip.parametrize import orthogonal
from tests.oracles import materialised
from tests.parametrize.test_lipschitz import exact, same_state, state_of, trained

LAYERS = [
    (lambda: nn.Linear(5, 7), (5,)),
    (lambda: nn.Linear(7, 2), (7,)),
    (lambda: nn.Conv1d(4, 6, 5, padding=2), (4, 9)),
    (lambda: nn.Conv1d(6, 4, 4, stride=3), (6, 9)),
    (lambda: nn.Conv1d(2, 3, 3, stride=2, dilation=3), (2, 12)),
    (lambda: nn.Conv2d(1, 2, 3, stride=2), (1, 6, 6)),
    (lambda: nn.Conv2d(2, 3, 2, stride=3), (2, 6, 6)),
    (lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), (4, 6, 6)),
    (lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2), (4, 6, 5)),
    (lambda: nn.Conv2d(3, 2, (2, 4), padding="same", padding_mode="circular"), (3, 5, 5)),
    (lambda: nn.Conv2d(1, 5, 3, padding=1), (1, 6, 6)),
    (lambda: nn.Conv2d(2, 8, 2, stride=2), (2, 6, 6)),
    (lambda: nn.Conv3d(2, 4, (1, 3, 2), padding=1), (2, 3, 3, 4)),
    (lambda: nn.ConvTranspose1d(4, 2, 4, stride=2), (4, 5)),
    (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 3, 4)),
    (lambda: nn.ConvTranspose3d(8, 2, 2, stride=2), (8, 2, 2, 3)),
]


def around(module: nn.Module, weight: Tensor, size: int) -> Tensor:
    """The matrix of the convolution on a torus, whose sides the strides divide."""
    count = weight.ndim - 2
    convolve = (F.conv1d, F.conv2d, F.conv3d)[count - 1]
    pad = [n for k in reversed(module.kernel_size) for n in (0, (k - 1) * module.dilation[0])]

    def run(x: Tensor) -> Tensor:
        x = F.pad(x, pad, mode="circular")
        return convolve(x, weight, None, module.stride, 0, module.dilation, module.groups)

    return materialised(run, (weight.shape[1] * module.groups, *(size * s for s in module.stride)))


def test_the_constant_is_one_up_to_rounding(each):
    for build, shape in each(LAYERS):
        module = trained(orthogonal(build()), shape, lr=0.1).eval()
        bound = float(onelip.lipschitz_bound(module))
        assert 1 - 1e-6 <= bound <= 1 + 1e-4, module
        assert exact(module, shape) <= bound


def test_every_singular_value_is_one(each):
    """On a torus; of matrices anyway."""
    for build, shape in each(LAYERS):
        module = trained(orthogonal(build().double()), shape).eval()
        weight = module.weight.detach()
        matrix = weight if weight.ndim == 2 else around(module, weight, 4)
        values = torch.linalg.svdvals(matrix)
        assert torch.allclose(values, torch.ones_like(values), atol=1e-9), module


def test_one_channel_to_one_is_a_shift():
    module = orthogonal(nn.Conv2d(4, 4, 3, padding=1, groups=4)).eval()
    values = torch.linalg.svdvals(around(module, module.weight.detach().double(), 6))
    assert torch.allclose(values, torch.ones_like(values), atol=1e-6)


def test_states_travel_and_queries_change_nothing(each):
    for build, shape in each(LAYERS):
        module, x = trained(orthogonal(build()), shape), torch.randn(2, *shape)
        fresh = orthogonal(build())
        fresh.load_state_dict(module.state_dict())
        assert torch.equal(fresh(x), module(x))
        before, first = state_of(module), module.eval()(x)
        bound, plain = onelip.lipschitz_bound(module), onelip.export(module)
        assert torch.equal(onelip.lipschitz_bound(fresh.eval()), bound)
        assert torch.equal(plain(x), first)
        assert torch.equal(onelip.lipschitz_bound(plain), bound)
        assert torch.equal(copy.deepcopy(module)(x), first)
        program = torch.export.export(module, (x,)).module()
        assert torch.allclose(program(x), first, atol=1e-5)
        assert same_state(before, state_of(module))


def test_all_parameters_learn():
    for build, shape in LAYERS:
        module = orthogonal(build())
        module(torch.randn(3, *shape)).pow(3).sum().backward()
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.any(), name


def test_an_orthogonal_matrix_may_be_assigned():
    module = orthogonal(nn.Linear(4, 6))
    wanted = torch.linalg.qr(torch.randn(6, 4)).Q
    module.weight = wanted
    assert torch.allclose(module.weight, wanted, atol=1e-5)


def test_what_is_refused():
    cases = [
        (nn.ReLU(), "ReLU is none of Linear"),
        (orthogonal(nn.Linear(2, 2)), "parametrized already"),
        (nn.Conv2d(2, 9, 2, stride=3), "reads 8 independent numbers for 9 channels"),
        (nn.Conv2d(2, 3, 3, stride=2, dilation=2), "reads 2 independent numbers for 3 channels"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "padding_mode='zeros'"),
        (nn.Conv2d(2, 2, 3, stride=2, padding=1, padding_mode="circular"), "may repeat pixels"),
        (nn.Conv1d(1, 4, 3, stride=2), "too few taps"),
    ]
    for module, message in cases:
        with pytest.raises(UsageError, match=message):
            orthogonal(module)


def test_torchs_orthogonal_of_a_convolution_is_not():
    """The negative control: it makes the last two axes of the kernel orthogonal."""
    conv = parametrizations.orthogonal(nn.Conv2d(8, 8, 3, padding=1, bias=False)).eval()
    assert float(onelip.lipschitz_bound(conv)) > 3
