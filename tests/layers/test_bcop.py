"""BCOP against Algorithm 1 written down with formed projectors, and against orthogonium's kernels.

orthogonium composes the matrix H on the side of the input, and turns the result over for fewer
outputs than inputs. With the axes of the image exchanged, its kernels of ``out < in`` are ours from
the same projectors, and those of ``out >= in`` are ours turned over. Its H is a product of two
reflections by its first two projectors: ours is that matrix. For 5 x 5 it multiplies in pairs, so
in another order. Its older BCOP layer needs einops and, with a bias, CUDA: it is left out.
"""

import itertools
from functools import partial

import pytest
import torch
from orthogonium.layers.conv.AOC import FastBlockConv2d
from orthogonium.model_factory.classparam import ClassParam
from orthogonium.reparametrizers import (
    BatchedBjorckOrthogonalization,
    BatchedIdentity,
    BatchedQROrthogonalization,
    OrthoParams,
)
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip.errors import UnboundedModuleError
from onelip.layers import BCOPConv2d, bjorck
from onelip.layers.block_convolution import block_kernel
from tests.oracles import materialised, matrix_of, positive_q, sigma_max

CHANNELS = [(1, 2), (2, 1), (3, 3), (2, 5), (5, 2), (4, 4), (1, 3), (7, 1)]


def redrawn(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.double()


def projector(basis: Tensor) -> Tensor:
    return basis @ torch.linalg.inv(basis.T @ basis) @ basis.T


def block_convolution(x: Tensor, y: Tensor) -> Tensor:
    """``Z_ij = sum X_i'j' Y_{i-i', j-j'}``; kernels are ``(height, width, rows, columns)``."""
    (p, q), (r, s) = x.shape[:2], y.shape[:2]
    z = torch.zeros(p + r - 1, q + s - 1, x.shape[2], y.shape[3], dtype=x.dtype)
    for i, j in itertools.product(range(p + r - 1), range(q + s - 1)):
        for i_, j_ in itertools.product(range(p), range(q)):
            if 0 <= i - i_ < r and 0 <= j - j_ < s:
                z[i, j] += x[i_, j_] @ y[i - i_, j - j_]
    return z


def algorithm_1(matrix: Tensor, bases: Tensor) -> Tensor:
    """Equation 5: ``(out, n)`` and ``(2 (k - 1), n, rank)`` to ``(out, n, k, k)``."""
    kernel, eye = matrix[None, None], torch.eye(matrix.shape[1], dtype=matrix.dtype)
    for i in range(0, len(bases), 2):
        p, q = map(projector, bases[i : i + 2])
        kernel = block_convolution(kernel, torch.stack([p, eye - p])[:, None])
        kernel = block_convolution(kernel, torch.stack([q, eye - q])[None])
    return kernel.permute(2, 3, 0, 1)


def textbook(layer: BCOPConv2d) -> Tensor:
    """The kernel from the free parameters, group by group, for stride 1."""
    (inputs, outputs), groups = layer.group_channels, layer.groups
    kernels = []
    for raw, bases in zip(layer.raw_matrix, layer.raw_bases.chunk(groups), strict=True):
        h = positive_q(raw)
        kernel = algorithm_1(h if outputs >= h.shape[0] else h.T, bases)
        kernels.append(kernel[:outputs, :inputs])
    return torch.cat(kernels)


# The construction


def test_the_textbook_is_a_composition():
    """``X * (Y * v) = (X box Y) * v``, the property that block convolution is made for."""
    x, y = torch.randn(2, 3, 4, 5).double(), torch.randn(3, 2, 5, 2).double()
    v = torch.randn(1, 2, 7, 8).double()
    kernels = [kernel.permute(2, 3, 0, 1) for kernel in (x, y, block_convolution(x, y))]
    twice = F.conv2d(F.conv2d(v, kernels[1]), kernels[0])
    assert torch.allclose(F.conv2d(v, kernels[2]), twice, atol=1e-12)


def test_the_kernel_is_that_of_algorithm_1(each):
    for channels, kernel_size in each(itertools.product(CHANNELS, [1, 2, 3, 4, 5])):
        layer = redrawn(BCOPConv2d(*channels, kernel_size))
        assert layer.weight.shape == (channels[1], channels[0], kernel_size, kernel_size)
        assert torch.allclose(layer.weight, textbook(layer), atol=1e-12, rtol=0)


@pytest.mark.parametrize("channels", [(4, 6), (6, 2), (2, 4)], ids=str)
@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_groups_are_kernels_of_their_own(channels, kernel_size):
    layer = redrawn(BCOPConv2d(*channels, kernel_size, groups=2))
    assert torch.allclose(layer.weight, textbook(layer), atol=1e-12, rtol=0)
    inputs, outputs = layer.group_channels
    x = torch.randn(2, channels[0], 5, 5, dtype=torch.float64)
    parts = []
    for i in range(2):
        alone = BCOPConv2d(inputs, outputs, kernel_size).double()
        alone.raw_matrix.data = layer.raw_matrix.data[i : i + 1]
        alone.raw_bases.data = layer.raw_bases.data.chunk(2)[i]
        alone.bias.data = layer.bias.data.chunk(2)[i]
        parts.append(alone(x.chunk(2, 1)[i]))
    assert torch.allclose(layer(x), torch.cat(parts, 1), atol=1e-12)


@pytest.mark.parametrize("inner", [2, 3, 5, 8])
def test_projectors_have_half_the_rank(inner):
    layer = BCOPConv2d(inner, inner, 3)
    assert layer.raw_bases.shape == (4, inner, inner // 2)
    assert layer.raw_matrix.shape == (1, inner, inner)


def test_every_rank_gives_an_orthogonal_kernel():
    """``block_kernel`` is told the bases; none and all of the space shift the image."""
    for rank in range(5):
        bases = torch.linalg.qr(torch.randn(1, 4, 4, rank, dtype=torch.float64)).Q
        kernel = block_kernel(torch.eye(4, dtype=torch.float64)[None], bases)[0]
        matrix = materialised(
            lambda x, k=kernel: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), k), (4, 4, 5)
        )
        eye = torch.eye(80, dtype=torch.float64)
        assert torch.allclose(matrix @ matrix.T, eye, atol=1e-12)
        if rank in (0, 4):
            assert torch.allclose(matrix.abs().sum(1), torch.ones(80).double())


# Strides


STRIDES = [(2, 2), (4, 2), (6, 2), (3, 3), (6, 3), (9, 3)]


def test_a_stride_is_unshuffling_first(each):
    for (kernel_size, stride), channels in each(
        itertools.product(STRIDES, [(1, 3), (2, 9), (3, 2)])
    ):
        layer = redrawn(BCOPConv2d(*channels, kernel_size, stride=stride, padding=0))
        inner = BCOPConv2d(channels[0] * stride**2, channels[1], kernel_size // stride, padding=0)
        inner.double().load_state_dict(layer.state_dict())
        x = torch.randn(2, channels[0], 4 * stride, 3 * stride, dtype=torch.float64)
        unshuffled = nn.PixelUnshuffle(stride)(x)
        assert torch.allclose(layer(x), inner(unshuffled), atol=1e-12)
        plain = F.conv2d(unshuffled, F.pixel_unshuffle(layer.weight, stride), layer.bias)
        assert torch.allclose(layer(x), plain, atol=1e-12)


@pytest.mark.parametrize(("kernel_size", "stride"), STRIDES)
def test_a_padded_stride_is_unshuffling_of_a_shifted_image(kernel_size, stride):
    """Circular padding counts pixels outside, and blocks of pixels inside."""
    layer = redrawn(BCOPConv2d(2, 5, kernel_size, stride=stride))
    inner = BCOPConv2d(2 * stride**2, 5, kernel_size // stride).double()
    inner.load_state_dict(layer.state_dict())
    x = torch.randn(2, 2, 4 * stride, 3 * stride, dtype=torch.float64)
    shift = layer.padding[0] - (kernel_size // stride - 1) // 2 * stride
    y = inner(F.pixel_unshuffle(x.roll((shift, shift), (2, 3)), stride))
    assert y.shape == layer(x).shape == (2, 5, 4, 3)
    assert torch.allclose(layer(x), y, atol=1e-12)


# Orthogonality


ORTHOGONAL = [
    ((3, 3), 1, {}),
    ((2, 5), 2, {}),
    ((5, 2), 3, {}),
    ((1, 2), 3, {}),
    ((2, 1), 4, {}),
    ((3, 3), 5, {}),
    ((4, 6), 3, {"groups": 2}),
    ((2, 3), 3, {"dilation": 2}),
    ((1, 3), 4, {"stride": 2}),
    ((1, 9), 3, {"stride": 3}),
    ((1, 1), 2, {"stride": 2}),
    ((2, 4), 4, {"stride": 2, "groups": 2}),
    ((1, 1), 3, {}),
    ((1, 2), 4, {"stride": 2, "dilation": 3}),
    ((2, 3), (4, 3), {"stride": (2, 1), "padding": 1}),
    ((2, 2), (1, 3), {"dilation": (1, 2)}),
]


def test_circular_maps_are_orthogonal(each):
    for (channels, kernel_size, options), size in each(
        itertools.product(ORTHOGONAL, [(6, 6), (6, 12)])
    ):
        layer = redrawn(BCOPConv2d(*channels, kernel_size, **options))
        values = torch.linalg.svdvals(matrix_of(layer, (channels[0], *size)))
        assert torch.allclose(values, torch.ones_like(values), atol=1e-9, rtol=0)
        assert 1 <= float(onelip.lipschitz_bound(layer)) <= 1 + 1e-8


def test_bjorck_gives_an_orthogonal_kernel_too():
    layer = redrawn(BCOPConv2d(3, 2, 3, orthogonalise=partial(bjorck, iterations=80)))
    values = torch.linalg.svdvals(matrix_of(layer, (3, 4, 4)))
    assert torch.allclose(values, torch.ones_like(values), atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [(5, 5), (3, 7), (4, 2)], ids=str)
def test_sides_need_not_be_even_without_stride(size):
    layer = redrawn(BCOPConv2d(3, 4, 3))
    values = torch.linalg.svdvals(matrix_of(layer, (3, *size)))
    assert torch.allclose(values, torch.ones_like(values), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 3)])
def test_one_channel_to_one_is_a_shift(channels, groups):
    """Of no other kernel is the symbol 1 everywhere."""
    for kernel_size in (2, 3, (4, 1)):
        layer = redrawn(BCOPConv2d(channels, channels, kernel_size, groups=groups, bias=False))
        assert int((layer.weight != 0).sum()) == channels
        x = torch.randn(1, channels, 4, 5, dtype=torch.float64)
        assert torch.equal(layer(x).abs(), x.abs())


@pytest.mark.parametrize("kernel_size", [2, 3, 5])
def test_zero_padding_contracts_and_loses_the_border(kernel_size):
    layer = redrawn(BCOPConv2d(3, 3, kernel_size, padding_mode="zeros"))
    values = torch.linalg.svdvals(matrix_of(layer, (3, 5, 5)))
    assert float(values.max()) <= 1 + 1e-12
    assert float(values.min()) < 0.9


def test_wide_circular_padding_repeats_pixels_and_the_bound_says_so():
    layer = redrawn(BCOPConv2d(2, 2, 3, padding=3))
    for size in ((3, 3), (5, 4)):
        norm = sigma_max(matrix_of(layer, (2, *size)))
        assert 1.4 < norm <= float(onelip.lipschitz_bound(layer))


# Values of others


METHODS = {
    "qr": ClassParam(BatchedQROrthogonalization),
    "bjorck": ClassParam(BatchedBjorckOrthogonalization, niters=40),
}


def test_values_of_orthogonium(each):
    """From its free matrices; ``channels`` are those of one group."""
    for channels, kernel_size, groups, method in each(
        itertools.product([(4, 4), (6, 4), (4, 6), (8, 4)], [2, 3, 4, 5], [1, 2], METHODS)
    ):
        theirs = FastBlockConv2d(
            *(channel * groups for channel in channels),
            kernel_size,
            groups=groups,
            ortho_params=OrthoParams(BatchedIdentity, METHODS[method]),
        ).double()
        free = torch.randn_like(theirs.parametrizations.weight.original) / 4
        theirs.parametrizations.weight.original.data = free
        small, large = sorted(channels)
        ours = BCOPConv2d(large * groups, small * groups, kernel_size, groups=groups).double()
        steps = kernel_size - 1
        order = [0, 2, 1, 3] if steps == 4 else range(steps)
        for i in range(groups):
            mirrors = [torch.eye(large).double() - 2 * projector(free[i, j]) for j in (0, 1)]
            h = (mirrors[0] @ mirrors[1])[:, :small]
            ours.raw_matrix.data[i] = h.T if small == large else h
            bases = [basis for j in order for basis in (free[i, 2 + steps + j], free[i, 2 + j])]
            ours.raw_bases.data.unflatten(0, (groups, -1))[i] = torch.stack(bases)
        found = ours.weight.unflatten(0, (groups, -1)).transpose(3, 4)  # (groups, out, in, k, k)
        if channels[0] <= channels[1]:
            found = found.transpose(1, 2)
        assert torch.allclose(found.flatten(0, 1), theirs.weight, atol=1e-10)


# Errors


@pytest.mark.parametrize(
    ("kernel_size", "options", "message"),
    [
        (3, {"stride": 2}, r"a stride of \(2, 2\) needs a kernel_size that it divides"),
        (1, {"stride": 2}, "AOCConv2d takes any that has an orthogonal kernel"),
        (4, {"stride": 2, "dilation": 2}, r"common divisor, got \(4, 4\) and \(2, 2\)"),
        (3, {"groups": 2}, "groups=2 must divide 3 and 4 channels"),
        (0, {}, "must be positive"),
        (3, {"stride": 0}, "must be positive"),
        (3, {"dilation": 0}, "must be positive"),
        (3, {"groups": 0}, "must be positive"),
    ],
)
def test_preconditions(kernel_size, options, message):
    with pytest.raises(ValueError, match=message):
        BCOPConv2d(3, 4, kernel_size, **options)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_that_repeats_pixels(mode):
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        BCOPConv2d(3, 4, 3, padding_mode=mode)


def test_images_that_the_stride_does_not_divide():
    layer = BCOPConv2d(1, 3, 2, stride=2)
    with pytest.raises(ValueError, match="circular padding with stride 2 needs sides that it"):
        layer(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"proved for images of \(4, 4\), got \(6, 4\)"):
        BCOPConv2d(1, 3, 2, image_size=4)(torch.zeros(1, 1, 6, 4))
