"""Householder activations against reflections, sectors and polar coordinates."""

import itertools
import math

import pytest
import torch

import onelip
from onelip.errors import NonFiniteError
from onelip.layers import Householder, MaxMin
from onelip.layers.householder import fold

ANGLES = [0.0, 0.3, math.pi / 2, 2.0, math.pi, 5.0, -1.0, 1e4]


def _layer(*theta: float) -> Householder:
    """One pair of channels with these angles."""
    layer = Householder(2, order=(len(theta) + 1) // 2).double()
    layer.theta.data = torch.tensor(theta, dtype=torch.float64)[:, None]
    return layer.requires_grad_(False)


def _circle(count: int) -> torch.Tensor:
    angles = torch.linspace(-math.pi, math.pi, count, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], 1)


def _reflection(angle: float) -> torch.Tensor:
    """At the line through 0 at this angle."""
    c, s = math.cos(2 * angle), math.sin(2 * angle)
    return torch.tensor([[c, s], [s, -c]], dtype=torch.float64)


def _published_order_2(point: torch.Tensor, t0: float, t1: float, t2: float) -> torch.Tensor:
    """Four sectors of widths t1/2, t2/2, pi - t1/2, pi - t2/2 from the angle t0/2 on."""
    start = math.atan2(point[1], point[0]) - t0 / 2
    left = start % (2 * math.pi)
    piece = torch.eye(2, dtype=torch.float64)
    crease = t0 / 2
    for width in (t1 / 2, t2 / 2, math.pi - t1 / 2, math.pi - t2 / 2):
        if left < width:
            return piece @ point
        left, crease = left - width, crease + width
        piece = piece @ _reflection(crease)
    return piece @ point


def _as_tents(t0: float, t1: float, t2: float) -> tuple[float, float, float]:
    """The angles of the two peaks between those sectors, and how far apart they are in height."""
    return t0 + t1, t0 + t2 + 2 * math.pi, 2 * math.pi - t1 - t2


def test_starts_as_max_min():
    x = torch.randn(5, 8, 3)
    torch.testing.assert_close(Householder(8)(x), MaxMin()(x))
    torch.testing.assert_close(_layer(math.pi / 2)(x[:, :2].double()), MaxMin()(x[:, :2].double()))


@pytest.mark.parametrize("theta", ANGLES)
def test_order_1_is_a_reflection_of_one_side(theta):
    v = torch.tensor([math.sin(theta / 2), -math.cos(theta / 2)], dtype=torch.float64)
    mirror = torch.eye(2, dtype=torch.float64) - 2 * torch.outer(v, v)
    x = torch.randn(100, 2, dtype=torch.float64)
    expected = torch.stack([p if v @ p >= 0 else mirror @ p for p in x])
    assert 10 < sum(bool(v @ p >= 0) for p in x) < 90
    torch.testing.assert_close(_layer(theta)(x), expected)


def test_pairs_are_neighbours_with_angles_of_their_own():
    layer = Householder(6).double().requires_grad_(False)
    layer.theta.data = torch.tensor([[0.3, 2.0, 5.0]], dtype=torch.float64)
    x = torch.randn(4, 6, 3, 2, dtype=torch.float64)
    for i, theta in enumerate((0.3, 2.0, 5.0)):
        pair = x[:, 2 * i : 2 * i + 2].movedim(1, -1).reshape(-1, 2)
        expected = _layer(theta)(pair).reshape(4, 3, 2, 2).movedim(-1, 1)
        torch.testing.assert_close(layer(x)[:, 2 * i : 2 * i + 2], expected)


def test_order_2_is_the_published_one(each):
    for seed in each(range(20)):
        generator = torch.Generator().manual_seed(seed)
        angles = (2 * math.pi * torch.rand(3, generator=generator, dtype=torch.float64)).tolist()
        x = torch.randn(200, 2, dtype=torch.float64, generator=generator)
        expected = torch.stack([_published_order_2(p, *angles) for p in x])
        torch.testing.assert_close(_layer(*_as_tents(*angles))(x), expected)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_angles_against_polar_coordinates(order):
    """The highest tent, for angles out of any range, too."""
    theta = 5 * torch.randn(2 * order - 1, dtype=torch.float64)
    rays = [float(t) / 2 for t in theta[:order]]
    peaks = [rays[0], *(rays[0] + float(t) / 2 for t in theta[order:])]
    x = torch.randn(200, 2, dtype=torch.float64)
    expected = []
    for a, b in x.tolist():
        size, angle = math.hypot(a, b), math.atan2(b, a)
        tents = [
            peak - abs((angle - ray + math.pi) % (2 * math.pi) - math.pi)
            for ray, peak in zip(rays, peaks, strict=True)
        ]
        expected.append([size * math.cos(max(tents)), size * math.sin(max(tents))])
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(_layer(*theta.tolist())(x), expected)


def test_higher_orders_reduce_to_order_1():
    x = torch.randn(100, 2, dtype=torch.float64)
    for low in (-7.0, -20.0):
        torch.testing.assert_close(_layer(0.7, 2.0, low)(x), _layer(0.7)(x))
        torch.testing.assert_close(_layer(0.7, 2.0, 3.0, low, low)(x), _layer(0.7)(x))
    torch.testing.assert_close(
        _layer(*_as_tents(0.7, 2 * math.pi, 1.0))(x), _layer(0.7 + 2 * math.pi)(x)
    )
    assert not torch.allclose(_layer(0.7, 2.0, 0.0)(x), _layer(0.7)(x))


def test_contracts_and_keeps_norms(each):
    """Around the circle, across every crease: steps never grow, and two pieces at least differ."""
    for order, seed in each(itertools.product([1, 2, 3, 4], range(5))):
        theta = 4 * torch.randn(2 * order - 1, generator=torch.Generator().manual_seed(seed))
        layer, circle = _layer(*theta.tolist()), _circle(5001)
        image = layer(circle)
        torch.testing.assert_close(image.norm(dim=1), torch.ones(5001, dtype=torch.float64))
        steps = (image[1:] - image[:-1]).norm(dim=1) / (circle[1:] - circle[:-1]).norm(dim=1)
        assert float(steps.max()) <= 1 + 1e-9
        assert float(steps.min()) < 1 - 1e-3 or order == 1
        x, y = torch.randn(2, 2000, 2, dtype=torch.float64)
        stretch = (layer(x) - layer(y)).norm(dim=1) / (x - y).norm(dim=1)
        assert float(stretch.max()) <= 1 + 1e-9


@pytest.mark.parametrize("theta", ANGLES)
def test_order_1_is_continuous_at_its_line(theta):
    for end in (theta / 2, theta / 2 + math.pi):
        sides = [[math.cos(end + e), math.sin(end + e)] for e in (-1e-9, 1e-9)]
        first, second = _layer(theta)(torch.tensor(sides, dtype=torch.float64))
        assert float((first - second).norm()) <= 3e-9


def test_a_fold_is_continuous_and_bounded_for_a_normal_of_any_length():
    for length in (0.5, 0.999, 1.001, 2.0):
        ray = length * torch.tensor([0.6, 0.8], dtype=torch.float64)
        circle = _circle(20001)
        image = torch.stack(fold(circle.unbind(1), ray), 1)
        steps = (image[1:] - image[:-1]).norm(dim=1) / (circle[1:] - circle[:-1]).norm(dim=1)
        assert float(steps.max()) == pytest.approx(max(1, 2 * length**2 - 1), rel=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_jacobians_are_orthogonal(order):
    layer = Householder(4, order=order).double()
    torch.nn.init.normal_(layer.theta, std=3)
    for x in torch.randn(50, 4, dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0], x)
        torch.testing.assert_close(jacobian @ jacobian.T, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_every_angle_learns_from_the_start(order):
    layer = Householder(4, order=order)
    (layer(torch.randn(200, 4)) * torch.randn(200, 4)).sum().backward()
    assert bool((layer.theta.grad.abs() > 1e-3).all())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-25])
def test_gradients_at_and_near_0_are_finite(order, size):
    layer = Householder(4, order=order)
    x = (size * torch.randn(6, 4)).requires_grad_()
    layer(x).sum().backward()
    assert x.grad.isfinite().all()
    assert layer.theta.grad.isfinite().all()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_bound_covers_the_cosines_that_were_computed(order, dtype):
    layer = Householder(400, order=order)
    torch.nn.init.uniform_(layer.theta, -9, 9)
    layer = layer.to(dtype)
    rays, turns, _ = (t.double() for t in layer.tents())
    largest = 1.0
    for (c, s), (a, b) in zip(rays.flatten(1).T.tolist(), turns.flatten(1).T.tolist(), strict=True):
        v = torch.tensor([s, -c], dtype=torch.float64)
        piece = torch.tensor([[a, -b], [b, a]], dtype=torch.float64) @ (
            torch.eye(2, dtype=torch.float64) - 2 * torch.outer(v, v)
        )
        largest = max(largest, float(torch.linalg.matrix_norm(piece, 2)))
    bound = float(onelip.lipschitz_bound(layer))
    assert largest * (1 - 1e-15) <= bound <= largest * (1 + 1e-14)
    assert 0.1 < (bound - 1) / torch.finfo(dtype).eps < 10 or dtype == torch.float64


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("row", [0, 2])
def test_angles_that_are_no_numbers_have_no_bound(value, row):
    layer = Householder(4, order=2)
    layer.theta.data[row, 1] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        onelip.lipschitz_bound(layer)


def test_errors():
    with pytest.raises(ValueError, match="an even number is asked, got 5"):
        Householder(5)
    with pytest.raises(ValueError, match="an even number is asked, got 0"):
        Householder(0)
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        Householder(4, order=0)
    with pytest.raises(ValueError, match="angles for 4, got 2"):
        Householder(4)(torch.ones(1, 2))
