"""Bounds of convolutions against the materialised map, along both paths."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from flint import arb, ctx
from torch import Tensor, nn
from torch.nn import functional as F

from onelip import estimates, norms
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.norms import convolutions, symbol, torus
from tests.oracles import is_above, materialised, norm_below, sigma_max

module = convolutions


@pytest.fixture(params=["written out", "by rows", "fourier"])
def path(request, monkeypatch):
    _forced(monkeypatch, request.param)
    return request.param


def _forced(monkeypatch, path: str) -> None:
    """Small maps would be written out, and zero-padded ones proved row by row."""
    if path != "written out":
        monkeypatch.setattr(module, "_WRITTEN_OUT", 0)
    if path == "fourier":
        monkeypatch.setattr(module, "_BY_ROWS", 0)


@dataclass(frozen=True)
class Setting:
    """What describes a convolution besides its weight."""

    kernel: tuple[int, int] = (3, 3)
    image: tuple[int, int] = (5, 5)
    padding: int | tuple[int, int] | str = 0
    mode: str = "zeros"
    stride: int | tuple[int, int] = 1
    dilation: int | tuple[int, int] = 1
    groups: int = 1

    def options(self) -> dict:
        return {
            "padding": self.padding,
            "padding_mode": self.mode,
            "stride": self.stride,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def weight(self, outputs: int = 2, inputs: int = 2) -> Tensor:
        """float32 numbers, so that sums of wrapped taps are exact in float64."""
        shape = (outputs * self.groups, inputs, *self.kernel)
        return torch.randn(shape).float()

    def matrix(self, weight: Tensor) -> Tensor:
        channels = weight.shape[1] * self.groups
        layer = nn.Conv2d(
            channels,
            weight.shape[0],
            self.kernel,
            bias=False,
            dtype=torch.float64,
            **self.options(),
        )
        layer.weight.data = weight.double()
        with torch.no_grad():
            return materialised(layer, (channels, *self.image))

    def bound(self, weight: Tensor) -> Tensor:
        return norms.convolution(weight, image_size=self.image, **self.options())


ZEROS = [
    Setting(),
    Setting(padding=1),
    Setting(padding=1, image=(3, 6)),
    Setting(padding=(0, 1), image=(4, 3)),
    Setting(kernel=(1, 1)),
    Setting(kernel=(1, 1), padding=2, image=(2, 3)),
    Setting(kernel=(2, 2), padding=1),
    Setting(kernel=(4, 2), padding="same", image=(5, 4)),
    Setting(kernel=(2, 3), padding="same", dilation=(3, 1)),
    Setting(kernel=(5, 5), padding=2, image=(3, 3)),
    Setting(kernel=(5, 5), padding=4, image=(2, 2)),
    Setting(kernel=(3, 3), padding=5, image=(2, 3)),
    Setting(padding="valid", image=(3, 3)),
    Setting(padding=1, stride=2, image=(4, 4)),
    Setting(padding=1, stride=2),
    Setting(padding=2, stride=3, image=(5, 4)),
    Setting(kernel=(2, 2), stride=2, image=(4, 4)),
    Setting(kernel=(2, 2), stride=3, image=(7, 5)),
    Setting(kernel=(4, 4), padding=1, stride=2, image=(6, 6)),
    Setting(padding=2, dilation=2),
    Setting(padding=2, dilation=2, stride=2, image=(6, 5)),
    Setting(padding=1, dilation=(1, 2), stride=(2, 1), image=(5, 6)),
    Setting(padding=1, groups=2, image=(3, 4)),
    Setting(padding=1, groups=3, stride=2, image=(4, 4)),
]
CIRCULAR = [
    Setting(mode="circular", padding=1),
    Setting(mode="circular", padding=1, image=(4, 6)),
    Setting(mode="circular", padding="same", kernel=(2, 4), image=(4, 5)),
    Setting(mode="circular", padding=1, kernel=(2, 2), image=(3, 3)),
    Setting(mode="circular", padding=2, image=(4, 3)),
    Setting(mode="circular", padding=1, kernel=(1, 1), image=(1, 1)),
    Setting(mode="circular", padding=1, kernel=(1, 1), image=(2, 3)),
    Setting(mode="circular", padding=0, image=(4, 4)),
    Setting(mode="circular", padding=1, image=(2, 2)),
    Setting(mode="circular", padding=2, kernel=(5, 5), image=(3, 2)),
    Setting(mode="circular", padding=3, kernel=(7, 7), image=(3, 3)),
    Setting(mode="circular", padding=1, stride=2, image=(4, 4)),
    Setting(mode="circular", padding=1, stride=2, image=(3, 3)),
    Setting(mode="circular", padding=1, stride=2, image=(4, 5)),
    Setting(mode="circular", padding=2, stride=3, kernel=(4, 4), image=(5, 6)),
    Setting(mode="circular", padding=2, stride=2, image=(4, 4)),
    Setting(mode="circular", padding=2, dilation=2, image=(5, 4)),
    Setting(mode="circular", padding=2, dilation=2, stride=2, image=(6, 4)),
    Setting(mode="circular", padding=1, groups=2, image=(4, 3)),
]


def test_never_below_the_materialised_map(each, path: str):
    for setting in each(ZEROS + CIRCULAR):
        for outputs, inputs in ((1, 1), (2, 3), (3, 2)):
            weight = setting.weight(outputs, inputs)
            assert is_above(setting.bound(weight), norm_below(setting.matrix(weight)))


def test_never_below_on_kernels_that_attain_the_extremes(each, path: str):
    for setting, kind in each(
        itertools.product(ZEROS + CIRCULAR, ["box", "signs", "one tap", "rank 1"])
    ):
        weight = setting.weight(2, 2)
        if kind == "box":
            weight = torch.ones_like(weight)
        elif kind == "signs":
            weight = weight.sign()
        elif kind == "one tap":
            keep = torch.zeros_like(weight)
            keep[..., -1, 0] = weight[..., -1, 0]
            weight = keep
        else:
            weight = weight[:, :1, :1, :1] * weight[:1]
        assert is_above(setting.bound(weight), norm_below(setting.matrix(weight)))


def test_small_maps_are_exact(each):
    """Also where taps wrap onto each other; kernels of ones lose most on a torus."""
    for setting in each(ZEROS + CIRCULAR):
        for weight in (setting.weight(), torch.ones_like(setting.weight())):
            truth = sigma_max(setting.matrix(weight))
            assert float(setting.bound(weight)) == pytest.approx(truth, rel=1e-8)


@pytest.mark.parametrize("image", [(3, 30), (30, 3)], ids=str)
def test_narrow_images_either_way(image, monkeypatch):
    """Row by row, or column by column, whichever are the shorter."""
    monkeypatch.setattr(module, "_WRITTEN_OUT", 0)
    monkeypatch.setattr(module, "_BY_ROWS", 40 * 6.0**3)
    setting = Setting(padding=1, image=image)
    weight = torch.ones_like(setting.weight(1, 1))
    truth = sigma_max(setting.matrix(weight))
    assert float(setting.bound(weight)) == pytest.approx(truth, rel=1e-8)


def test_circular_maps_are_tight(each, path):
    for image, stride in each(itertools.product([(4, 4), (5, 3), (8, 8)], [1, 2])):
        if any(size % stride for size in image):
            continue  # the phases do not close
        setting = Setting(image=image, padding=1, mode="circular", stride=stride)
        weight = setting.weight(3, 2)
        truth = sigma_max(setting.matrix(weight))
        assert float(setting.bound(weight)) == pytest.approx(truth, rel=1e-8)


def test_zero_padding_on_the_torus_is_not_far(monkeypatch):
    _forced(monkeypatch, "fourier")
    setting = Setting(padding=1, image=(12, 12))
    for _ in range(5):
        weight = setting.weight(1, 1)
        assert float(setting.bound(weight)) <= 1.1 * sigma_max(setting.matrix(weight))


def test_dtypes_and_scales(each, path):
    for dtype, scale in each(
        itertools.product(
            [torch.float64, torch.float32, torch.float16, torch.bfloat16], [1e-30, 1.0, 1e30]
        )
    ):
        setting = Setting(padding=1, image=(4, 4))
        weight = (setting.weight() * scale).to(dtype)
        if not weight.isfinite().all():
            with pytest.raises(NonFiniteError):
                setting.bound(weight)
            continue
        assert is_above(setting.bound(weight), norm_below(setting.matrix(weight)))


def test_subnormal_and_zero_weights(path):
    setting = Setting(padding=1, mode="circular", image=(4, 4))
    weight = setting.weight().sign() * 1.4e-45
    assert is_above(setting.bound(weight), norm_below(setting.matrix(weight)))
    assert float(setting.bound(torch.zeros(2, 2, 3, 3))) <= 1e-140


def test_groups_that_differ_take_the_largest(path):
    weight = torch.randn(4, 1, 3, 3) * torch.tensor([1e-3, 1.0, 30.0, 0.1]).view(4, 1, 1, 1)
    setting = Setting(padding=1, groups=4, mode="circular")
    alone = Setting(padding=1, mode="circular")
    largest = max(float(alone.bound(weight[i : i + 1])) for i in range(4))
    assert float(setting.bound(weight)) == pytest.approx(largest, rel=1e-8)


def test_chunks_change_nothing(monkeypatch):
    _forced(monkeypatch, "fourier")
    setting = Setting(padding=1, image=(6, 6))
    weight = setting.weight()
    whole = setting.bound(weight)
    monkeypatch.setattr(torus, "_CHUNK", 10)
    assert float(setting.bound(weight)) == pytest.approx(float(whole), rel=1e-8)


def test_one_dimensional_norms_by_hand():
    """Taps [1, 1]: 2 cos(pi / (2 n + 1)) between two ends, 2 on a circle."""
    weight = torch.ones(1, 1, 1, 2)
    for n in (2, 3, 7):
        valid = norms.convolution(weight, image_size=(1, n))
        assert float(valid) == pytest.approx(2 * math.cos(math.pi / (2 * n)), rel=1e-8)
        circle = norms.convolution(
            weight, image_size=(1, n), padding="same", padding_mode="circular"
        )
        assert float(circle) == pytest.approx(2, rel=1e-8)


# Without an image size


EVERY_SIZE = [
    Setting(padding=1),
    Setting(padding=0, kernel=(2, 3)),
    Setting(padding=3, kernel=(2, 2)),
    Setting(padding=1, stride=2),
    Setting(padding=1, stride=3, kernel=(4, 4)),
    Setting(padding=2, dilation=2),
    Setting(padding="same", kernel=(4, 4)),
    Setting(padding=1, groups=2),
    Setting(padding=1, mode="circular"),
    Setting(padding="same", mode="circular", kernel=(2, 4)),
    Setting(padding=1, mode="circular", stride=2),
    Setting(padding=1, mode="circular", stride=3),
    Setting(padding=1, mode="circular", kernel=(1, 1)),
    Setting(padding=1, mode="circular", kernel=(2, 2)),
    Setting(padding=2, mode="circular"),
    Setting(padding=2, mode="circular", dilation=2),
]


def test_every_size_is_above_each_size(each):
    for setting, kind in each(itertools.product(EVERY_SIZE, ["random", "ones"])):
        weight = setting.weight()
        if kind == "ones":
            weight = torch.ones_like(weight)
        bound = norms.convolution(weight, **setting.options())
        for height in range(1, 8):
            for width in (height, 5):
                sized = Setting(**{**vars(setting), "image": (height, width)})
                try:
                    matrix = sized.matrix(weight)
                except RuntimeError:
                    continue  # the kernel or the padding does not fit
                assert is_above(bound, norm_below(matrix)), (height, width)


@pytest.mark.parametrize("taps", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_size_is_close_to_the_supremum(taps, stride):
    """A polynomial that peaks on the grid pays the whole factor of Riesz, half a percent."""
    for weight in (torch.ones(1, 1, taps, taps), torch.randn(2, 2, taps, taps)):
        bound = norms.convolution(weight, stride=stride, padding=taps // 2)
        large = norms.convolution(
            weight,
            image_size=256 * stride,
            padding=(taps - 1) // 2,
            padding_mode="circular",
            stride=stride,
        )
        assert float(large) * 0.9995 <= float(bound) <= float(large) * 1.006


def test_riesz_between_grid_points():
    """The factor by which a polynomial may exceed its largest value on the grid."""
    degree, points = 2, 64
    fine = torch.arange(100_000) * (2 * math.pi / 100_000)
    coarse = torch.arange(points) * (2 * math.pi / points)
    for _ in range(50):
        a, b = torch.randn(2, degree + 1, dtype=torch.float64)
        values = [
            sum(
                a[k] * torch.cos(k * t.double()) + b[k] * torch.sin(k * t.double())
                for k in range(degree + 1)
            )
            for t in (fine, coarse)
        ]
        top = values[0].abs().max()
        assert top <= values[1].abs().max() / math.cos(math.pi * degree / points) + 1e-12


# Numbers below the symbol


@pytest.mark.parametrize("first", [1, 65, 129, 193])
def test_twiddles_keep_their_documented_error(first):
    """Every j / N for N up to 256, against cos and sin in ball arithmetic."""
    limit = symbol.TWIDDLE_ERROR
    with ctx.workprec(150):
        for size in range(first, first + 64):
            j = torch.arange(size)[:, None]
            computed = symbol.twiddles(symbol.Frequencies(j, (size,)), torch.tensor([[-1]]))[:, 0]
            for k, value in enumerate(computed.tolist()):
                angle = arb(2 * k) / size
                off = (arb(value.real) - angle.cos_pi()) ** 2 + (
                    arb(value.imag) + angle.sin_pi()
                ) ** 2
                assert off < arb(limit) ** 2, (size, k)


def test_products_of_twiddles_keep_the_sum_of_their_errors():
    grid = (31, 27)
    at = symbol.half_grid(grid)
    with ctx.workprec(150):
        for u, v, k in torch.randint(0, 10**6, (400, 3)).tolist():
            shift, place = (u % 5 - 2, v % 7 - 3), k % len(at)
            value = symbol.twiddles(at[place : place + 1], torch.tensor([shift]))[0, 0]
            y, x = at.numerators[place].tolist()
            angle = arb(2 * shift[0] * y) / grid[0] + arb(2 * shift[1] * x) / grid[1]
            off = (arb(value.real.item()) - angle.cos_pi()) ** 2
            off += (arb(value.imag.item()) - angle.sin_pi()) ** 2
            assert off < arb(2 * symbol.TWIDDLE_ERROR) ** 2


# Errors


def test_padding_that_is_not_known():
    with pytest.raises(UnboundedModuleError, match="padding_mode='nonsense'"):
        norms.convolution(torch.ones(1, 1, 3, 3), padding=1, padding_mode="nonsense")


def test_kernels_that_do_not_fit():
    with pytest.raises(ValueError, match="spans 5 pixels does not fit into 3"):
        norms.convolution(torch.ones(1, 1, 3, 3), image_size=3, dilation=2)


@pytest.mark.parametrize(("shape", "groups"), [((3, 1, 3, 3), 2), ((2, 2), 1), ((2, 1, 3, 3), 0)])
def test_shapes_that_are_no_kernel(shape, groups):
    with pytest.raises(ValueError, match="is no kernel"):
        norms.convolution(torch.ones(shape), groups=groups)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("size", [None, 4])
def test_non_finite_weights(value, size):
    weight = torch.ones(1, 1, 3, 3)
    weight[0, 0, 1, 1] = value
    with pytest.raises(NonFiniteError):
        norms.convolution(weight, image_size=size, padding=1)


def test_complex_kernels_are_not_halved():
    """Half the frequencies stand for the other half only if the kernel is real."""
    for _ in range(20):
        weight = torch.randn(2, 2, 3, 3, dtype=torch.complex128)
        matrix = materialised(
            lambda x, w=weight: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular").to(w), w),
            (2, 5, 5),
        )
        try:
            bound = norms.convolution(weight, image_size=5, padding=1, padding_mode="circular")
        except (TypeError, ValueError, RuntimeError):
            return
        assert is_above(bound, norm_below(matrix))


# Counting


def _random_kernels(count: int) -> Tensor:
    """Gaussian, heavy-tailed, sparse and integer kernels of 3 x 3 and one channel."""
    weights = torch.randn(count, 1, 1, 3, 3).float()
    weights[1::4] = weights[1::4] ** 3
    weights[2::4] *= torch.rand_like(weights[2::4]) < 0.4
    weights[3::4] = weights[3::4].round()
    return weights


def _norms(weights: Tensor, size: int, *, circular: bool) -> Tensor:
    """Exact norms of many kernels at once, from their materialised maps."""
    basis = torch.eye(size * size, dtype=torch.float64).view(-1, 1, size, size)
    padded = F.pad(basis, (1, 1, 1, 1), mode="circular" if circular else "constant")
    images = F.conv2d(padded, weights.flatten(0, 1).double())
    return torch.linalg.matrix_norm(images.flatten(2).permute(1, 2, 0), 2)


def _never_below(count: int, size: int, *, circular: bool) -> None:
    weights = _random_kernels(count)
    truths = _norms(weights, size, circular=circular)
    mode = "circular" if circular else "zeros"
    for weight, truth in zip(weights, truths.tolist(), strict=True):
        bound = norms.convolution(weight, image_size=size, padding=1, padding_mode=mode)
        assert float(bound) >= truth * (1 - 1e-14)


@pytest.mark.parametrize("circular", [False, True], ids=["zeros", "circular"])
@pytest.mark.parametrize(
    "size", [3, pytest.param(4, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow), 6]
)
def test_ten_thousand_kernels(size, circular, monkeypatch):
    """1250 of each kind, shared by the paths; half of the kinds with ``-m slow``."""
    for path, count in (("written out", 500), ("by rows", 150), ("fourier", 600)):
        _forced(monkeypatch, path)
        _never_below(count, size, circular=circular)


@pytest.mark.slow
@pytest.mark.parametrize("circular", [False, True], ids=["zeros", "circular"])
@pytest.mark.parametrize("size", [3, 4, 7, 9])
def test_hundred_thousand_kernels(size, circular, monkeypatch):
    _forced(monkeypatch, "fourier")
    _never_below(12_500, size, circular=circular)


def test_by_rows_is_exact(each, monkeypatch):
    """Every padding from none to more than the kernel, wide and narrow, on images that fit."""
    for stride, dilation, kernel in each(itertools.product([1, 2, 3], [1, 2], [1, 2, 3, 4])):
        _forced(monkeypatch, "by rows")
        for padding in range(kernel + 1):
            setting = Setting((kernel, kernel), (7, 9), padding, "zeros", stride, dilation)
            for outputs, inputs in ((1, 3), (3, 1)):
                weight = setting.weight(outputs, inputs)
                truth = sigma_max(setting.matrix(weight))
                assert truth * (1 - 1e-14) <= float(setting.bound(weight)) <= truth * (1 + 1e-8)


def test_a_bad_guess_costs_tightness_and_not_truth(monkeypatch):
    """Nothing is believed of Lanczos or of Cholesky."""
    _forced(monkeypatch, "by rows")
    setting = Setting(image=(8, 8), padding=1)
    weight = setting.weight()
    truth = sigma_max(setting.matrix(weight))
    real = module.banded._largest_eigenvalue
    for factor in (0.0, 0.5, 0.999999, 1.5, 100.0):
        with monkeypatch.context() as patch:
            patch.setattr(module.banded, "_largest_eigenvalue", lambda *a, f=factor: f * real(*a))
            assert float(setting.bound(weight)) >= truth
        with monkeypatch.context() as patch:
            wrong = lambda s, b, f=factor: module.banded._Factor(f * s, f * b)  # noqa: E731
            patch.setattr(module.banded, "_factor", wrong)
            assert float(setting.bound(weight)) >= truth


def test_an_image_too_large_to_write_out(monkeypatch):
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    exact = float(norms.convolution(weight, image_size=24, padding=1))
    _forced(monkeypatch, "fourier")
    on_the_torus = float(norms.convolution(weight, image_size=24, padding=1))
    assert exact < on_the_torus < 1.02 * exact
    power = estimates.power_iteration(
        lambda x: torch.nn.functional.conv2d(x, weight, padding=1),
        lambda y: torch.nn.functional.conv_transpose2d(y, weight, padding=1),
        torch.randn(1, 3, 24, 24, dtype=torch.float64),
        iterations=2000,
    )[0]
    assert float(power) <= exact <= float(power) * (1 + 1e-6)
