"""Adaptive orthogonal convolutions: the two convolutions they compose, orthogonality, adjoints.

orthogonium puts the matrix of its BCOP part on the side of the input. Moved to the other end it is
absorbed: its kernels are ours with the strided matrix times that matrix, and the projectors turned
by it, for ``out <= in stride^2``. Beyond, it has more channels between the two convolutions than
ours, and no mapping exists. With kernels as large as the stride its layer is RKO, and with stride 1
BCOP: those are compared in ``test_rko.py`` and ``test_bcop.py``.
"""

import itertools
import math
from functools import partial

import pytest
import torch
from orthogonium.layers.conv.AOC import BcopRkoConv2d, BcopRkoConvTranspose2d
from orthogonium.model_factory.classparam import ClassParam
from orthogonium.reparametrizers import BatchedIdentity, BatchedQROrthogonalization, OrthoParams
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip import norms
from onelip.errors import UnboundedModuleError
from onelip.layers import (
    AOCConv1d,
    AOCConv2d,
    AOCConvTranspose2d,
    AOLConvTranspose2d,
    BCOPConv2d,
    RKOConvTranspose2d,
    bjorck,
)
from onelip.layers.block_convolution import block_kernel, strided_kernel
from tests.oracles import materialised, matrix_of, sigma_max


def redrawn(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.double()


def orthonormal(*shape: int) -> Tensor:
    """Random matrices of orthonormal columns, or rows where there are fewer of them."""
    matrix = torch.randn(*shape, dtype=torch.float64)
    if shape[-2] >= shape[-1]:
        return torch.linalg.qr(matrix).Q
    return torch.linalg.qr(matrix.mT).Q.mT


def composed(matrix: Tensor, kernel: Tensor, strides: tuple[int, int]) -> Tensor:
    """``K[u + i, v + j] += R[u, v] B[i, j]`` for one group, tap by tap."""
    outputs, (inner, inputs, height, width) = len(matrix), kernel.shape
    taps = matrix.view(outputs, inner, *strides)
    result = torch.zeros(outputs, inputs, height + strides[0] - 1, width + strides[1] - 1).double()
    for u, v in itertools.product(*map(range, strides)):
        for i, j in itertools.product(range(height), range(width)):
            result[:, :, u + i, v + j] += taps[:, :, u, v] @ kernel[:, :, i, j]
    return result


# The construction


def test_the_strided_kernel_is_a_composition(each):
    for strides, steps, outputs in each(
        itertools.product([(1, 1), (2, 2), (3, 3), (1, 2), (3, 1)], [0, 1, 2, 4], [1, 4, 20])
    ):
        inner = 4
        matrix = orthonormal(2, outputs, inner * strides[0] * strides[1])
        bases = orthonormal(2, steps, inner, 2)
        found = strided_kernel(matrix, bases, strides)
        eye = torch.eye(inner, dtype=torch.float64).expand(2, inner, inner)
        first = block_kernel(eye, bases)
        second = matrix.view(2, outputs, inner, *strides)
        expected = torch.cat([composed(matrix[i], first[i], strides) for i in range(2)])
        assert torch.allclose(found, expected, atol=1e-13)
        x = torch.randn(3, 2 * inner, 9, 8, dtype=torch.float64)
        between = F.conv2d(x, first.flatten(0, 1), groups=2)
        y = F.conv2d(between, second.flatten(0, 1), stride=strides, groups=2)
        assert torch.allclose(F.conv2d(x, found, stride=strides, groups=2), y, atol=1e-12)


LAYERS = [
    ((2, 3), 3, 1, {}),
    ((3, 2), 2, 1, {}),
    ((2, 1), 3, 1, {}),
    ((3, 5), 3, 2, {}),
    ((2, 8), 3, 2, {}),
    ((2, 11), 4, 2, {}),
    ((3, 1), 5, 2, {}),
    ((1, 8), 5, 2, {}),
    ((1, 9), 2, 2, {}),
    ((2, 18), 4, 3, {}),
    ((2, 5), 5, 3, {}),
    ((3, 4), 3, 3, {}),
    ((4, 6), 3, 2, {"groups": 2}),
    ((6, 4), 4, 3, {"groups": 2}),
    ((6, 3), 3, 1, {"groups": 3}),
    ((3, 3), 3, 1, {"dilation": 2}),
    ((2, 4), 3, 1, {"dilation": 3, "groups": 2}),
    ((4, 4), 5, 1, {}),
]


@pytest.mark.parametrize(("channels", "kernel_size", "stride", "options"), LAYERS, ids=str)
def test_a_layer_is_the_composition_it_claims(channels, kernel_size, stride, options):
    """From its free parameters, with LAPACK's QR."""
    layer = redrawn(AOCConv2d(*channels, kernel_size, stride=stride, **options))
    groups, (inputs, outputs) = layer.groups, layer.group_channels
    inner = layer.raw_bases.shape[1]
    kernels = []
    for raw, free in zip(layer.raw_matrix, layer.raw_bases.chunk(groups), strict=True):
        q, r = torch.linalg.qr(raw)
        q = q * r.diagonal().sgn()
        matrix = q if outputs >= inner * stride**2 else q.T
        bases = torch.linalg.qr(free).Q[None]
        first = block_kernel(torch.eye(inner, dtype=torch.float64)[None], bases)[0]
        assert first.shape[-1] == kernel_size - stride + 1
        kernels.append(composed(matrix, first, (stride, stride))[:, :inputs])
    assert torch.allclose(layer.weight, torch.cat(kernels), atol=1e-12)


def test_stride_one_is_bcop():
    for channels in ((3, 3), (2, 5), (5, 2), (1, 1)):
        layer = redrawn(AOCConv2d(*channels, 3))
        twin = BCOPConv2d(*channels, 3).double()
        twin.load_state_dict(layer.state_dict())
        assert torch.equal(layer.weight, twin.weight)


# Orthogonality


def assert_orthogonal(matrix: Tensor) -> None:
    values = torch.linalg.svdvals(matrix)
    assert torch.allclose(values, torch.ones_like(values), atol=1e-9, rtol=0)


def test_circular_maps_are_orthogonal(each):
    for channels, kernel_size, stride, options in each(LAYERS):
        layer = redrawn(AOCConv2d(*channels, kernel_size, stride=stride, **options))
        for size in ((2 * stride, 3 * stride), (4 * stride, 2 * stride)):
            sides = [side * options.get("dilation", 1) for side in size]
            y = layer(torch.zeros(1, channels[0], *sides).double())
            assert y.shape[2:] == (sides[0] // stride, sides[1] // stride)
            assert_orthogonal(matrix_of(layer, (channels[0], *sides)))
        assert 1 - 1e-12 <= float(onelip.lipschitz_bound(layer)) <= 1 + 1e-8


def test_every_kernel_from_the_stride_on(each):
    for (stride, kernel_size), channels in each(
        itertools.product(
            [(s, k) for s in (1, 2, 3) for k in range(s, 6)], [(2, 2), (2, 7), (3, 30)]
        )
    ):
        layer = redrawn(AOCConv2d(*channels, kernel_size, stride=stride))
        assert_orthogonal(matrix_of(layer, (channels[0], 2 * stride, 2 * stride)))


@pytest.mark.parametrize(
    ("channels", "side", "groups"), [((1, 4), 2, 1), ((4, 8), 2, 4), ((3, 3), 1, 3)]
)
def test_one_channel_per_group_in_windows_side_by_side_is_orthogonal(channels, side, groups):
    layer = redrawn(AOCConv2d(*channels, side, stride=side, groups=groups))
    assert_orthogonal(matrix_of(layer, (channels[0], 4, 4)))


FEW = [
    ((1, 2), 3, 2, {}),
    ((1, 4), 3, 2, {}),
    ((1, 1), 3, 2, {}),
    ((1, 7), 3, 2, {}),
    ((1, 3), 7, 3, {}),
    ((1, 1), 3, 1, {}),
    ((1, 1), 4, 1, {}),
    ((2, 2), 3, 1, {"groups": 2}),
    ((4, 8), 3, 2, {"groups": 4}),
    ((1, 2), 5, 2, {"dilation": 3}),
    ((1, 2), (3, 1), (2, 1), {}),
]


@pytest.mark.parametrize(("channels", "kernel_size", "stride", "options"), FEW, ids=str)
def test_one_channel_per_group(channels, kernel_size, stride, options):
    """No projector has rank 1 // 2: the bases act on windows, after the strided matrix."""
    for _ in range(3):
        layer = redrawn(AOCConv2d(*channels, kernel_size, stride, **options))
        for size in ((4, 4), (6, 8)):
            sides = [-(-side // 3) * 3 if stride == 3 else side for side in size]
            if max(sides) > 4 or "dilation" not in options:
                assert_orthogonal(matrix_of(layer, (channels[0], *sides)))


# Strides beyond the kernel, and with dilation


SKIPPING = list(
    itertools.product([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [(1, 1), (1, 3), (2, 5), (3, 30)])
)


def largest_smallest(kernel: int, stride: int, dilation: int, channels: tuple[int, int]) -> float:
    """Of random kernels of one axis, without construction: what is left after alternating.

    The nearest orthogonal matrix at each frequency, and then the taps of the kernel, in turn: the
    smallest singular value that this reaches is 1 where there is an orthogonal kernel.
    """
    inputs, outputs = channels
    size = stride * dilation * kernel
    free = torch.randn(outputs, inputs, kernel, dtype=torch.float64)
    place = torch.arange(kernel) * dilation
    for _ in range(40):
        wide = torch.zeros(outputs, inputs, size, dtype=torch.float64)
        wide.index_add_(2, place % size, free)
        rows = torch.stack([wide.roll(y * stride, 2).flatten(1) for y in range(size // stride)], 1)
        matrix = rows.flatten(0, 1)
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        nearest = (u @ v).view(outputs, size // stride, inputs, size)
        moved = [nearest[:, y].roll(-y * stride, 2) for y in range(size // stride)]
        free = torch.stack(moved).mean(0)[..., place % size]
    return float(s.min())


def test_an_orthogonal_kernel_exists_exactly_where_one_is_built(each):
    """Along one axis, against alternating projections, which know nothing of phases."""
    for kernel, stride, dilation in each(itertools.product([1, 2, 3], [1, 2, 3, 4], [1, 2, 3])):
        common = math.gcd(stride, dilation)
        for channels in ((1, 2), (2, 3), (1, 4)):
            read = min(kernel, stride // common)
            possible = channels[1] <= channels[0] * read or read == stride
            reached = largest_smallest(kernel, stride, dilation, channels)
            assert reached > 0.99 if possible else reached < 0.5
            try:
                layer = AOCConv1d(*channels, kernel, stride, dilation=dilation).double()
            except ValueError:
                assert not possible
            else:
                assert possible
                length = -(-kernel * dilation // stride) * stride
                assert_orthogonal(matrix_of(redrawn(layer), (channels[0], length)))


def test_strides_and_dilations_that_share_no_divisor_or_skip_pixels(each):
    for kernel, stride, dilation, (inputs, outputs) in each(SKIPPING):
        common = math.gcd(stride, dilation)
        read = inputs * min(kernel, stride // common) ** 2
        whole = kernel >= stride and common == 1
        build = partial(AOCConv2d, inputs, outputs, kernel, stride, dilation=dilation)
        if outputs > read and not whole:
            with pytest.raises(ValueError, match=f"take at most {read} output channels"):
                build()
        elif inputs * outputs < 50 and kernel * dilation <= 12:
            layer = redrawn(build())
            side = -(-dilation * kernel // stride) * stride
            if side * side * inputs <= 300:
                assert_orthogonal(matrix_of(layer, (inputs, side, side)))


RECTANGLES = [
    ((2, 3), (3, 5), 1, {}),
    ((3, 2), (1, 4), 1, {}),
    ((2, 5), (3, 2), (2, 1), {"padding": 0}),
    ((2, 8), (3, 5), (2, 4), {}),
    ((1, 2), (4, 3), (1, 2), {"padding": "same", "dilation": (2, 1)}),
    ((4, 6), (2, 5), (2, 3), {"groups": 2}),
    ((2, 2), (3, 3), (2, 1), {"dilation": (3, 2)}),
    ((2, 2), (1, 3), (2, 1), {}),
]


@pytest.mark.parametrize(("channels", "kernel_size", "stride", "options"), RECTANGLES, ids=str)
def test_rectangles(channels, kernel_size, stride, options):
    if options.get("padding") == "same":
        with pytest.raises(ValueError, match="needs an odd kernel_size, got 4"):
            AOCConv2d(*channels, kernel_size, stride, dilation=1)
        options = {**options, "padding": None}
    layer = redrawn(AOCConv2d(*channels, kernel_size, stride, **options))
    assert layer.weight.shape[2:] == kernel_size
    if options.get("padding") != 0:
        assert_orthogonal(matrix_of(layer, (channels[0], 8 if stride != (2, 3) else 6, 12)))
    assert float(onelip.lipschitz_bound(layer)) <= 1 + 1e-8


def violent(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Three steps that leave nothing of where the parameters were."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e4)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for _ in range(3):
        optimizer.zero_grad()
        y = layer(torch.randn(4, *shape, dtype=torch.float64))
        (y * torch.randn_like(y)).sum().backward()
        optimizer.step()
    for name, value in layer.named_parameters():
        assert value.numel() == 0 or (value - before[name]).abs().max().item() > 10


@pytest.mark.parametrize(("channels", "kernel_size", "stride", "options"), LAYERS, ids=str)
def test_after_violent_steps_export_and_a_state_dict(channels, kernel_size, stride, options):
    def build() -> AOCConv2d:
        return AOCConv2d(*channels, kernel_size, stride=stride, bias=False, **options).double()

    layer, shape = build(), (channels[0], 6, 6)
    violent(layer, shape)
    loaded = build()
    loaded.load_state_dict(layer.state_dict())
    assert torch.equal(loaded.weight, layer.weight)
    for other in (layer, loaded, onelip.export(layer)):
        matrix = matrix_of(other, shape)
        assert_orthogonal(matrix)
        assert sigma_max(matrix) <= float(onelip.lipschitz_bound(other)) <= 1 + 1e-8


@pytest.mark.parametrize("kind", [AOCConv1d, AOCConvTranspose2d, BCOPConv2d])
def test_the_others_after_violent_steps(kind):
    shape = (4, 6) if kind is AOCConv1d else (4, 6, 6)
    build = partial(kind, 4, 3, 4, stride=2, bias=False)
    layer = build().double()
    violent(layer, shape)
    loaded = build().double()
    loaded.load_state_dict(layer.state_dict())
    for other in (layer, loaded, onelip.export(layer)):
        values = torch.linalg.svdvals(matrix_of(other, shape))
        if kind is AOCConvTranspose2d:  # cut at the border
            assert float(values.max()) <= 1 + 1e-9
        else:
            assert torch.allclose(values, torch.ones_like(values), atol=1e-9, rtol=0)
        assert float(values.max()) <= float(onelip.lipschitz_bound(other)) <= 1 + 1e-8


def test_bjorck_in_place_of_cholesky():
    orthogonalise = partial(bjorck, iterations=80)
    layer = redrawn(AOCConv2d(2, 6, 4, stride=2, orthogonalise=orthogonalise))
    assert_orthogonal(matrix_of(layer, (2, 4, 6)))


@pytest.mark.parametrize("stride", [1, 2])
def test_zero_padding_contracts(stride):
    layer = redrawn(AOCConv2d(2, 4, 4, stride=stride, padding_mode="zeros"))
    for size in ((5, 5), (4, 6)):
        norm = sigma_max(matrix_of(layer, (2, *size)))
        assert norm <= float(onelip.lipschitz_bound(layer)) <= 1 + 1e-8


# Sequences


SEQUENCES = [
    ((2, 3), 3, 1, 1),
    ((3, 2), 2, 1, 1),
    ((2, 2), 4, 1, 1),
    ((4, 6), 3, 2, 2),
    ((2, 5), 5, 2, 1),
    ((3, 1), 4, 2, 1),
    ((1, 7), 5, 3, 1),
    ((6, 4), 3, 3, 2),
]


def test_a_sequence_is_an_image_of_height_one(each):
    for mode, (channels, kernel_size, stride, groups) in each(
        itertools.product(["circular", "zeros"], SEQUENCES)
    ):
        layer = AOCConv1d(*channels, kernel_size, stride=stride, groups=groups, padding_mode=mode)
        redrawn(layer)
        options = {"padding": layer.padding, "padding_mode": mode, "groups": groups}
        image = nn.Conv2d(*channels, (1, kernel_size), stride=(1, stride), **options).double()
        options["padding"] = "same" if stride == 1 else layer.padding[1]
        line = nn.Conv1d(*channels, kernel_size, stride=stride, **options).double()
        image.weight.data, image.bias.data = layer.weight.data, layer.bias.data
        line.weight.data, line.bias.data = layer.weight.data[:, :, 0], layer.bias.data
        x = torch.randn(2, channels[0], 4 * stride, dtype=torch.float64)
        y = layer(x)
        assert y.shape == (2, channels[1], 4)
        assert torch.allclose(y, image(x[:, :, None])[:, :, 0], atol=1e-13)
        assert torch.allclose(y, line(x), atol=1e-13)
        assert torch.allclose(y, onelip.export(layer)(x), atol=1e-13)
        norm = sigma_max(matrix_of(layer, (channels[0], 4 * stride)))
        assert norm <= float(onelip.lipschitz_bound(layer)) <= float(onelip.lipschitz_bound(line))


@pytest.mark.parametrize(("channels", "kernel_size", "stride", "groups"), SEQUENCES, ids=str)
def test_sequences_are_mapped_orthogonally(channels, kernel_size, stride, groups):
    layer = redrawn(AOCConv1d(*channels, kernel_size, stride=stride, groups=groups))
    for length in (4 * stride, 5 * stride):
        assert_orthogonal(matrix_of(layer, (channels[0], length)))
    assert_orthogonal(matrix_of(onelip.export(layer), (channels[0], 4 * stride)))
    steps = kernel_size - stride
    inner = layer.raw_bases.shape[1]
    for group, raw in enumerate(layer.raw_matrix):
        q, r = torch.linalg.qr(raw)
        q = q * r.diagonal().sgn()
        outputs = channels[1] // groups
        matrix = q if outputs >= inner * stride else q.T
        kernel = torch.eye(inner, dtype=torch.float64)[:, :, None, None]
        for free in layer.raw_bases[group * steps : (group + 1) * steps]:
            p = free @ torch.linalg.pinv(free)
            taps = torch.stack([p, torch.eye(inner).double() - p], -1)
            longer = torch.zeros(inner, inner, 1, kernel.shape[-1] + 1, dtype=torch.float64)
            for i, j in itertools.product(range(kernel.shape[-1]), range(2)):
                longer[:, :, 0, i + j] += kernel[:, :, 0, i] @ taps[:, :, j]
            kernel = longer
        expected = composed(matrix, kernel, (1, stride))[:, : channels[0] // groups]
        found = layer.weight.chunk(groups)[group]
        assert torch.allclose(found, expected, atol=1e-12)


def test_one_channel_sequences_in_windows_side_by_side():
    layer = redrawn(AOCConv1d(1, 2, 2, stride=2))
    assert_orthogonal(matrix_of(layer, (1, 6)))


def test_one_channel_sequences_with_longer_kernels():
    for outputs, kernel_size, stride in ((2, 3, 2), (1, 3, 2), (1, 5, 1), (2, 7, 3)):
        layer = redrawn(AOCConv1d(1, outputs, kernel_size, stride=stride))
        assert_orthogonal(matrix_of(layer, (1, 4 * stride)))


# Transposed convolutions


UPWARD = [
    ((4, 1), 2, 2, 1),
    ((8, 2), 2, 2, 1),
    ((8, 2), 3, 2, 1),
    ((3, 2), 4, 2, 1),
    ((4, 6), 5, 2, 2),
    ((2, 3), 3, 1, 1),
    ((3, 3), 5, 1, 1),
    ((5, 2), 3, 1, 1),
    ((5, 2), 4, 3, 1),
    ((9, 1), 3, 3, 1),
]


@pytest.mark.parametrize(("channels", "kernel_size", "stride", "groups"), UPWARD, ids=str)
def test_the_adjoint_of_the_plain_convolution(channels, kernel_size, stride, groups):
    layer = AOCConvTranspose2d(*channels, kernel_size, stride, None, groups=groups, bias=False)
    redrawn(layer)
    shape = (channels[0], 3, 4)
    large = (channels[1], 3 * stride, 4 * stride)
    x = torch.randn(2, *shape, dtype=torch.float64)
    y = torch.randn(2, *large, dtype=torch.float64)
    assert layer(x).shape[1:] == large
    options = {"stride": stride, "padding": layer.padding, "groups": groups}
    back = F.conv2d(y, layer.weight, **options)
    assert (layer(x) * y).sum().item() == pytest.approx((x * back).sum().item(), rel=1e-11)
    transposed = materialised(lambda image: F.conv2d(image, layer.weight, **options), large)
    assert torch.allclose(matrix_of(layer, shape), transposed.detach().T, atol=1e-13)


@pytest.mark.parametrize(("channels", "kernel_size", "stride", "groups"), UPWARD, ids=str)
def test_the_adjoint_of_the_orthogonal_convolution(channels, kernel_size, stride, groups):
    """The same parameters give the same kernel, whose convolution on a circle is orthogonal."""
    layer = AOCConvTranspose2d(*channels, kernel_size, stride, None, groups=groups, bias=False)
    redrawn(layer)
    options = {"stride": stride, "groups": groups, "bias": False, "padding_mode": "zeros"}
    down = AOCConv2d(channels[1], channels[0], kernel_size, **options).double()
    down.load_state_dict(layer.state_dict())
    assert torch.equal(down.weight, layer.weight)
    shape = (channels[0], 3, 4)
    large = (channels[1], 3 * stride, 4 * stride)
    assert torch.allclose(matrix_of(layer, shape), matrix_of(down, large).T, atol=1e-13)
    norm = sigma_max(matrix_of(layer, shape))
    assert norm <= float(onelip.lipschitz_bound(layer)) <= 1 + 1e-8
    assert float(onelip.lipschitz_bound(layer)) == float(onelip.lipschitz_bound(down))
    exported = onelip.export(layer)
    assert type(exported) is nn.ConvTranspose2d
    assert torch.allclose(matrix_of(exported, shape), matrix_of(layer, shape), atol=1e-13)


@pytest.mark.parametrize(
    ("channels", "side"), [((8, 2), 2), ((3, 2), 2), ((18, 2), 3), ((4, 1), 2)], ids=str
)
def test_kernels_as_large_as_the_stride_are_mapped_orthogonally(channels, side):
    layer = redrawn(AOCConvTranspose2d(*channels, side, stride=side))
    assert_orthogonal(matrix_of(layer, (channels[0], 2, 3)))


UNCROPPED = [
    ((4, 1), 3, 2, {}),
    ((3, 2), 4, 2, {}),
    ((5, 1), 3, 2, {}),
    ((9, 2), 5, 2, {}),
    ((2, 3), 3, 1, {}),
    ((3, 2), 4, 1, {}),
    ((4, 6), 5, 2, {"groups": 2}),
    ((2, 1), 3, 2, {"dilation": 3}),
    ((2, 1), 1, 2, {}),
    ((2, 2), 2, 3, {"output_padding": 2}),
    ((3, 1), 3, 2, {"dilation": 2}),
    ((3, 2), (3, 1), (2, 1), {"dilation": (3, 1)}),
    ((2, 1), 4, (2, 3), {"output_padding": (1, 0)}),
]


@pytest.mark.parametrize(("channels", "kernel_size", "stride", "options"), UNCROPPED, ids=str)
def test_without_padding_an_isometry_if_it_can_be(channels, kernel_size, stride, options):
    """Adjoints of orthogonal kernels on an image that is padded with zeros all around."""
    for bias in (False, True):
        layer = AOCConvTranspose2d(*channels, kernel_size, stride, **options, bias=bias)
        redrawn(layer)
    plain = nn.ConvTranspose2d(*channels, kernel_size, stride, **options).double()
    plain.weight, plain.bias = nn.Parameter(layer.weight.detach()), layer.bias
    x = torch.randn(2, channels[0], 3, 4, dtype=torch.float64)
    assert torch.allclose(layer(x), plain(x), atol=1e-13)
    values = torch.linalg.svdvals(matrix_of(layer, (channels[0], 3, 4)))
    inputs, outputs = (channel // layer.groups for channel in channels)
    steps = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    read = outputs * math.prod(min(k, s // math.gcd(s, d)) for k, s, d in steps)
    assert float(values.max()) <= 1 + 1e-9
    assert (float(values.min()) > 1 - 1e-9) == (inputs <= read)
    assert float(values.max()) <= float(onelip.lipschitz_bound(layer)) <= 1 + 1e-8


def test_cropping_takes_what_lies_outside_and_the_norm_stays():
    whole = redrawn(AOCConvTranspose2d(3, 2, 4, 2, bias=False))
    cropped = AOCConvTranspose2d(3, 2, 4, 2, 1, bias=False).double()
    cropped.load_state_dict(whole.state_dict())
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    assert torch.allclose(cropped(x), whole(x)[..., 1:-1, 1:-1], atol=1e-13)
    values = torch.linalg.svdvals(matrix_of(cropped, (3, 4, 4)))
    assert float(values.min()) < 0.9
    assert 0.99 < float(values.max()) <= 1 + 1e-12
    inner = F.pad(x[..., 1:-1, 1:-1], (1, 1, 1, 1))
    assert float(cropped(inner).norm()) == pytest.approx(float(inner.norm()), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding_mode": "circular"}, "crops and wraps nothing, here as in torch"),
        ({"output_padding": 2}, r"below stride or dilation, got \(2, 2\)"),
        ({"padding": -1}, "at least 0, got -1"),
        ({"padding": None, "output_padding": 1}, "works output_padding out"),
        ({"padding": "same"}, "padding must be one whole number or two, got 'same'"),
    ],
)
def test_paddings_of_transposed_convolutions(options, message):
    with pytest.raises(ValueError, match=message):
        AOCConvTranspose2d(2, 3, 3, 2, **options)


def test_arguments_of_transposed_convolutions_are_those_of_torch():
    arguments = 4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, False, (1, 2), "zeros"
    plain = nn.ConvTranspose2d(*arguments)
    for kind in (AOCConvTranspose2d, AOLConvTranspose2d, RKOConvTranspose2d):
        layer = kind(*arguments)
        x = torch.randn(1, 4, 3, 4)
        plain.weight = nn.Parameter(layer.weight.detach())
        assert torch.allclose(layer(x), plain(x), atol=1e-6)


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_even_kernels_of_stride_one(kernel_size):
    """torch asks for an output_padding below the stride; they would need one of 1."""
    with pytest.raises(ValueError, match="kernel_size must be odd for stride 1"):
        AOCConvTranspose2d(2, 3, kernel_size, padding=None)


# Values of orthogonium


def _same_values(theirs: nn.Module, ours: nn.Module, inputs: int, outputs: int) -> None:
    """Give ours the factors of theirs; ``outputs`` are the rows of the strided matrix."""
    steps, groups = theirs.kernel_size[0] - theirs.stride[0], ours.groups
    free = theirs.parametrizations.weight_1.original.data
    rows, columns = outputs // groups, inputs // groups
    for i in range(groups):
        p = [basis @ torch.linalg.pinv(basis) for basis in free[i]]
        eye = torch.eye(columns, dtype=torch.float64)
        mirror = (eye - 2 * p[0]) @ (eye - 2 * p[1])
        taps = theirs.weight_2.detach().unflatten(0, (groups, rows))[i]
        matrix = torch.einsum("ocuv,cd->oduv", taps, mirror).flatten(1)
        ours.raw_matrix.data[i] = matrix if rows >= matrix.shape[1] else matrix.T
        order = {4: [3, 1, 2, 0], 3: [2, 1, 0]}.get(steps, list(range(steps))[::-1])
        bases = [mirror.T @ b for j in order for b in (free[i, 2 + j], free[i, 2 + steps + j])]
        ours.raw_bases.data.unflatten(0, (groups, -1))[i] = torch.stack(bases)


def test_values_of_orthogonium(each):
    for channels, (kernel_size, stride), groups in each(
        itertools.product(
            [(4, 4), (4, 16), (6, 5), (4, 9)], [(3, 2), (4, 2), (5, 2), (6, 2), (5, 3)], [1, 2]
        )
    ):
        inputs, outputs = (channel * groups for channel in channels)
        parameters = OrthoParams(BatchedIdentity, ClassParam(BatchedQROrthogonalization))
        options = {"stride": stride, "groups": groups}
        theirs = BcopRkoConv2d(
            inputs, outputs, kernel_size, padding=0, ortho_params=parameters, **options
        ).double()
        assert theirs.intermediate_channels == inputs
        ours = AOCConv2d(inputs, outputs, kernel_size, **options).double()
        _same_values(theirs, ours, inputs, outputs)
        assert torch.allclose(ours.weight, theirs.weight, atol=1e-11)


def test_values_of_orthogonium_transposed():
    parameters = OrthoParams(BatchedIdentity, ClassParam(BatchedQROrthogonalization))
    theirs = BcopRkoConvTranspose2d(12, 4, 4, stride=2, padding=1, ortho_params=parameters).double()
    ours = AOCConvTranspose2d(12, 4, 4, stride=2).double()
    _same_values(theirs, ours, 4, 12)
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-11)


# Other images than those that the stride divides


def test_the_plain_convolution_does_not_know_its_images():
    """Exported, the kernel stays with the check of the images that its proof is for."""
    layer = redrawn(AOCConv2d(2, 4, 3, stride=2, bias=False))
    fixed = onelip.export(layer)
    for part in (layer, fixed):
        with pytest.raises(ValueError, match="stride 2 needs sides that it divides, got 5 x 6"):
            part(torch.zeros(1, 2, 5, 6).double())
    plain = fixed.conv
    known = norms.convolution(
        plain.weight, padding=1, padding_mode="circular", stride=2, whole_strides=True
    )
    assert float(onelip.lipschitz_bound(fixed)) == float(known) <= 1 + 1e-8
    norm = sigma_max(matrix_of(plain, (2, 5, 5)))
    assert 1.05 < norm <= float(onelip.lipschitz_bound(plain))


# Errors


@pytest.mark.parametrize(
    ("kernel_size", "options", "message"),
    [
        (1, {"stride": 3}, "from 2 to 4 channels .per group.: it skips pixels, and reads 2 indep"),
        (3, {"stride": 2, "dilation": 2}, "take at most 2 output channels"),
        ((3, 3, 3), {}, "kernel_size must be one whole number or two, got"),
        (3, {"stride": 1.0}, "stride must be one whole number or two, got 1.0"),
        (3, {"padding": "full"}, "or two, 'same' or 'valid', got 'full'"),
        (3, {"padding": (1, -1)}, "or two, 'same' or 'valid', got .1, -1."),
        (3, {"groups": 3}, "groups=3 must divide 2 and 4 channels"),
        (3, {"stride": 0}, "must be positive"),
        (3, {"groups": 0}, "must be positive"),
    ],
)
def test_preconditions(kernel_size, options, message):
    with pytest.raises(ValueError, match=message):
        AOCConv2d(2, 4, kernel_size, **options)


@pytest.mark.parametrize("kind", [AOCConv1d, AOCConvTranspose2d])
def test_preconditions_of_the_others(kind):
    with pytest.raises(ValueError, match="must be positive"):
        kind(2, 4, 2, stride=0)
    with pytest.raises(ValueError, match=r"kernel_size.* must be one whole number"):
        kind(2, 4, 2.0)
    with pytest.raises(ValueError, match="groups=3 must divide 2 and 4 channels"):
        kind(2, 4, 2, groups=3)


@pytest.mark.parametrize("kind", [AOCConv1d, AOCConvTranspose2d])
@pytest.mark.parametrize(
    ("channels", "options"),
    [((2, 4), {"groups": 0}), ((2, 4), {"groups": -1}), ((0, 4), {}), ((2, 0), {})],
    ids=str,
)
def test_sizes_must_be_positive(kind, channels, options):
    with pytest.raises(ValueError, match="must be positive"):
        kind(*channels, 3, **options)


@pytest.mark.parametrize("kind", [AOCConv1d, AOCConv2d])
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_that_repeats_pixels(kind, mode):
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        kind(2, 4, 3, padding_mode=mode)


def test_sequences_that_the_stride_does_not_divide():
    with pytest.raises(ValueError, match="stride 2 needs sides that it divides, got 1 x 5"):
        AOCConv1d(2, 4, 3, stride=2)(torch.zeros(1, 2, 5))
    y = AOCConv1d(2, 4, 3, stride=2, padding_mode="zeros")(torch.zeros(1, 2, 5))
    assert y.shape == (1, 4, 3)
