"""Skew orthogonal convolutions against matrices written out, and their two gradients."""

import copy
import io
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import onelip
from onelip import layers
from onelip.errors import NonFiniteError, NotApplicableError, UnboundedModuleError
from onelip.layers.soc import skew
from onelip.layers.soc_gradient import exact_series, fast_series
from onelip.norms.exponential import truncated_exponential
from tests.oracles import matrix_of, sigma_max

MODES = ["zeros", "circular"]


def _soc(*arguments, **options) -> layers.SOCConv2d:
    layer = layers.SOCConv2d(*arguments, **options).double().eval()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def _operator(kernel: torch.Tensor, padding_mode: str, side: int) -> torch.Tensor:
    """The matrix of the convolution, one tap of one pixel at a time."""
    channels, reach = len(kernel), kernel.shape[-1] // 2
    matrix = torch.zeros(channels, side, side, channels, side, side, dtype=torch.float64)
    for y in range(side):
        for x in range(side):
            for u in range(-reach, reach + 1):
                for v in range(-reach, reach + 1):
                    row, column = y + u, x + v
                    if padding_mode == "circular":
                        row, column = row % side, column % side
                    if 0 <= row < side and 0 <= column < side:
                        matrix[:, y, x, :, row, column] += kernel[:, :, u + reach, v + reach]
    return matrix.view(channels * side**2, -1)


def _series(matrix: torch.Tensor, terms: int) -> torch.Tensor:
    power, total = torch.eye(len(matrix), dtype=torch.float64), 0
    for j in range(terms):
        total = total + power / math.factorial(j)
        power = power @ matrix
    return total


def _skew_kernel(norm: float, channels: int = 2, size: int = 3) -> torch.Tensor:
    """With this norm on images of 4 x 4, circular."""
    free = torch.randn(channels, channels, size, size, dtype=torch.float64)
    kernel = skew(free)
    return kernel * (norm / sigma_max(_operator(kernel, "circular", 4)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_convolution_is_skew(mode, size):
    layer = _soc(3, 3, size, padding_mode=mode)
    matrix = _operator(layer.kernel().detach(), mode, 4)
    assert matrix.any()
    assert torch.allclose(matrix, -matrix.T, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_kernel_is_skew_to_the_last_bit_in_every_dtype(dtype):
    layer = layers.SOCConv2d(3, 3, 3).to(dtype).eval()
    kernel = layer.kernel().detach()
    assert kernel.dtype == dtype
    assert torch.equal(kernel, -kernel.flip(2, 3).transpose(0, 1))
    onelip.lipschitz_bound(layer)


def test_the_series_is_the_one_of_the_matrix(each):
    for exact_gradient, terms, mode in each(itertools.product([True, False], [2, 3, 6, 9], MODES)):
        layer = _soc(2, 2, 3, padding_mode=mode, terms=terms, exact_gradient=exact_gradient)
        expected = _series(_operator(layer.kernel().detach(), mode, 3), terms)
        assert torch.allclose(matrix_of(layer, (2, 3, 3)), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(2, 5, 1), (5, 2, 1), (1, 3, 2)])
def test_channels_are_filled_up_and_cut_off(inputs, outputs, stride):
    layer = _soc(inputs, outputs, 3, stride=stride)
    x = torch.randn(2, inputs, 6, 4, dtype=torch.float64)
    unshuffled = F.pixel_unshuffle(x, stride)
    zeros = torch.zeros(2, layer.channels - unshuffled.shape[1], *unshuffled.shape[2:])
    whole = torch.cat([unshuffled, zeros.double()], 1)
    z = exact_series(whole, layer.kernel(), layer.terms, "circular")[:, :outputs]
    assert torch.allclose(layer(x), z + layer.bias.view(1, -1, 1, 1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("inputs", "outputs", "stride"), [(2, 2, 1), (2, 4, 1), (4, 2, 1), (1, 4, 2), (1, 6, 2)]
)
def test_the_export_is_orthogonal_or_an_isometry_on_the_narrower_side(
    mode, inputs, outputs, stride
):
    layer = _soc(inputs, outputs, 3, stride=stride, padding_mode=mode, export_terms=21)
    _violent_steps(layer, (inputs, 4, 4))
    exported = onelip.export(layer)
    matrix = matrix_of(exported, (inputs, 4, 4))
    narrower = matrix.T @ matrix if len(matrix) > len(matrix.T) else matrix @ matrix.T
    assert torch.allclose(narrower, torch.eye(len(narrower)).double(), rtol=0, atol=1e-9)
    assert float(onelip.lipschitz_bound(exported)) <= 1 + 1e-9
    stored = io.BytesIO()
    torch.save(exported.state_dict(), stored)
    stored.seek(0)
    fresh = onelip.export(_soc(inputs, outputs, 3, stride=stride, padding_mode=mode))
    fresh.terms = 21
    fresh.load_state_dict(torch.load(stored))
    assert torch.equal(matrix_of(fresh, (inputs, 4, 4)), matrix)
    assert torch.equal(onelip.lipschitz_bound(fresh), onelip.lipschitz_bound(exported))


def _violent_steps(layer: nn.Module, shape: tuple[int, ...]) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e3)
    before = copy.deepcopy(layer.state_dict())
    layer.train()
    for _ in range(3):
        y = layer(torch.randn(4, *shape, dtype=torch.float64))
        optimizer.zero_grad()
        (y * torch.randn_like(y)).sum().backward()
        optimizer.step()
    layer.train()(torch.randn(1, *shape, dtype=torch.float64))
    layer.eval()
    assert not torch.equal(layer.state_dict()["raw_weight"], before["raw_weight"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("correction", [0.3, 0.7, 1.5, 4.0])
def test_the_bound_is_that_of_the_norm_on_this_image(mode, correction):
    layer = _soc(2, 2, 3, padding_mode=mode, correction=correction, image_size=4)
    stretch = sigma_max(matrix_of(layer, (2, 4, 4)))
    bound = float(onelip.lipschitz_bound(layer))
    norm = sigma_max(_operator(layer.kernel().detach(), mode, 4))
    assert bound == pytest.approx(float(truncated_exponential(norm, 6)), rel=1e-6)
    assert stretch * (1 - 1e-12) <= bound
    if norm < 1.5:  # the value grows with the angle
        assert bound <= stretch * (1 + 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_with_a_stride_the_norm_is_that_on_the_smaller_image(mode):
    layer = _soc(1, 4, 3, stride=2, padding_mode=mode, image_size=4, terms=3)
    norms = [sigma_max(_operator(layer.kernel().detach(), mode, side)) for side in (2, 4)]
    assert norms[0] < 0.99 * norms[1]
    bound = float(onelip.lipschitz_bound(layer))
    assert bound == pytest.approx(float(truncated_exponential(norms[0], 3)), rel=1e-6)


def test_thirteen_terms_of_any_kernel_scaled_as_in_the_papers_stretch_nothing():
    """k times the estimate is above the norm, so that is at most 2.1 for 3 x 3."""
    for _ in range(10):
        layer = _soc(3, 3, 3)
        assert float(onelip.lipschitz_bound(onelip.export(layer))) == 1
        assert 1 < float(onelip.lipschitz_bound(layer)) < 1.005


@pytest.mark.parametrize("terms", [5, 9, 13])
def test_training_with_these_terms_stretches_nothing(terms):
    assert float(onelip.lipschitz_bound(_soc(4, 4, 3, terms=terms))) == 1


# gradients


@pytest.mark.parametrize("mode", MODES)
def test_the_exact_gradient_by_finite_differences(mode):
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    free = (0.4 * torch.randn(2, 2, 3, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, free: exact_series(x, skew(free), 6, mode), (x, free))


@pytest.mark.parametrize("inputs", [2, 1])
@pytest.mark.parametrize("mode", MODES)
def test_the_whole_layer_by_finite_differences(mode, inputs):
    """Weights, bias and the estimate they are divided by."""
    layer = _soc(inputs, 2, 3, padding_mode=mode, exact_gradient=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    x = torch.randn(2, inputs, 3, 4, dtype=torch.float64, requires_grad=True)
    assert names == ["raw_weight", "bias"]
    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


def _gradients(
    series, x: torch.Tensor, kernel: torch.Tensor, g: torch.Tensor, terms: int, mode: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, kernel = x.clone().requires_grad_(), kernel.clone().requires_grad_()
    z = series(x, kernel, terms, mode)
    z.backward(g)
    return z.detach(), x.grad, kernel.grad


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("terms", [2, 3, 6])
def test_the_fast_series_has_the_exact_values_and_input_gradients(mode, terms):
    x, g = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64)
    kernel = _skew_kernel(1.0)
    exact = _gradients(exact_series, x, kernel, g, terms, mode)
    fast = _gradients(fast_series, x, kernel, g, terms, mode)
    assert torch.equal(exact[0], fast[0])
    assert torch.allclose(exact[1], fast[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("terms", [2, 3, 6])
def test_the_fast_gradient_is_equation_5(mode, terms):
    """``-(u1 v1^T - v1 u1^T)`` of the matrix, summed over the places where each tap stands."""
    side, kernel = 3, _skew_kernel(1.0)
    x, g = torch.randn(2, 1, 2, side, side, dtype=torch.float64)
    matrix = _operator(kernel, mode, side)
    u, v = x.flatten(), g.flatten()
    for i in range(terms - 2, 0, -1):
        u, v = x.flatten() + matrix @ u / (i + 1), g.flatten() - matrix @ v / (i + 1)
    outer = -(torch.outer(u, v) - torch.outer(v, u))
    expected = torch.autograd.functional.vjp(lambda k: _operator(k, mode, side), kernel, outer)[1]
    fast = _gradients(fast_series, x, kernel, g, terms, mode)[2]
    assert torch.allclose(skew(fast), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mode", MODES)
def test_the_fast_gradient_is_off_by_the_square_of_the_norm(mode):
    """By the gradient that ``(L g) (L x)^T / 12`` has."""
    x, g = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64)
    unit, errors = _skew_kernel(1.0), []
    for norm in (0.01, 0.1, 1.0):
        kernel = norm * unit
        exact = skew(_gradients(exact_series, x, kernel, g, 12, mode)[2])
        fast = skew(_gradients(fast_series, x, kernel, g, 12, mode)[2])
        errors.append(float((fast - exact).norm() / exact.norm()))
    assert errors[1] / errors[0] == pytest.approx(100, rel=0.05)
    assert 1e-3 < errors[2] < 0.1
    kernel = (1e-3 * unit).requires_grad_()
    moved = [exact_series(a, kernel, 2, mode) - a for a in (g, x)]  # L g and L x
    tap_by_tap = torch.nn.grad.conv2d_weight(
        *_wrapped(moved[1].detach(), mode), kernel.shape, moved[0].detach()
    )
    difference = (
        _gradients(exact_series, x, kernel.detach(), g, 12, mode)[2]
        - _gradients(fast_series, x, kernel.detach(), g, 12, mode)[2]
    )
    assert torch.allclose(
        skew(difference), skew(tap_by_tap) / 12, rtol=0, atol=0.01 * float(difference.abs().max())
    )


def _wrapped(x: torch.Tensor, mode: str) -> tuple[torch.Tensor]:
    return (F.pad(x, (1,) * 4, mode="circular" if mode == "circular" else "constant"),)


def test_both_gradients_reach_every_parameter():
    found = {}
    for exact_gradient in (True, False):
        torch.manual_seed(0)
        layer = _soc(2, 3, 3, exact_gradient=exact_gradient).train()
        torch.manual_seed(1)
        y = layer(torch.randn(4, 2, 5, 5, dtype=torch.float64))
        (y * torch.randn_like(y)).sum().backward()
        found[exact_gradient] = [p.grad for p in layer.parameters()]
    (weight, bias), (fast_weight, fast_bias) = found[True], found[False]
    assert torch.equal(bias, fast_bias)
    assert 0 < float((weight - fast_weight).norm()) < 0.2 * float(weight.norm())


def test_the_gradient_of_the_kernel_is_not_computed_in_vain(monkeypatch):
    import sys

    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(sys.modules["onelip.layers.soc_gradient"], "conv2d_weight", refuse)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    fast_series(x, _skew_kernel(1.0), 6, "zeros").sum().backward()
    assert x.grad is not None


def test_a_gradient_penalty_gets_the_fast_gradient_too():
    """In x everything is exact; the kernel's share is equation 5, off by the second order."""
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    found, kernel = {}, _skew_kernel(0.3).requires_grad_()
    for series in (fast_series, exact_series):
        output = (weights * series(x, kernel, 8, "circular")).sin().sum()
        (slope,) = torch.autograd.grad(output, x, create_graph=True)
        found[series] = torch.autograd.grad(slope.square().sum(), (x, kernel))
    fast, exact = found[fast_series], found[exact_series]
    assert torch.allclose(fast[0], exact[0], rtol=1e-10, atol=1e-12)
    off = skew(fast[1] - exact[1])  # of the kernels that are skew
    assert float(off.norm()) < 0.1 * float(skew(exact[1]).norm())


def test_the_fast_gradient_of_the_kernel_refuses_a_second_derivative():
    """It is no gradient of a function: silence would be wrong."""
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    kernel = _skew_kernel(1.0).requires_grad_()
    value = fast_series(x, kernel, 6, "zeros").square().sum()
    (once,) = torch.autograd.grad(value, kernel, create_graph=True)
    with pytest.raises(NotApplicableError, match="exact_gradient=True"):
        once.sum().backward()


def test_a_layer_that_is_used_twice():
    layer = layers.SOCConv2d(2, 2, 3).train()
    layer(layer(torch.randn(1, 2, 4, 4))).sum().backward()
    assert layer.raw_weight.grad.isfinite().all()


def test_descent_finds_a_rotation():
    """The fast gradient is good enough to learn from: a layer finds another's function."""
    target = _soc(4, 4, 3)
    layer = _soc(4, 4, 3).train()
    optimizer = torch.optim.SGD(layer.parameters(), lr=2.0, momentum=0.9)
    x = torch.randn(16, 4, 6, 6, dtype=torch.float64)
    errors = []
    for _ in range(150):
        error = (layer(x) - target(x).detach()).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 1e-3 * errors[0]


def test_compiled_it_is_the_same():
    layer = _soc(2, 3, 3).train()
    twin, x = copy.deepcopy(layer), torch.randn(2, 2, 5, 5, dtype=torch.float64)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for run in (compiled, twin):
        run(x).square().sum().backward()
    assert torch.allclose(layer.raw_weight.grad, twin.raw_weight.grad, rtol=0, atol=1e-12)
    assert torch.allclose(layer.rows_direction, twin.rows_direction, rtol=0, atol=1e-14)


# precision


def test_autocast_runs_the_series_in_its_precision_and_keeps_the_kernel():
    layer = layers.SOCConv2d(4, 4, 3).train()
    x = torch.randn(2, 4, 8, 8)
    before = copy.deepcopy(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        kernel = layer.kernel()
    assert y.dtype in (torch.bfloat16, torch.float32)
    assert torch.equal(kernel, layer.kernel())
    assert kernel.dtype == torch.float32
    y.sum().backward()
    assert layer.raw_weight.grad.dtype == torch.float32
    full = before(x)
    assert 0 < (y - full).abs().max() < 0.05
    full.sum().backward()
    error = (layer.raw_weight.grad - before.raw_weight.grad).norm()
    assert error < 0.05 * before.raw_weight.grad.norm()


# the estimate, in training


@pytest.mark.parametrize("smaller", ["squares", "rows"])
def test_the_estimate_is_the_smaller_norm_of_two_matrices(smaller):
    layer = _soc(3, 3, 3, correction=1.0)
    if smaller == "rows":  # channel a turned, at each tap (a, b)
        turn = torch.linalg.qr(torch.randn(3, 3)).Q
        layer.raw_weight.data = torch.einsum("ca,bd->cdab", turn, torch.eye(3)).double()
    layer.power_steps([layer], 2000)
    kernel = skew(layer.raw_weight.detach())
    rows = kernel.flatten(1), kernel.transpose(0, 1).flatten(1)
    squares = kernel.transpose(1, 2).reshape(9, 9), kernel.permute(0, 3, 1, 2).reshape(9, 9)
    rows, squares = [sigma_max(one) for one in rows], [sigma_max(one) for one in squares]
    assert rows[0] == pytest.approx(rows[1], rel=1e-12)
    assert squares[0] == pytest.approx(squares[1], rel=1e-12)
    assert (rows[0] < squares[0]) == (smaller == "rows")
    assert torch.allclose(layer.kernel(), kernel / min(rows[0], squares[0]), rtol=1e-5)
    assert sigma_max(_operator(kernel, "circular", 6)) < 3 * min(rows[0], squares[0])


def test_power_steps_are_taken_in_training_only():
    layer = _soc(3, 3, 3)
    nn.init.normal_(layer.raw_weight)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    before = copy.deepcopy(layer.state_dict())
    layer(x)
    onelip.lipschitz_bound(layer)
    assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)
    layer.train()(x)
    assert not torch.equal(layer.rows_direction, before["rows_direction"])
    assert not torch.equal(layer.square_direction, before["square_direction"])


@pytest.mark.parametrize("training", [True, False])
def test_computed_once_gives_the_same(training):
    model = nn.Sequential(*(_soc(3, 3, 3) for _ in range(3)), _soc(3, 3, 3, correction=1.0))
    model.append(_soc(3, 2, 1))
    for layer in model:
        nn.init.normal_(layer.raw_weight)
    twin, x = copy.deepcopy(model.train(training)), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with layers.computed_once(model):
        together = model(x)
        bound = onelip.lipschitz_bound(model)
        together.square().sum().backward()
    alone = twin(x)
    alone.square().sum().backward()
    assert torch.allclose(together, alone, rtol=0, atol=1e-13)
    assert torch.allclose(bound, onelip.lipschitz_bound(twin), rtol=1e-13)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-11, atol=1e-11)
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("fill", [0.0, 1e-30, 1e30])
def test_kernels_that_cannot_be_scaled_do_no_harm(fill):
    """Constant ones are symmetric: their skew part is 0, and the layer the identity."""
    layer = _soc(2, 2, 3, bias=False, image_size=4)
    directions = layer.rows_direction.clone()
    nn.init.constant_(layer.raw_weight, fill)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    y = layer.train()(x)
    y.sum().backward()
    assert torch.equal(y, x)
    assert torch.equal(layer.rows_direction, directions)
    assert layer.raw_weight.grad.isfinite().all()
    assert float(onelip.lipschitz_bound(layer.eval())) == 1


def test_one_channel_can_turn():
    layer = _soc(1, 1, 3)
    assert layer.kernel().any()
    assert matrix_of(layer, (1, 4, 4)).det() == pytest.approx(1, rel=0.2)


# what is refused


def test_a_weight_that_is_not_finite():
    layer = _soc(2, 2, 3)
    layer.raw_weight.data[0, 1, 0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        onelip.lipschitz_bound(layer)


@pytest.mark.parametrize(
    ("inputs", "outputs", "stride"), [(4, 4, 1), (2, 6, 1), (6, 2, 1), (2, 4, 2)]
)
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "fast"])
def test_groups_are_layers_of_their_own(inputs, outputs, stride, exact):
    """Values, gradients and power steps."""
    options = {"stride": stride, "exact_gradient": exact, "image_size": 4}
    layer = layers.SOCConv2d(inputs, outputs, 3, groups=2, **options).double()
    x = torch.randn(2, inputs, 4, 4, dtype=torch.float64)
    alone, parts = [], []
    for i in range(2):
        twin = layers.SOCConv2d(inputs // 2, outputs // 2, 3, **options).double()
        twin.raw_weight.data = layer.raw_weight.data.chunk(2)[i].clone()
        twin.rows_direction.copy_(layer.rows_direction.chunk(2)[i])
        twin.square_direction.copy_(layer.square_direction.chunk(2)[i])
        alone.append(twin)
        parts.append(twin(x.chunk(2, 1)[i]))
    y = layer(x)
    assert torch.allclose(y, torch.cat(parts, 1), atol=1e-12)
    g = torch.randn_like(y)
    (y * g).sum().backward()
    (torch.cat(parts, 1) * g).sum().backward()
    wanted = torch.cat([twin.raw_weight.grad for twin in alone])
    assert torch.allclose(layer.raw_weight.grad, wanted, atol=1e-12)
    bounds = [float(onelip.lipschitz_bound(twin)) for twin in alone]
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(max(bounds), rel=1e-9)


def test_a_group_that_is_zero_leaves_the_others_alone():
    layer = layers.SOCConv2d(4, 4, 3, groups=2)
    layer.raw_weight.data[:2] = 0
    before = layer.rows_direction.clone()
    layer.power_steps([layer])
    assert torch.equal(layer.rows_direction[:2], before[:2])
    assert not torch.equal(layer.rows_direction[2:], before[2:])


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_the_skew_kernel_of_an_even_one_is_the_next_odd_one(kernel_size):
    layer = layers.SOCConv2d(2, 2, kernel_size).double()
    odd = layers.SOCConv2d(2, 2, kernel_size + 1).double()
    odd.load_state_dict(layer.state_dict() | {"raw_weight": odd.raw_weight})
    odd.raw_weight.data.zero_()
    odd.raw_weight.data[..., :-1, :-1] = layer.raw_weight.data
    odd.known.copy_(layer.known)
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    assert torch.allclose(layer.eval()(x), odd.eval()(x), atol=1e-13)
    fixed = onelip.export(layer)
    values = torch.linalg.svdvals(matrix_of(fixed, (2, 6, 6)))
    assert torch.allclose(values, torch.ones_like(values), atol=1e-4)


def test_a_fixed_kernel_that_is_no_longer_skew():
    exported = onelip.export(_soc(2, 2, 3))
    exported.weight.data[0, 1, 0, 0] += 1e-9
    with pytest.raises(UnboundedModuleError, match="no longer skew"):
        onelip.lipschitz_bound(exported)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 0}, "must be positive"),
        ({"groups": 3}, "groups=3 must divide 2 and 2 channels"),
        ({"in_channels": 0}, "must be positive"),
        ({"terms": 1}, "terms=5 or more"),
        ({"correction": 0.0}, "correction must be positive"),
        ({"stride": 2, "image_size": 5}, "stride=2 must divide"),
        ({"stride": 2, "image_size": 2, "kernel_size": 5}, "padding_mode='zeros'"),
    ],
)
def test_what_cannot_be_built(options, message):
    arguments = {"in_channels": 2, "out_channels": 2, "kernel_size": 3, **options}
    with pytest.raises(ValueError, match=message):
        layers.SOCConv2d(**arguments)


def test_padding_that_repeats_pixels():
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        layers.SOCConv2d(2, 2, 3, padding_mode="reflect")


def test_an_export_that_would_be_refused_is_refused_at_once():
    with pytest.raises(ValueError, match="export_terms"):
        layers.SOCConv2d(2, 2, 3, export_terms=1)


def test_images_of_another_size():
    with pytest.raises(ValueError, match=r"proved for images of \(4, 4\)"):
        _soc(2, 2, 3, image_size=4)(torch.zeros(1, 2, 5, 5, dtype=torch.float64))


def test_a_fixed_kernel_of_the_wrong_shape():
    with pytest.raises(ValueError, match="must have shape"):
        layers.FixedSOCConv2d(torch.zeros(2, 2, 3, 3), None, 3, 2)


def test_a_bias_for_other_channels_is_not_repeated():
    """Added to an image of one channel, it would repeat the image: sqrt(2) times as long."""
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])[..., None, None]
    soc = layers.FixedSOCConv2d(turn, torch.zeros(2), 2, 2)
    soc.out_channels = 1
    fourier = layers.FixedFourierConv2d(
        torch.ones(2, 2, 1, 2, dtype=torch.cfloat), torch.zeros(1), image_size=(2, 2)
    )
    fourier.bias = nn.Parameter(torch.zeros(2))
    for layer in (soc, fourier):
        with pytest.raises(ValueError, match="a bias of shape"):
            layer(torch.ones(1, 2, 2, 2))
    with pytest.raises(ValueError, match="a bias of shape"):
        onelip.lipschitz_bound(soc)
