"""Norms with torch's arguments against the materialised maps of torch's own modules."""

import itertools
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip import norms
from onelip.errors import UnboundedModuleError
from onelip.norms import convolutions
from tests.oracles import is_above, materialised, norm_below, sigma_max

FORWARD = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BACK = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {
    **{FORWARD[n]: getattr(norms, f"conv{n}d") for n in (1, 2, 3)},
    **{BACK[n]: getattr(norms, f"conv_transpose{n}d") for n in (1, 2, 3)},
}
PATHS = {
    "as it is": {},
    "by rows": {"_WRITTEN_OUT": 0},
    "symbol": {"_WRITTEN_OUT": 0, "_BY_ROWS": 0},
}


def random_setting(seed: int) -> tuple[nn.Module, dict[str, Any], tuple[int, ...]]:
    """A module of torch, its arguments, and a size of its input."""
    draw = random.Random(seed).randint
    axes = draw(1, 3)
    largest = {1: 9, 2: 6, 3: 4}[axes]

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(low, high) for _ in range(axes))

    groups = draw(1, 2)
    channels = groups * draw(1, 2), groups * draw(1, 2)
    arguments: dict[str, Any] = {
        "stride": each(1, 3) if draw(0, 1) else 1,
        "dilation": each(1, 2) if draw(0, 1) else 1,
        "groups": groups,
    }
    kind = [FORWARD, BACK][draw(0, 1)][axes]
    if kind in FORWARD.values():
        arguments["padding_mode"] = ("zeros", "circular", "reflect", "replicate")[draw(0, 3)]
        arguments["padding"] = each(0, 2)
        if draw(0, 3) == 0:
            arguments |= {"padding": ("same", "valid")[draw(0, 1)], "stride": 1}
    else:
        arguments |= {"padding": each(0, 2), "output_padding": each(0, 2)}
    module = kind(*channels, each(1, 4), bias=False, **arguments).double()
    torch.manual_seed(seed)
    weight = torch.randn_like(module.weight)
    kinds = [weight, weight.sign(), torch.ones_like(weight), weight * 10.0 ** draw(-12, 12)]
    module.weight.data = kinds[draw(0, 3)]
    return module, arguments, each(1, largest)


def matrix_of(module: nn.Module, size: tuple[int, ...]) -> Tensor | None:
    """The map on this size; None where torch refuses it."""
    transposed = isinstance(module, tuple(BACK.values()))
    channels = module.weight.shape[0] if transposed else module.weight.shape[1] * module.groups
    try:
        with torch.no_grad():
            matrix = materialised(module, (channels, *size))
    except RuntimeError:
        return None
    return matrix if matrix.numel() else None


def never_below(seed: int) -> bool:
    """Whether the setting exists; if it does, the bounds are compared with the exact norm."""
    module, arguments, size = random_setting(seed)
    matrix = matrix_of(module, size)
    function = NORMS[type(module)]
    if matrix is None:
        return False
    truth = sigma_max(matrix)
    known = function(module.weight, **arguments, input_size=size)
    assert float(known) >= truth * (1 - 1e-14), (seed, float(known), truth)
    if seed % 50 == 0:
        assert is_above(known, norm_below(matrix))
    if seed % 4 == 0:
        every = function(module.weight, **arguments)
        assert float(every) >= truth * (1 - 1e-14), (seed, float(every), truth)
        assert torch.equal(every, onelip.lipschitz_bound(module))
    return True


@pytest.mark.parametrize("first", [0, 200])
@pytest.mark.parametrize("path", PATHS)
def test_a_thousand_random_settings(path, first, monkeypatch):
    """Kernels even and odd, asymmetric "same", groups, dilation, strides beyond the kernel."""
    for name, value in PATHS[path].items():
        monkeypatch.setattr(convolutions, name, value)
    assert sum(never_below(seed) for seed in range(first, first + 200)) > 84


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_twenty_thousand_random_settings(path, monkeypatch):
    for name, value in PATHS[path].items():
        monkeypatch.setattr(convolutions, name, value)
    assert sum(never_below(seed) for seed in range(10_000, 24_000)) > 6000


def test_known_sizes_of_small_maps_are_exact():
    """All modes, transposed ones whose output padding drops windows, too."""
    found = 0
    for seed in range(1000, 1150):
        module, arguments, size = random_setting(seed)
        matrix = matrix_of(module, size)
        if matrix is None:
            continue
        bound = NORMS[type(module)](module.weight, **arguments, input_size=size)
        assert float(bound) <= sigma_max(matrix) * (1 + 1e-8) + 1e-140, seed
        found += 1
    assert found > 70


def test_every_size_is_at_most_one_percent_above_a_large_one(each):
    """Zero padding and circular padding, whose norms approach the supremum from below."""
    grid = itertools.product([1, 2, 3], [1, 2], [(1,), (3,), (4,)])
    for axes, stride, taps in each(grid):
        weight = torch.randn(2, 2, *taps * axes, dtype=torch.float64)
        large = {1: 512, 2: 64, 3: 24}[axes] * stride
        function = getattr(norms, f"conv{axes}d")
        every = float(function(weight, stride))
        near = float(
            norms.convolution(
                weight,
                stride=stride,
                image_size=large,
                padding=(taps[0] - 1) // 2,
                padding_mode="circular",
            )
        )
        slack = {1: 1e-4, 2: 5e-3, 3: 3e-2}[axes]  # of the finite size
        assert near * (1 - 1e-9) <= every <= near * (1 + slack) * 1.005
        transposed = getattr(norms, f"conv_transpose{axes}d")
        assert float(transposed(weight, stride)) == every


def test_one_axis_may_be_known():
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    for width in (1, 2, 5):
        half = float(norms.conv2d(weight, padding=1, input_size=(None, width)))
        assert half <= float(norms.conv2d(weight, padding=1)) * 1.005
        for height in (1, 3, 6):
            conv = lambda x: F.conv2d(x, weight, padding=1)  # noqa: E731
            truth = sigma_max(materialised(conv, (2, height, width)))
            assert half >= truth * (1 - 1e-14)


def test_the_positions_of_arguments_are_torchs():
    weight = torch.randn(4, 2, 3, 3)
    named = norms.conv2d(weight, stride=2, padding=1, dilation=2, groups=2)
    assert torch.equal(norms.conv2d(weight, 2, 1, 2, 2), named)
    named = norms.conv_transpose2d(
        weight, stride=3, padding=1, output_padding=1, groups=2, dilation=2
    )
    assert torch.equal(norms.conv_transpose2d(weight, 3, 1, 1, 2, 2), named)


def test_what_torch_refuses(each):
    kernel = torch.ones(2, 2, 3, 3)
    cases = [
        (lambda: norms.conv1d(kernel), "a kernel of 3 dimensions is needed"),
        (lambda: norms.conv2d(kernel, groups=3), "is no kernel of 3 groups"),
        (lambda: norms.conv2d(kernel, stride=0), "stride must be 2 numbers, at least 1"),
        (lambda: norms.conv2d(kernel, stride=(1, 2, 3)), "stride must be 2 numbers"),
        (lambda: norms.conv2d(kernel, padding="some"), "'same' or 'valid', got 'some'"),
        (lambda: norms.conv2d(kernel, padding=-1), "padding must be"),
        (lambda: norms.conv2d(kernel, input_size=2), "spans 3 pixels does not fit into 2"),
        (lambda: norms.conv2d(kernel, input_size=0), "size must be"),
        (lambda: norms.conv_transpose2d(kernel, output_padding=1), "below stride or dilation"),
        (lambda: norms.conv_transpose2d(kernel, padding=3, input_size=1), "leaves no output"),
        (
            lambda: norms.conv2d(kernel, padding=2, padding_mode="reflect", input_size=2),
            "reflect padding of 2 needs more than 2",
        ),
        (lambda: norms.conv2d(kernel.to(torch.complex64)), "complex kernel"),
    ]
    for call, message in each(cases):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(UnboundedModuleError, match="'nonsense' is none of"):
        norms.conv2d(kernel, padding_mode="nonsense")


def test_larger_maps_are_proved_too():
    """More than can be written out, with all that an axis may have, against power iteration."""
    torch.manual_seed(0)
    for mode in ("zeros", "circular", "reflect", "replicate"):
        conv = nn.Conv3d(4, 6, 3, padding=1, padding_mode=mode, bias=False).double()
        bound = float(onelip.lipschitz_bound(conv))
        x = torch.randn(1, 4, 7, 7, 7, dtype=torch.float64)
        for _ in range(60):
            x = x.detach().requires_grad_()
            y = conv(x)
            (x,) = torch.autograd.grad(y.square().sum() / 2, x)
            x = x / x.norm()
        estimate = float(conv(x.detach()).norm().detach())
        assert estimate <= bound <= estimate * (1.2 if mode in ("zeros", "circular") else 6)
    assert math.isfinite(bound)
