"""The Gram kernel's bound, what convolutions make of it, and the rules that came with it."""

import math
import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip import layers, norms
from onelip.norms import convolutions
from onelip.norms.gram_kernel import squared_norm
from tests.oracles import is_above, materialised, norm_below, sigma_max

module = convolutions


def circular(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """The matrix on a circle, from its definition: taps that meet on a small image add up."""
    outputs, inputs, height, width = kernel.shape
    matrix = torch.zeros(outputs, *size, inputs, *size, dtype=torch.float64)
    for y in range(size[0]):
        for x in range(size[1]):
            for u in range(height):
                for v in range(width):
                    matrix[:, y, x, :, (y + u) % size[0], (x + v) % size[1]] += kernel[:, :, u, v]
    return matrix.reshape(outputs * size[0] * size[1], -1)


def near_orthogonal(outputs: int, inputs: int, side: int, noise: float = 0) -> Tensor:
    layer = layers.AOCConv2d(inputs, outputs, side, bias=False).double()
    return layer.weight.detach() + noise * torch.randn_like(layer.weight)


def random_kernel(seed: int) -> Tensor:
    """Gaussian, heavy-tailed, sparse, integer, positive, one-tap and nearly orthogonal kernels."""
    draw = random.Random(seed).randint
    torch.manual_seed(seed)
    shape = draw(1, 4), draw(1, 4), draw(1, 4), draw(1, 4)
    kernel = torch.randn(shape, dtype=torch.float64)
    kinds = [
        kernel,
        kernel**3,
        kernel * (torch.rand_like(kernel) < 0.3),
        kernel.round(),
        kernel.abs(),
        torch.ones_like(kernel),
        kernel[..., :1, :1] * (torch.arange(shape[3]) == 0),
        near_orthogonal(shape[0], max(2, shape[1]), shape[2], 10.0 ** -draw(1, 12)),
    ]
    return kinds[seed % len(kinds)]


# The bound itself


@pytest.mark.parametrize("first", range(0, 800, 200))
def test_never_below_the_matrix_on_any_circle(first):
    for seed in range(first, first + 200):
        kernel = random_kernel(seed)
        peak = float(kernel.abs().max())
        kernel = kernel / peak if peak else kernel
        found = float(squared_norm(kernel[None]).sqrt())
        draw = random.Random(-seed).randint
        symbol = torch.fft.fft2(kernel, s=(draw(1, 9), draw(1, 9))) if seed % 5 else None
        if symbol is None:  # smaller than the kernel, where the transform would cut it
            norm = sigma_max(circular(kernel, (draw(1, 4), draw(1, 4))))
        elif symbol.shape[-2] >= kernel.shape[-2] and symbol.shape[-1] >= kernel.shape[-1]:
            norm = float(torch.linalg.matrix_norm(symbol.permute(2, 3, 0, 1), 2).max())
        else:
            continue
        assert found >= norm * (1 - 1e-14), seed


def test_never_below_in_ball_arithmetic():
    for seed in range(60):
        kernel = random_kernel(seed)[:3, :3]
        kernel = kernel / kernel.abs().max().clamp_min(1e-3)
        size = (seed % 3 + 1, seed % 4 + 1)
        matrix = circular(kernel, size)
        if matrix.any():
            assert is_above(squared_norm(kernel[None]).sqrt(), norm_below(matrix))


def test_groups_take_the_largest():
    kernels = torch.randn(4, 3, 2, 2, 3, dtype=torch.float64)
    kernels *= torch.tensor([1e-9, 0.3, 1, 0]).view(4, 1, 1, 1, 1)
    alone = [float(squared_norm(kernel[None])) for kernel in kernels]
    assert float(squared_norm(kernels)) == pytest.approx(max(alone), rel=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 5)], ids=str)
@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_orthogonal_kernels_are_proved_to_be(shape, side):
    """Whether the rows or the columns are orthonormal, the smaller side of the two is taken."""
    square = float(squared_norm(near_orthogonal(*shape, side)[None]))
    assert 1 - 1e-13 <= square <= 1 + 1e-12


def test_kernels_that_row_sums_prove():
    """Of one sign, and scaled as almost-orthogonal layers are: the Perron vector is exact."""
    for _ in range(20):
        rows, columns, taps = (torch.rand(n, dtype=torch.float64) for n in (3, 4, (3, 2)))
        kernel = torch.einsum("o,i,uv->oiuv", rows, columns, taps)
        exact = float(rows.norm() * columns.norm() * taps.sum())
        assert float(squared_norm(kernel[None]).sqrt()) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("kernel", [torch.zeros(2, 3, 3, 3), torch.full((1, 1, 1, 1), 2.0**-500)])
def test_zero_and_tiny_kernels(kernel):
    square = float(squared_norm(kernel.double()[None]))
    assert float(kernel.max()) ** 2 <= square < 1e-250


def test_a_zero_row_and_a_zero_column():
    kernel = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    kernel[1], kernel[:, 2] = 0, 0
    norm = sigma_max(circular(kernel, (4, 4)))
    assert norm <= float(squared_norm(kernel[None]).sqrt()) < 10 * norm


# In convolutions


def _setting(seed: int) -> dict:
    draw = random.Random(seed).randint
    groups = draw(1, 2)
    return {
        "shape": (draw(1, 3) * groups, draw(1, 3), draw(1, 4), draw(1, 4)),
        "stride": (draw(1, 3), draw(1, 3)),
        "dilation": (draw(1, 2), draw(1, 2)),
        "padding": [(draw(0, 3), draw(0, 3)), (draw(0, 5), 0), (1, 1)][draw(0, 2)],
        "padding_mode": ("zeros", "circular")[draw(0, 1)],
        "groups": groups,
        "size": (draw(1, 7), draw(1, 7)),
        "whole": draw(0, 1) == 1,
    }


def _convolved(x: Tensor, weight: Tensor, setting: dict) -> Tensor:
    padding = setting["padding"]
    if setting["padding_mode"] == "circular":
        up, left = padding
        x, padding = F.pad(x, (left, left, up, up), mode="circular"), 0
    return F.conv2d(
        x, weight, None, setting["stride"], padding, setting["dilation"], setting["groups"]
    )


PATHS = {
    "as it is": {},
    "fourier": {"_WRITTEN_OUT": 0, "_BY_ROWS": 0},
    "gram": {"_WRITTEN_OUT": 0, "_BY_ROWS": 0, "_NEARLY_ORTHOGONAL": math.inf},
}


def _never_below(seed: int) -> bool:
    """Whether the random setting was possible; its bound is compared with the exact norm."""
    setting = _setting(seed)
    torch.manual_seed(seed)
    weight = torch.randn(setting["shape"], dtype=torch.float64)
    weight = [weight, torch.ones_like(weight), weight * 10.0 ** (seed % 41 - 20)][seed % 3]
    size = setting["size"]
    if setting["whole"]:  # as the flag promises
        size = tuple(s * max(1, n // 2) for s, n in zip(setting["stride"], size, strict=True))
    channels = weight.shape[1] * setting["groups"]
    try:
        matrix = materialised(lambda x: _convolved(x, weight, setting), (channels, *size))
    except RuntimeError:
        return False  # the kernel does not fit, or the padding wraps around twice
    norm = sigma_max(matrix)
    options = {key: setting[key] for key in ("stride", "dilation", "padding", "padding_mode")}
    options |= {"groups": setting["groups"], "whole_strides": setting["whole"]}
    for known in (None, size) if seed % 2 else (None,):
        bound = norms.convolution(weight, image_size=known, **options)
        assert float(bound) >= norm * (1 - 1e-13), (seed, known, setting)
        if seed % 40 == 0 and matrix.any() and matrix.numel() < 1000:
            assert is_above(bound, norm_below(matrix))
    return True


@pytest.mark.parametrize("path", PATHS)
def test_random_settings_are_never_below(path, monkeypatch):
    """Strides, paddings, dilations, groups and images, divisible and not, with and without size."""
    for name, value in PATHS[path].items():
        monkeypatch.setattr(module, name, value)
    assert sum(map(_never_below, range(400))) > 150


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_ten_thousand_settings_are_never_below(path, monkeypatch):
    for name, value in PATHS[path].items():
        monkeypatch.setattr(module, name, value)
    assert sum(map(_never_below, range(10_000, 20_000))) > 5000


ORTHOGONAL = [
    (64, {}),
    (64, {"padding_mode": "zeros"}),
    (64, {"stride": 2}),
    (64, {"stride": 2, "padding_mode": "zeros"}),
    (64, {"stride": 3}),
    (64, {"dilation": 2}),
    (64, {"groups": 4}),
    (64, {"groups": 2, "stride": 2}),
    (96, {}),
]


@pytest.mark.parametrize(("channels", "options"), ORTHOGONAL, ids=str)
def test_wide_orthogonal_float32_kernels_for_every_image(channels, options):
    """Weights that were computed in double and rounded, as exports are."""
    layer = layers.AOCConv2d(channels, channels, 3, bias=False, **options)
    exported = onelip.export(layer)
    weight = exported.weight if isinstance(exported, nn.Conv2d) else exported.conv.weight
    assert weight.dtype == torch.float32
    assert 1 - 1e-4 <= float(onelip.lipschitz_bound(exported)) <= 1 + 1e-4


# Kernels that are orthogonal up to rounding are within 1e-4 for every size, also as trained, in
# float32: a shift of the Gram matrix by 4 units whatever its norm once gave 1.00014 here.
def test_wide_orthogonal_float32_kernels_as_they_are_trained():
    layer = layers.AOCConv1d(64, 64, 3, bias=False)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("size", [None, (6, 6)])
def test_the_scale_of_the_kernel(scale, size):
    kernel = near_orthogonal(4, 4, 3)
    options = {"image_size": size, "padding": 1, "padding_mode": "circular"}
    bound = float(norms.convolution(kernel * scale, **options))
    assert scale * (1 - 1e-15) <= bound <= scale * (1 + 1e-8)
    rough = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    found = float(norms.convolution(rough * scale, **options))
    assert found == pytest.approx(scale * float(norms.convolution(rough, **options)), rel=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
def test_kernels_scaled_as_almost_orthogonal_layers(stride):
    for seed in range(40):
        kernel = random_kernel(seed).float()
        outputs, inputs, height, width = kernel.shape
        layer = layers.AOLConv2d(inputs, outputs, max(height, width), stride=stride, bias=False)
        layer.raw_weight.data.zero_()
        layer.raw_weight.data[:, :, :height, :width] = kernel
        weight = layer.weight.detach()
        for mode in ("zeros", "circular"):
            found = norms.convolution(
                weight, padding_mode=mode, stride=stride, whole_strides=True, padding=0
            )
            assert float(found) <= 1 + 1e-6, (seed, mode)


# Strides that divide the image


@pytest.mark.parametrize("path", PATHS)
def test_whole_strides_count_only_where_the_size_is_not_given(path, monkeypatch):
    for name, value in PATHS[path].items():
        monkeypatch.setattr(module, name, value)
    weight = layers.AOCConv2d(2, 8, 3, stride=2, bias=False).double().weight.detach()
    options = {"stride": 2, "padding": 1, "padding_mode": "circular"}
    for size in ((5, 5), (4, 5), (3, 6)):
        odd = norms.convolution(weight, image_size=size, whole_strides=True, **options)
        assert float(odd) == float(norms.convolution(weight, image_size=size, **options))
        layer = nn.Conv2d(2, 8, 3, bias=False, dtype=torch.float64, **options)
        layer.weight.data = weight
        with torch.no_grad():
            norm = sigma_max(materialised(layer, (2, *size)))
        assert 1.05 < norm <= float(odd)


def test_the_promise_is_needed():
    """The bound for images that the stride divides is below the norm on one that it does not."""
    weight = layers.AOCConv2d(2, 8, 3, stride=2, bias=False).double().weight.detach()
    options = {"stride": 2, "padding": 1, "padding_mode": "circular"}
    divided = float(norms.convolution(weight, whole_strides=True, **options))
    every = float(norms.convolution(weight, **options))
    found = []
    for size in ((2, 2), (4, 6), (3, 3), (5, 5), (5, 4), (3, 7)):
        layer = nn.Conv2d(2, 8, 3, bias=False, dtype=torch.float64, **options)
        layer.weight.data = weight
        with torch.no_grad():
            found.append(sigma_max(materialised(layer, (2, *size))))
    assert max(found[:2]) <= divided <= 1 + 1e-8
    assert 1.1 < max(found[2:]) <= every


def test_zero_padding_needs_no_promise():
    weight = layers.AOCConv2d(2, 8, 3, stride=2, bias=False).double().weight.detach()
    options = {"stride": 2, "padding": 1}
    every = float(norms.convolution(weight, **options))
    assert every == float(norms.convolution(weight, whole_strides=True, **options)) <= 1 + 1e-8
    for size in ((3, 3), (5, 4), (1, 1), (7, 2)):
        matrix = materialised(lambda x: F.conv2d(x, weight, **options), (2, *size))
        assert sigma_max(matrix) <= every


def test_wide_padding_repeats_rows_of_orthogonal_kernels_too(monkeypatch):
    monkeypatch.setattr(module, "_WRITTEN_OUT", 0)
    for side, padding in ((1, 1), (2, 2), (3, 3), (3, 2)):
        weight = near_orthogonal(3, 3, side)
        options = {"padding": padding, "padding_mode": "circular"}
        every = float(norms.convolution(weight, **options))
        for size in range(max(1, padding), 6):
            layer = nn.Conv2d(3, 3, side, bias=False, dtype=torch.float64, **options)
            layer.weight.data = weight
            with torch.no_grad():
                norm = sigma_max(materialised(layer, (3, size, size)))
            known = float(norms.convolution(weight, image_size=size, **options))
            assert norm * (1 - 1e-14) <= known <= every


# Rules


def test_sequences_are_never_below():
    tried = 0
    for seed in range(160):
        draw = random.Random(seed).randint
        torch.manual_seed(seed)
        groups, stride = draw(1, 2), draw(1, 3)
        paddings = [draw(0, 3), "valid", "same" if stride == 1 else 1]
        conv = nn.Conv1d(
            draw(1, 3) * groups,
            draw(1, 3) * groups,
            draw(1, 4),
            stride=stride,
            padding=paddings[draw(0, 2)],
            dilation=draw(1, 3),
            groups=groups,
            bias=False,
            padding_mode=("zeros", "circular")[draw(0, 1)],
        ).double()
        if seed % 4 == 0:
            conv.weight.data.fill_(1)
        bound = onelip.lipschitz_bound(conv)
        for length in (draw(1, 4), draw(5, 12)):
            try:
                with torch.no_grad():
                    matrix = materialised(conv, (conv.in_channels, length))
            except RuntimeError:
                continue
            tried += 1
            assert float(bound) >= sigma_max(matrix) * (1 - 1e-13), (seed, length, conv)
    assert tried > 180


def test_transposed_convolutions_are_never_below():
    """With every output_padding, also those beyond the stride that a dilation allows."""
    beyond = 0
    for seed in range(200):
        draw = random.Random(seed).randint
        torch.manual_seed(seed)
        groups = draw(1, 2)
        stride, dilation = (draw(1, 3), draw(1, 3)), (draw(1, 3), draw(1, 3))
        extra = tuple(draw(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
        conv = nn.ConvTranspose2d(
            draw(1, 3) * groups,
            draw(1, 3) * groups,
            (draw(1, 3), draw(1, 4)),
            stride=stride,
            padding=(draw(0, 2), draw(0, 2)),
            output_padding=extra,
            dilation=dilation,
            groups=groups,
            bias=False,
        ).double()
        if seed % 4 == 0:
            conv.weight.data.fill_(1)
        try:
            with torch.no_grad():
                matrix = materialised(conv, (conv.in_channels, draw(1, 4), draw(1, 4)))
        except RuntimeError:
            continue
        beyond += any(e >= s for e, s in zip(extra, stride, strict=True))
        assert float(onelip.lipschitz_bound(conv)) >= sigma_max(matrix) * (1 - 1e-13), (seed, conv)
    assert beyond > 25


def test_the_rules_are_close_on_large_images():
    conv = nn.Conv1d(2, 3, 3, padding=1, bias=False).double()
    with torch.no_grad():
        norm = sigma_max(materialised(conv, (2, 120)))
    assert norm <= float(onelip.lipschitz_bound(conv)) <= 1.01 * norm
    conv = nn.ConvTranspose2d(2, 1, 3, stride=2, padding=1, bias=False).double()
    with torch.no_grad():
        norm = sigma_max(materialised(conv, (2, 12, 12)))
    assert norm <= float(onelip.lipschitz_bound(conv)) <= 1.1 * norm


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_sequences_that_repeat_their_ends(mode):
    """The bound holds for every length."""
    conv = nn.Conv1d(2, 2, 3, padding=1, padding_mode=mode, bias=False).double()
    for length in range(2, 9):
        with torch.no_grad():
            true = sigma_max(materialised(conv, (2, length)))
        assert float(onelip.lipschitz_bound(conv)) >= true


def test_derived_classes_have_no_rule():
    class Lazy(nn.ConvTranspose2d): ...

    with pytest.raises(onelip.errors.UnboundedModuleError, match="no Lipschitz bound is known"):
        onelip.lipschitz_bound(Lazy(1, 1, 1))
