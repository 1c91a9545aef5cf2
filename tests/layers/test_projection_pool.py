"""Distances to curves against distances to many points of them."""

import itertools
import math

import pytest
import torch

import onelip
from onelip.errors import NonFiniteError
from onelip.layers import CurvePool2d, ProjectionPool2d

THETAS = [0.0, 0.1, 0.8, math.pi / 2, 1.6, 2.4, 3.1, math.pi]
OUTSIDE = [-0.8, -2.4, 4.0, 7.0, 100.0]


def _rays(theta: float) -> ProjectionPool2d:
    layer = ProjectionPool2d(2).double().requires_grad_(False)
    layer.theta.data = torch.tensor([theta], dtype=torch.float64)
    return layer


def _curve(corners: list[list[float]]) -> CurvePool2d:
    layer = CurvePool2d(2, len(corners)).double().requires_grad_(False)
    layer.corners.data = torch.tensor(corners, dtype=torch.float64)[:, :, None]
    return layer


def _equation_9(point: list[float], theta: float) -> float:
    """As printed."""
    size, alpha = math.hypot(*point), math.atan2(point[1], point[0])
    if 0 <= alpha <= theta + math.pi / 2:
        return size * math.sin(alpha - theta)
    if 0 < -alpha <= theta + math.pi / 2:
        return -size * math.sin(alpha + theta)
    return size


def _distance(x: torch.Tensor, theta: float) -> torch.Tensor:
    """To 20001 points of each ray, up to 5 from 0."""
    along = torch.linspace(0, 5, 20001, dtype=torch.float64)[:, None]
    upper = along * torch.tensor([math.cos(theta), math.sin(theta)], dtype=torch.float64)
    curve = torch.cat([upper, upper * torch.tensor([1.0, -1.0])])
    return torch.stack([(curve - p).norm(dim=1).amin() for p in x])


def test_signed_distance_to_two_rays(each):
    for theta in each(THETAS + OUTSIDE):
        x = torch.randn(200, 2, dtype=torch.float64)
        opening = math.acos(math.cos(theta))
        sign = torch.where(torch.atan2(x[:, 1], x[:, 0]).abs() > opening, 1.0, -1.0)
        expected = sign * _distance(x, theta)
        torch.testing.assert_close(_rays(theta)(x)[:, 0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("theta", [t for t in THETAS if t <= math.pi / 2])
def test_equation_9_of_the_paper(theta):
    x = torch.randn(200, 2, dtype=torch.float64)
    expected = torch.tensor([_equation_9(p, theta) for p in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(_rays(theta)(x)[:, 0], expected)


def test_equation_9_is_no_distance_for_wide_angles():
    ahead = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert _equation_9([1.0, 0.0], 2.4) == pytest.approx(-math.sin(2.4))
    assert float(_distance(ahead, 2.4)) == pytest.approx(1)
    assert float(_rays(2.4)(ahead)) == pytest.approx(-1)


def test_continuous_all_around(each):
    """Also at the cut of the angle, at the end of the formula's range and at the rays."""
    for theta in each(THETAS + OUTSIDE):
        angles = torch.linspace(-4, 4, 40001, dtype=torch.float64)
        circle = torch.stack([angles.cos(), angles.sin()], 1)
        y = _rays(theta)(circle)[:, 0]
        steps = (y[1:] - y[:-1]).abs() / (circle[1:] - circle[:-1]).norm(dim=1)
        assert float(steps.max()) <= 1 + 1e-9
        assert float(steps.max()) >= 0.99


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_bound_covers_the_cosines_that_were_computed(dtype):
    layer = ProjectionPool2d(200).to(dtype)
    lengths = layer.ray().detach().double().norm(dim=0)
    bound = float(onelip.lipschitz_bound(layer))
    assert 1 < bound == pytest.approx(float(lengths.max()), rel=1e-14)
    assert bound >= float(lengths.max())


def test_channels_of_two_halves_with_angles_of_their_own():
    layer = ProjectionPool2d(6).double().requires_grad_(False)
    layer.theta.data = torch.tensor([0.3, 1.2, 2.5], dtype=torch.float64)
    x = torch.randn(4, 6, 3, 2, dtype=torch.float64)
    y = layer(x)
    assert y.shape == (4, 3, 3, 2)
    for i, theta in enumerate((0.3, 1.2, 2.5)):
        pairs = x[:, [i, i + 3]].movedim(1, -1).reshape(-1, 2)
        torch.testing.assert_close(y[:, i].reshape(-1, 1), _rays(theta)(pairs))


def test_starts_uniform_between_0_and_pi():
    theta = ProjectionPool2d(4000).theta.detach()
    assert 0 <= float(theta.min()) < 0.02
    assert math.pi - 0.02 < float(theta.max()) <= math.pi
    assert float(theta.mean()) == pytest.approx(math.pi / 2, abs=0.1)


def test_gradients_are_finite_at_0_on_the_curve_and_close_to_it(each):
    for size, layer in each(
        itertools.product(
            [0.0, 1e-40, 1e-25, 1.0], [ProjectionPool2d(8), CurvePool2d(8, 1), CurvePool2d(8)]
        )
    ):
        on_curve = size * layer.ray().flatten() if isinstance(layer, ProjectionPool2d) else None
        start = layer.corners[0].flatten() if on_curve is None else on_curve
        offset = 0 if on_curve is not None else size
        for point in (start + offset * torch.randn(5, 8), torch.zeros(5, 8), start.expand(5, 8)):
            x = point.detach().clone().requires_grad_()
            layer.zero_grad()
            layer(x).sum().backward()
            assert x.grad.isfinite().all()
            assert float(x.grad.norm(dim=1).max()) <= 2 * (1 + 1e-5)  # 4 outputs, each of slope 1
            assert all(p.grad.isfinite().all() for p in layer.parameters())


CURVES = [
    [[0.0, 0.0]],
    [[0.7, -0.3]],
    [[-1.0, 0.0], [1.0, 0.5]],
    [[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.2, -0.7]],
    [[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]],  # crosses itself
    [[0.3, 0.4], [0.3, 0.4]],
    [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]],
]


@pytest.mark.parametrize("corners", CURVES, ids=len)
def test_distance_to_a_polygon(corners):
    points = torch.tensor(corners, dtype=torch.float64)
    share = torch.linspace(0, 1, 5001, dtype=torch.float64)[:, None]
    pieces = [a + share * (b - a) for a, b in itertools.pairwise(points)]
    curve = torch.cat([points, *pieces])
    x = 2 * torch.randn(300, 2, dtype=torch.float64)
    expected = torch.stack([(curve - p).norm(dim=1).amin() for p in x])
    torch.testing.assert_close(_curve(corners)(x)[:, 0], expected, rtol=0, atol=1e-4)
    assert float(_curve(corners)(points).abs().max()) <= 1e-15


def test_one_corner_at_0_is_the_norm_of_pairs():
    layer = CurvePool2d(6, 1)
    torch.nn.init.zeros_(layer.corners)
    x = torch.randn(4, 6, 3)
    torch.testing.assert_close(layer(x), torch.stack([x[:, :3], x[:, 3:]]).norm(dim=0))


def test_corners_learn():
    """They move onto a point that is the only one they see."""
    layer = CurvePool2d(2, 2).double()
    x = torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()
    assert float(layer(x).detach()) < 1e-3


@pytest.mark.parametrize("layer", [ProjectionPool2d(4), CurvePool2d(4)], ids=repr)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_parameters_that_are_no_numbers_have_no_bound(layer, value):
    for parameter in layer.parameters():
        parameter.data[..., 0] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        onelip.lipschitz_bound(layer)


def test_errors():
    for kind in (ProjectionPool2d, CurvePool2d):
        with pytest.raises(ValueError, match="an even number is asked, got 3"):
            kind(3)
        with pytest.raises(ValueError, match="curves for 4 channels, got 2"):
            kind(4)(torch.ones(1, 2))
    with pytest.raises(ValueError, match="at least one corner, got 0"):
        CurvePool2d(4, 0)
