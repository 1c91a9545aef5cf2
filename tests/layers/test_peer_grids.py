"""Configurations that users of orthogonium and deel-torchlip rely on, one by one.

A layer of a grid is built with torch's arguments, given random weights and exported. All singular
values on a small image must be 1, within 1e-5, or its norm at most 1; or else it is refused with a
sentence that says why. The counts are part of the test, so that none goes missing.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import layers
from onelip.layers.cayley import cayley

ORTHOGONAL, CONTRACTS = "orthogonal", "at most 1"
Build = Callable[[], nn.Module]
Configuration = tuple[Build, tuple[int, ...], str]
"""How to build a layer, the shape of an image, and what it must be."""


def random(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return layer


@torch.no_grad()
def verdict(layer: nn.Module, shape: tuple[int, ...]) -> str:
    """What the Gram matrix on the smaller side says; of an orthogonal map, the bound does, too."""
    fixed = onelip.export(random(layer))
    zero = fixed(torch.zeros(1, *shape))
    basis = torch.eye(math.prod(shape)).view(-1, *shape)
    matrix = (fixed(basis) - zero).flatten(1)
    gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    # |G - I| is at most its largest sum of a row, and 2e-5 for a singular value of 1 - 1e-5
    if float((gram - torch.eye(len(gram))).abs().sum(1).max()) < 2e-5:
        assert 1 - 1e-5 < float(onelip.lipschitz_bound(fixed)) <= 1 + 1e-5
        return ORTHOGONAL
    norm = float(torch.linalg.eigvalsh(gram.double())[-1]) ** 0.5
    return CONTRACTS if norm <= 1 + 1e-5 else f"stretches by {norm:.4f}"


def outcomes(configurations: Iterator[Configuration]) -> Counter[str]:
    """How often what must be is, and how often what else happens instead."""
    counts: Counter[str] = Counter()
    for i, (build, shape, must) in enumerate(configurations):
        torch.manual_seed(i)
        try:
            found = verdict(build(), shape)
        except (ValueError, TypeError, RuntimeError) as error:
            found = f"{type(error).__name__}: {error}"
        if found == ORTHOGONAL and must == CONTRACTS:
            found = CONTRACTS
        counts[found if found == must else f"{must}: {found}"] += 1
    return counts


def side_for(kernel: int, stride: int, dilation: int = 1) -> int:
    """A small image that circular padding fits, in whole strides."""
    least = max(2, dilation * (kernel - 1) // 2 + 1)
    return -(-least // stride) * stride


def grid(
    kind: Callable[..., nn.Module],
    kernels: list[int],
    inputs: list[int],
    outputs: list[int],
    strides: list[int],
    *,
    dilations: tuple[int, ...] = (1,),
    groups: tuple[int, ...] = (1,),
    must: str = ORTHOGONAL,
    pairs: bool = False,
    **options: Any,
) -> Iterator[Configuration]:
    """All configurations whose groups divide and whose stride is at most the kernel."""
    for k, i, o, s, d, g in itertools.product(kernels, inputs, outputs, strides, dilations, groups):
        if i % g or o % g or s > k:
            continue
        kernel, stride = ((k, k), (s, s)) if pairs else (k, s)
        build = partial(kind, i, o, kernel, stride, groups=g, **options)
        if d > 1:
            build = partial(build, dilation=(d, d) if pairs else d)
        side = side_for(k, s, d)
        yield build, (i, side, side), must


def dilated(pairs: bool) -> Iterator[Configuration]:
    """Strides with dilation, in which a map is orthogonal only where there is one."""
    settings = itertools.product([2, 3, 4, 5], [8, 16], [8, 16], [2, 3], [1, 2, 4])
    for k, i, o, d, g in settings:
        (one,) = grid(
            layers.AOCConv2d, [k], [i], [o], [2], dilations=(d,), groups=(g,), pairs=pairs
        )
        common = math.gcd(d, 2)
        possible = common == 1 or o <= i * (2 // common) ** 2
        yield one if possible else (*one[:2], "impossible")


def transposed() -> Iterator[Configuration]:
    for k, i, o, s, g in itertools.product([1, 2, 3], [4, 8, 16], [4, 8, 32], [1, 2], [1, 2]):
        if s <= k:
            isometric = ORTHOGONAL if i <= o * s**2 else CONTRACTS
            build = partial(layers.AOCConvTranspose2d, i, o, k, s, 0, 0, g)
            yield build, (i, 3, 3), isometric


def exponential(stack: Tensor) -> Tensor:
    """Orthonormal columns from the exponential of a skew matrix."""
    wide = torch.nn.functional.pad(stack, (0, stack.shape[1] - stack.shape[2]))
    return torch.linalg.matrix_exp(wide - wide.mT)[..., : stack.shape[2]]


ORTHOGONALISERS = {
    "Cholesky": layers.cholesky_qr,
    "Bjorck": partial(layers.bjorck, iterations=120),
    "Bjorck-Bowie power": partial(layers.bjorck, iterations=60, order=3),
    "QR": lambda stack: torch.linalg.qr(stack).Q,
    "Cayley": cayley,
    "exponential": exponential,
}


def orthogonalisers(
    kernels: list[int], channels: list[int], strides: list[int], groups: tuple[int, ...]
) -> Iterator[Configuration]:
    for method in ORTHOGONALISERS.values():
        for kernel, stride in itertools.product(kernels, strides):
            yield from grid(
                layers.AOCConv2d,
                [kernel],
                channels,
                channels,
                [stride],
                groups=groups,
                orthogonalise=method,
            )


def windows() -> Iterator[Configuration]:
    """Kernels as large as the stride, with each orthogonaliser."""
    for side in (1, 2):
        yield from orthogonalisers([side], [4, 8], [side], (1, 2))
    for side in (1, 2):
        yield from grid(layers.AOCConv2d, [side], [4, 8, 32], [32], [side], groups=(1, 2))
        yield from grid(layers.AOCConv2d, [side], [32], [4, 8], [side], groups=(1, 2))


def reshaped() -> Iterator[Configuration]:
    """RKO on the grids of AOC without dilation."""
    few = {"groups": (1, 2, 4), "pairs": True}
    for k, s in itertools.product([1, 3, 5], [1, 2]):
        must = ORTHOGONAL if k == s else CONTRACTS
        yield from grid(layers.RKOConv2d, [k], [8, 16], [8, 16], [s], must=must, **few)
    for k, s in itertools.product([3, 4, 5], [2, 4]):
        must = ORTHOGONAL if k == s else CONTRACTS
        yield from grid(layers.RKOConv2d, [k], [2, 4, 32], [2, 4, 32], [s], must=must)
    yield from grid(layers.RKOConv2d, [2, 4], [8, 16], [8, 16], [1], must=CONTRACTS, **few)
    yield from grid(layers.RKOConv2d, [2], [4, 8, 32], [4, 8, 32], [2], groups=(1, 2))
    yield from grid(layers.RKOConv2d, [3, 5], [1, 2], [1, 2], [1, 2], must=CONTRACTS)


def almost_orthogonal() -> Iterator[Configuration]:
    each = itertools.product([2, 3], [4, 8], [4, 8], [1, 4], [1, 3])
    for k, i, o, g, times in each:
        options = {"groups": g, "rescalings": times}
        yield partial(layers.AOLConv2d, i, o, (k, k), **options), (i, 4, 4), CONTRACTS
        yield partial(layers.AOLConvTranspose2d, i, o, (k, k), **options), (i, 4, 4), CONTRACTS


def spectral() -> Iterator[Configuration]:
    """Those of deel-torchlip, with pairs and by position, times a constant: their ``k_coef``."""

    def scaled(kind: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
        return nn.Sequential(kind(*arguments), layers.Rescale(0.5, trained=False))

    numbers = itertools.product([(1, 1), (3, 3), (3, 2), 5], [(1, 1), (2, 2), 2], [(0, 0), (1, 1)])
    for kernel, stride, padding in numbers:
        for kind in (layers.RKOConv2d, layers.AOLConv2d):
            yield (
                partial(scaled, kind, 4, 6, kernel, stride, padding, 1, 2, True, "zeros"),
                (4, 6, 6),
                CONTRACTS,
            )
        for kind in (layers.RKOConvTranspose2d, layers.AOLConvTranspose2d):
            small = kernel if padding == (0, 0) else (3, 3)
            yield partial(scaled, kind, 4, 6, small, stride, padding), (4, 4, 4), CONTRACTS
    for kernel, stride in itertools.product([1, 3, 4, (3,)], [1, 2, (2,)]):
        for kind in (layers.RKOConv1d, layers.AOLConv1d):
            yield partial(kind, 4, 6, kernel, stride, 0, 1, 2, True, "zeros"), (4, 8), CONTRACTS
    for window in (2, 3, (2, 3)):
        yield partial(layers.ScaledAvgPool2d, window), (2, 6, 6), ORTHOGONAL
    for block in (2, 3):
        yield partial(layers.InvertibleDownsampling, block), (2, 6, 6), ORTHOGONAL
        yield partial(nn.PixelShuffle, block), (36, 2, 2), ORTHOGONAL


def few_channels() -> Iterator[Configuration]:
    yield from grid(layers.AOCConv2d, [1, 3, 5], [1, 2], [1, 2], [1, 2])


def skew() -> Iterator[Configuration]:
    """21 terms: what 13 leave out is 1e-4 of the longest turns."""
    soc = partial(layers.SOCConv2d, export_terms=21)
    yield from grid(soc, [1, 3], [8, 16], [8, 16], [1], groups=(1, 2, 4))
    for build, (channels, *_), must in grid(soc, [4], [2, 4, 16], [2, 4, 16], [2]):
        yield build, (channels, 4, 4), must


def residuals() -> Iterator[Configuration]:
    """Sums, concatenations and steps around convolutions, on images of 8 x 8; all are affine.

    The AOC block is a reflection where its activation is the identity: then it is orthogonal.
    """
    shape = (4, 8, 8)
    for kernel in (1, 3):
        conv = partial(layers.AOCConv2d, 4, 4, kernel, bias=False)
        half = partial(layers.AOCConv2d, 2, 2, kernel)
        yield lambda conv=conv: layers.Residual(conv(), 0.3), shape, CONTRACTS
        yield lambda half=half: layers.Split([nn.Identity(), half()]), shape, ORTHOGONAL
        yield lambda conv=conv: layers.Concatenated([nn.Identity(), conv()]), shape, ORTHOGONAL
        linear = nn.LeakyReLU(1.0)
        yield lambda conv=conv, f=linear: layers.AdjointResidual(conv(), f), shape, ORTHOGONAL
    for sides in (2, 3):
        yield partial(layers.InvertibleUpsampling, sides), (36, 2, 2), ORTHOGONAL
        yield partial(layers.ChannelShuffle, sides), (6, 2, 2), ORTHOGONAL
    yield layers.ScaledAdaptiveAvgPool2d, (2, 6, 6), ORTHOGONAL
    yield partial(layers.LayerCentering, 3), (3, 4, 4), CONTRACTS
    yield partial(layers.BatchCentering, 3), (3, 4, 4), ORTHOGONAL


def frobenius() -> Iterator[Configuration]:
    """Each ``k_coef`` of deel-torchlip, divided out; a head of one output attains it."""

    def divided(k: float, *arguments: Any) -> nn.Module:
        kind = layers.FrobeniusLinear if len(arguments) == 2 else layers.FrobeniusConv2d
        return nn.Sequential(kind(*arguments, k=k), layers.Rescale(1 / k, trained=False))

    for k in (0.5, 1.0, 3.0):
        yield partial(divided, k, 6, 1), (6,), ORTHOGONAL
        yield partial(divided, k, 6, 4), (6,), CONTRACTS
        for kernel, stride in ((1, 1), (3, 1), (3, 2)):
            yield partial(divided, k, 2, 4, kernel, stride), (2, 6, 6), CONTRACTS


AOC = partial(grid, layers.AOCConv2d)
GRIDS: dict[str, tuple[Callable[[], Iterator[Configuration]], dict[str, int]]] = {
    "AOC": (
        lambda: AOC([1, 3, 5], [8, 16], [8, 16], [1, 2], groups=(1, 2, 4)),
        {ORTHOGONAL: 60},
    ),
    "AOC in pairs, same": (
        lambda: AOC(
            [1, 3, 5], [8, 16], [8, 16], [1, 2], groups=(1, 2, 4), pairs=True, padding="same"
        ),
        {ORTHOGONAL: 60},
    ),
    "AOC with dilation": (
        lambda: AOC(
            [2, 3, 4, 5], [8, 16], [8, 16], [1], dilations=(2,), groups=(1, 2, 4), pairs=True
        ),
        {ORTHOGONAL: 48},
    ),
    "AOC with dilation and stride": (
        lambda: dilated(pairs=True),
        {ORTHOGONAL: 84, "impossible": 12},
    ),
    "AOC with strides": (
        lambda: AOC([3, 4, 5], [2, 4, 32], [2, 4, 32], [2, 4], pairs=True),
        {ORTHOGONAL: 45},
    ),
    "AOC with even kernels": (
        lambda: AOC([2, 4], [8, 16], [8, 16], [1], groups=(1, 2, 4)),
        {ORTHOGONAL: 24},
    ),
    "AOC as large as the stride": (windows, {ORTHOGONAL: 116}),
    "AOC of few channels": (few_channels, {ORTHOGONAL: 20}),
    "AOC by each method": (
        lambda: orthogonalisers([1, 3], [8, 16], [1, 2], (1, 2)),
        {ORTHOGONAL: 144},
    ),
    "AOC transposed": (transposed, {ORTHOGONAL: 72, CONTRACTS: 18}),
    "SOC": (skew, {ORTHOGONAL: 33}),
    "RKO": (reshaped, {ORTHOGONAL: 39, CONTRACTS: 124}),
    "AOL": (almost_orthogonal, {CONTRACTS: 64}),
    "residuals": (residuals, {ORTHOGONAL: 12, CONTRACTS: 3}),
    "Frobenius": (frobenius, {ORTHOGONAL: 3, CONTRACTS: 12}),
    "torchlip": (spectral, {ORTHOGONAL: 7, CONTRACTS: 120}),
}


def refused(counts: Counter[str]) -> dict[str, int]:
    """Counts in which a refusal with a sentence is one name."""
    told: Counter[str] = Counter()
    for found, count in counts.items():
        why = "impossible: ValueError: no kernel is orthogonal for kernel_size"
        told["impossible" if found.startswith(why) else found] += count
    return dict(told)


@pytest.mark.parametrize("name", GRIDS)
def test_every_configuration_is_what_it_must_be_or_refused_with_the_reason(name):
    configurations, expected = GRIDS[name]
    assert refused(outcomes(configurations())) == expected
