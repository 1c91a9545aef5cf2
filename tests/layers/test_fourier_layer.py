"""What all layers of the Fourier domain share: transforms, bound, export, sizes and types."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip import norms
from onelip.errors import NonFiniteError
from onelip.layers import BROConv2d, CayleyConv2d, FixedFourierConv2d, LOTConv2d, computed_once
from onelip.layers.fourier_layer import symbol
from tests.oracles import full_transform, matrix_of, sigma_max

FAMILIES = [BROConv2d, CayleyConv2d, LOTConv2d]
SIZES = [(1, 1), (1, 4), (2, 1), (2, 2), (3, 3), (4, 5), (5, 4), (6, 2)]
SHAPES = [(2, 2), (2, 3), (3, 2), (1, 1)]


def correlate(x: Tensor, kernel: Tensor) -> Tensor:
    """``y[p] = sum_u K[u] x[p + u - c]``, indices modulo the image, tap by tap."""
    centre = (kernel.shape[-1] - 1) // 2
    taps = itertools.product(range(kernel.shape[-2]), range(kernel.shape[-1]))
    return sum(
        torch.einsum("oi,bihw->bohw", kernel[:, :, u, v], x.roll((centre - u, centre - v), (2, 3)))
        for u, v in taps
    )


def blocks_in_effect(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """All frequencies: mirrored, and averaged in the columns that mirror themselves."""
    height, width = size
    full = torch.zeros(height, width, *spectrum.shape[2:], dtype=torch.complex128)
    for i, j in itertools.product(range(height), range(width // 2 + 1)):
        other = (-i % height, -j % width)
        if other[1] == j:
            full[i, j] = (spectrum[i, j] + spectrum[other].conj()) / 2
        else:
            full[i, j] = spectrum[i, j]
            full[other] = spectrum[i, j].conj()
    return full


def random_spectrum(size: tuple[int, int], rows: int = 2, columns: int = 3) -> Tensor:
    return torch.randn(size[0], size[1] // 2 + 1, rows, columns, dtype=torch.complex128)


def test_textbook_transform_is_right():
    """The oracle against the oracle: correlation by rolling, and nn.Conv2d."""
    conv = nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular", bias=False).double()
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    assert torch.allclose(correlate(x, conv.weight), conv(x), atol=1e-14)


def test_the_symbol_is_that_of_a_same_convolution(each):
    """For even kernels too, and for those that wrap around the image."""
    for size, kernel_size in each(itertools.product(SIZES, [1, 2, 3, 4, 7])):
        kernel = torch.randn(3, 2, kernel_size, kernel_size, dtype=torch.float64)
        x = torch.randn(2, 2, *size, dtype=torch.float64)
        layer = FixedFourierConv2d(symbol(kernel, size), None, image_size=size)
        assert torch.allclose(layer(x), correlate(x, kernel), atol=1e-13)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_spectrum_acts_as_its_hermitian_part(size):
    spectrum, bias = random_spectrum(size), torch.randn(2, dtype=torch.float64)
    layer = FixedFourierConv2d(spectrum, bias, image_size=size)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    effect = blocks_in_effect(spectrum, size)
    expected = full_transform(x, effect)
    assert float(expected.imag.abs().max()) < 1e-13
    assert torch.allclose(layer(x), expected.real + bias[:, None, None], atol=1e-13)
    found = torch.linalg.svdvals(matrix_of(layer, (3, *size)))
    blockwise = torch.linalg.svdvals(effect).flatten()
    assert torch.allclose(found, blockwise.sort(descending=True).values, atol=1e-12)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_bound_covers_any_spectrum_and_is_attained_by_hermitian_ones(size):
    layer = FixedFourierConv2d(random_spectrum(size), None, image_size=size)
    assert float(onelip.lipschitz_bound(layer)) >= sigma_max(matrix_of(layer, (3, *size)))
    kernel = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    layer = FixedFourierConv2d(symbol(kernel, size), None, image_size=size)
    exact = sigma_max(matrix_of(layer, (3, *size)))
    bound = float(onelip.lipschitz_bound(layer))
    assert exact <= bound <= exact * (1 + 1e-8)


def test_an_imaginary_block_of_a_self_conjugate_frequency_vanishes():
    """What the transform drops is counted: a bound, not an estimate of the norm."""
    layer = FixedFourierConv2d(torch.full((1, 1, 1, 1), 1j), None, image_size=1)
    assert float(layer(torch.ones(1, 1, 1, 1))) == 0
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, rel=1e-8)


def test_the_bound_finds_the_largest_block_in_any_chunk(monkeypatch):
    spectrum = random_spectrum((4, 5))
    whole = norms.dense(spectrum)
    monkeypatch.setattr("onelip.layers.fourier_layer._CHUNK", 2 * 6)
    found = onelip.lipschitz_bound(FixedFourierConv2d(spectrum, None, image_size=(4, 5)))
    assert float(found) == pytest.approx(float(whole), rel=1e-9)
    assert float(found) >= float(torch.linalg.svdvals(spectrum).max())


def test_orthogonal_as_built(each):
    for family, shape, size in each(itertools.product(FAMILIES, SHAPES, SIZES)):
        layer = family(*shape, 3, image_size=size).double()
        values = torch.linalg.svdvals(matrix_of(layer, (shape[0], *size)))
        assert torch.allclose(values, torch.ones_like(values), atol=1e-12)
        assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-8)


def violent(layer: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), lr=30.0)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for _ in range(3):
        optimizer.zero_grad()
        y = layer(x)
        (y * torch.randn_like(y)).sum().backward()
        optimizer.step()
    assert all((value - before[name]).abs().max() > 1 for name, value in layer.named_parameters())


def test_after_violent_steps_export_and_a_state_dict(each):
    for family, shape, size in each(
        itertools.product(FAMILIES, [(2, 2), (2, 3), (4, 2)], [(4, 4), (3, 5)])
    ):
        layer = family(*shape, 3, image_size=size).double()
        violent(layer, torch.randn(4, shape[0], *size, dtype=torch.float64))
        loaded = family(*shape, 3, image_size=size).double()
        loaded.load_state_dict(layer.state_dict())
        for other in (layer, loaded, onelip.export(layer)):
            values = torch.linalg.svdvals(matrix_of(other, (shape[0], *size)))
            assert float(values.max()) <= 1 + 1e-9
            if family is not LOTConv2d:  # whose iteration may not have converged
                assert float(values.min()) >= 1 - 1e-9
            bound = float(onelip.lipschitz_bound(other))
            assert float(values.max()) <= bound * (1 + 1e-14)
            assert bound <= float(values.max()) * (1 + 1e-8)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 2)], ids=str)
def test_export_is_a_convolution_with_a_kernel_of_the_image_s_size(family, size):
    layer = family(2, 3, 3, image_size=size).double()
    nn.init.normal_(layer.raw_weight)
    nn.init.normal_(layer.bias)
    exported = onelip.export(layer)
    assert type(exported) is FixedFourierConv2d
    x = torch.randn(4, 2, *size, dtype=torch.float64)
    assert torch.allclose(exported(x), layer(x), atol=1e-14)
    plain = nn.Conv2d(2, 3, size, padding="same", padding_mode="circular").double()
    plain.bias = nn.Parameter(exported.bias)
    centre = ((size[0] - 1) // 2, (size[1] - 1) // 2)
    with torch.no_grad():
        for channel in range(2):
            pulse = torch.zeros(1, 2, *size, dtype=torch.float64)
            pulse[0, channel, 0, 0] = 1
            response = exported(pulse)[0] - exported.bias[:, None, None]
            for u, v in itertools.product(range(size[0]), range(size[1])):
                plain.weight[:, channel, u, v] = response[:, centre[0] - u, centre[1] - v]
        assert torch.allclose(plain(x), exported(x), atol=1e-13)
    norm = norms.convolution(plain.weight, image_size=size, padding="same", padding_mode="circular")
    assert float(norm) == pytest.approx(float(onelip.lipschitz_bound(exported)), rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kernel_size", "stride"), [(4, 2), (2, 2), (3, 3)])
def test_a_stride_is_downsampling_first(family, kernel_size, stride):
    size = (2 * stride, 3 * stride)
    layer = family(2, 5, kernel_size, image_size=size, stride=stride).double()
    nn.init.normal_(layer.bias)
    inner = family(2 * stride**2, 5, kernel_size // stride, image_size=(2, 3)).double()
    inner.load_state_dict(layer.state_dict())
    x = torch.randn(3, 2, *size, dtype=torch.float64)
    assert torch.equal(layer(x), inner(F.pixel_unshuffle(x, stride)))
    assert layer(x).shape == (3, 5, 2, 3)
    values = torch.linalg.svdvals(matrix_of(onelip.export(layer), (2, *size)))
    assert torch.allclose(values, torch.ones_like(values), atol=1e-12)
    with pytest.raises(ValueError, match="proved for images of"):
        layer(torch.zeros(1, 2, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize("family", FAMILIES)
def test_computed_once_holds_one_spectrum_and_gives_the_same_gradients(family):
    layer = family(2, 3, 3, image_size=(3, 4)).double()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    (layer(x) * layer(2 * x)).sum().backward()
    expected = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    with computed_once(layer):
        assert layer.weight is layer.weight
        (layer(x) * layer(2 * x)).sum().backward()
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-12)
    assert layer.weight is not layer.weight
    assert layer.weight.shape == (3, 3, 3, 2)
    with torch.no_grad():
        layer.raw_weight.normal_()
        changed = layer.weight
    with torch.no_grad(), computed_once(layer.eval()):
        assert torch.equal(layer.weight, changed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2)], ids=str)
def test_gradients_with_respect_to_the_weights(family, shape):
    """Some lengths are taken as constants inside, where they do not matter."""
    layer = family(*shape, 3, image_size=(2, 3)).double()
    nn.init.normal_(layer.raw_weight)
    x = torch.randn(1, shape[0], 2, 3, dtype=torch.float64)
    names, values = zip(*layer.named_parameters(), strict=True)

    def output(*values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, values, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_export_rounds_once(family):
    layer = family(3, 2, 3, image_size=4)
    exported, wide = onelip.export(layer), copy.deepcopy(layer).double()
    assert exported.spectrum.dtype == torch.float32
    assert torch.equal(exported.weight, wide.weight.to(torch.complex64))
    doubled = copy.deepcopy(exported).double()
    assert doubled.weight.dtype == torch.complex128
    assert torch.equal(doubled.weight.to(torch.complex64), exported.weight)
    assert float(onelip.lipschitz_bound(exported)) == pytest.approx(1, abs=2e-7)
    assert set(exported.state_dict()) == {"spectrum", "bias"}
    assert "2, " in repr(exported)


@pytest.mark.parametrize("family", FAMILIES)
def test_never_in_half_precision(family):
    layer = family(2, 2, 3, image_size=4, bias=False)
    x = torch.randn(2, 2, 4, 4)
    for other in (layer, onelip.export(layer)):
        expected = other(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(other(x), expected)
            assert torch.equal(other(x.bfloat16()), other(x.bfloat16().float()).bfloat16())
        half = copy.deepcopy(other).bfloat16()
        assert half.weight.dtype == torch.complex64
        assert half(x.bfloat16()).dtype == torch.bfloat16
        assert float(onelip.lipschitz_bound(half)) == pytest.approx(1, abs=1e-2)
        with pytest.raises(RuntimeError, match=r"expected|dtype"):
            other(x.double())


@pytest.mark.parametrize("family", FAMILIES)
def test_channels_last_changes_nothing(family):
    layer = family(2, 3, 3, image_size=4)
    x = torch.randn(2, 2, 4, 4)
    for other in (layer, onelip.export(layer)):
        moved = copy.deepcopy(other).to(memory_format=torch.channels_last)
        found = moved(x.contiguous(memory_format=torch.channels_last))
        assert torch.allclose(found, other(x), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_broken_weights_have_no_bound(family):
    layer = family(2, 2, 3, image_size=4)
    layer.raw_weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError):
        onelip.lipschitz_bound(layer)


@pytest.mark.parametrize("family", FAMILIES)
def test_preconditions(family):
    with pytest.raises(TypeError, match="image_size"):
        family(2, 2, 3)
    with pytest.raises(ValueError, match="stride=2 must divide kernel_size=3"):
        family(2, 2, 3, image_size=4, stride=2)
    with pytest.raises(ValueError, match=r"stride=2 must divide image_size=\(4, 5\)"):
        family(2, 2, 2, image_size=(4, 5), stride=2)
    with pytest.raises(ValueError, match="must divide image_size"):
        family(2, 2, 1, image_size=0)
    for sizes in ((0, 2, 3), (2, 0, 3), (2, 2, 0)):
        with pytest.raises(ValueError, match="must be positive"):
            family(*sizes, image_size=4)
    with pytest.raises(ValueError, match=r"proved for images of \(4, 6\), got \(6, 4\)"):
        family(2, 2, 3, image_size=(4, 6))(torch.zeros(1, 2, 6, 4))
    assert "image_size=(4, 6), stride=1" in repr(family(2, 2, 3, image_size=(4, 6)))


def test_preconditions_of_the_fixed_form():
    spectrum = torch.zeros(4, 3, 2, 2, dtype=torch.cfloat)
    with pytest.raises(ValueError, match=r"4 x 3 blocks, got shape \(4, 4, 2, 2\)"):
        FixedFourierConv2d(torch.zeros(4, 4, 2, 2).cfloat(), None, image_size=4)
    with pytest.raises(ValueError, match="must be complex"):
        FixedFourierConv2d(spectrum.real, None, image_size=4)
    layer = FixedFourierConv2d(spectrum, None, image_size=(4, 5))
    with pytest.raises(ValueError, match="proved for images of"):
        layer(torch.zeros(1, 2, 4, 4))
    assert float(onelip.lipschitz_bound(layer)) == 0
