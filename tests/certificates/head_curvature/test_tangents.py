"""The proof: what a parabola at any point says, against the function itself."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from onelip.activations import ACTIVATIONS
from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.certificates.head_curvature.parabola import proved_radius
from onelip.certificates.head_curvature.tangents import Differences, Tangent
from tests.networks import head_of

FLOAT = torch.float64


def pair(count: int, first: int = 0, second: int = 1) -> tuple[Tensor, Tensor]:
    return torch.full((count,), first), torch.full((count,), second)


def by_fractions(start: Tensor, point: Tensor, tangent: Tangent, bend: float, radius: float):
    """The least of the parabola in the ball of this radius, exactly (up to one root)."""
    x, y = ([Fraction(float(v)) for v in row] for row in (start, point))
    g, n = [Fraction(float(v)) for v in tangent.gradient], Fraction(bend)
    p = [a - b for a, b in zip(x, y, strict=True)]
    square, slope = sum(v * v for v in p), sum(a * b for a, b in zip(g, p, strict=True))
    value = Fraction(float(tangent.value)) + slope - n / 2 * square
    steep = sum((a - n * b) ** 2 for a, b in zip(g, p, strict=True))
    r = Fraction(radius)
    root = Fraction(math.sqrt(steep)) * (1 + Fraction(1, 2**52))
    return value - root * r - n / 2 * r * r


def test_the_parabola_is_not_negative_in_the_ball():
    """In exact fractions: the formula and the rounding of its arithmetic."""
    for _ in range(200):
        features = int(torch.randint(1, 5, ()))
        start, point = torch.randn(2, features, dtype=FLOAT) * 10 ** (6 * torch.rand(()) - 3)
        gradient = torch.randn(features, dtype=FLOAT)
        bend = float(torch.rand(())) * float(torch.randint(0, 2, ()))
        value = float((gradient * (point - start)).sum().abs()) + 10 * float(torch.rand(()))
        zero = torch.zeros(1, dtype=FLOAT)
        tangent = Tangent(torch.tensor([value], dtype=FLOAT), zero, gradient[None], zero)
        bends = torch.tensor([bend], dtype=FLOAT)
        radius = float(proved_radius(start[None], point[None], tangent, bends))
        one = Tangent(tangent.value[0], zero, gradient, zero)
        if radius > 0:
            assert by_fractions(start, point, one, bend, radius) >= 0
            larger = radius * (1 + 1e-9) + 1e-12  # and not far from it
            assert by_fractions(start, point, one, bend, larger) < 1e-9 * (1 + value)


SMOOTH = [kind for kind, known in ACTIVATIONS.items() if known.second_derivatives]


@pytest.mark.parametrize("phi", [nn.Softplus(), nn.Softplus(10), nn.Tanh(), nn.SiLU(), nn.GELU()])
def test_wild_points_prove_nothing_wrong(phi):
    """Thousands of random points y; in each proved ball the difference stays positive."""
    proved = 0
    for features in (1, 2, 5):
        head = head_of(features, 12, 2, phi, scale=2.0)
        curvature, differences = Curvature(head), Differences(head)
        start = torch.randn(1000, features, dtype=FLOAT)
        points = start + torch.randn(1000, features, dtype=FLOAT) * torch.rand(1000, 1).mul(3)
        first, second = pair(1000)
        tangent = differences.tangents(points, first, second)
        bend = curvature(first, second)
        radius = proved_radius(start, points, tangent, bend)
        assert bool((radius[(head(start) @ torch.tensor([1.0, -1]).double()) <= 0] == 0).all())
        proved += int((radius > 0).sum())
        for _ in range(50):
            way = nn.functional.normalize(torch.randn(1000, features, dtype=FLOAT), dim=1)
            inside = start + way * radius[:, None] * torch.rand(1000, 1) ** 0.1 * (1 - 1e-12)
            logits = head(inside)[radius > 0]
            assert bool((logits[:, 0] > logits[:, 1]).all())
    assert proved > 100


@pytest.mark.parametrize("kind", SMOOTH)
def test_errors_cover_what_float64_does(kind):
    """Against long doubles, which carry eleven bits more."""
    numpy = pytest.importorskip("numpy")
    if numpy.finfo(numpy.longdouble).eps > 1e-18:
        pytest.skip("no long double here")
    exact = {
        nn.Identity: lambda a: a,
        nn.Tanh: numpy.tanh,
        nn.Sigmoid: lambda a: 1 / (1 + numpy.exp(-a)),
        nn.Softplus: lambda a: numpy.logaddexp(a, numpy.longdouble(0)),
        nn.LogSigmoid: lambda a: -numpy.logaddexp(-a, numpy.longdouble(0)),
        nn.Softsign: lambda a: a / (1 + abs(a)),
        nn.SiLU: lambda a: a / (1 + numpy.exp(-a)),
        nn.Tanhshrink: lambda a: a - numpy.tanh(a),
        nn.ELU: lambda a: numpy.where(a > 0, a, numpy.expm1(numpy.minimum(a, 0))),
        nn.CELU: lambda a: numpy.where(a > 0, a, numpy.expm1(numpy.minimum(a, 0))),
        nn.Mish: lambda a: a * numpy.tanh(numpy.logaddexp(a, numpy.longdouble(0))),
    }.get(kind)
    if exact is None:
        pytest.skip("erf has no long double")
    for scale in (1e-3, 1.0, 30.0):
        head = head_of(7, 50, 3, kind(), scale=scale)
        points = torch.randn(300, 7, dtype=FLOAT) * scale
        long = [t.numpy().astype(numpy.longdouble) for t in (head.inner, head.outer, points)]
        hidden = exact(long[2] @ long[0].T + head.inner_bias.numpy().astype(numpy.longdouble))
        logits = hidden @ long[1].T + head.outer_bias.numpy().astype(numpy.longdouble)
        value, error = Differences(head).values(points, *pair(300))
        wrong = abs(value.numpy().astype(numpy.longdouble) - (logits[:, 0] - logits[:, 1]))
        assert bool((wrong <= error.numpy()).all())
        assert float(error.max()) < 1e-6 * max(1.0, float(value.abs().max()))


def test_the_gradient_is_that_of_the_logits(each):
    for kind in each(SMOOTH):
        head = head_of(4, 9, 3, kind())
        points = torch.randn(20, 4, dtype=FLOAT, requires_grad=True)
        logits = head(points)
        (gradient,) = torch.autograd.grad((logits[:, 2] - logits[:, 1]).sum(), points)
        with torch.inference_mode():
            tangent = Differences(head).tangents(points.detach(), *pair(20, 2, 1))
        torch.testing.assert_close(tangent.gradient, gradient, rtol=1e-8, atol=1e-8)
        assert float(tangent.slack.max()) < 1e-10
        values = Differences(head).values(points.detach(), *pair(20, 2, 1))
        torch.testing.assert_close(values[0], tangent.value)


def test_steepness_is_above_every_gradient(each):
    """And touches them where all samples are in the same place, where only one row is."""
    for phi, scale in each(
        itertools.product([nn.Softplus(), nn.Softplus(10), nn.Tanh(), nn.GELU()], [1e-3, 1.0, 5.0])
    ):
        head = head_of(5, 30, 6, phi, scale=scale)
        differences = Differences(head)
        for spread in (0.0, 0.1, 2.0):
            points = torch.randn(5, dtype=FLOAT) + spread * torch.randn(40, 5, dtype=FLOAT)
            first = head(points).argmax(1)
            bound = differences.steepness(points, differences.layer(points)[1], first)
            rows = [
                differences.tangents(points, first, torch.full_like(first, rival)).gradient.norm(
                    dim=1
                )
                for rival in range(6)
            ]
            gradients = torch.stack(rows, 1)
            assert bool((bound >= gradients).all())
            if spread == 0:
                torch.testing.assert_close(bound, gradients, rtol=1e-3, atol=1e-4 * scale**2)


def test_softplus_above_its_threshold_is_covered():
    """torch returns 30 for 30; both that and log(1 + exp(30)) must be within the error."""
    one = torch.ones(1, 1, dtype=FLOAT)
    outer, nothing = torch.tensor([[1.0], [0.0]], dtype=FLOAT), torch.zeros(1, dtype=FLOAT)
    for z in (19.9, 20.1, 30.0, 800.0):
        head = TwoLayers(one, nothing, nn.Softplus(), outer, torch.zeros(2, dtype=FLOAT))
        value, error = Differences(head).values(z * one, *pair(1))
        for truth in (z + math.log1p(math.exp(-z)), float(nn.Softplus()(z * one))):
            assert abs(float(value) - truth) <= float(error) < 1e-8


def test_without_curvature_the_radius_is_that_of_a_linear_function():
    head = head_of(6, 5, 2, nn.Identity())
    first, second = pair(50)
    start, points = torch.randn(2, 50, 6, dtype=FLOAT)
    tangent = Differences(head).tangents(points, first, second)
    radius = proved_radius(start, points, tangent, torch.zeros(50, dtype=FLOAT))
    logits = head(start)
    row = (head.outer[0] - head.outer[1]) @ head.inner
    truth = ((logits[:, 0] - logits[:, 1]) / row.norm()).clamp_min(0)
    assert bool((radius <= truth).all())
    assert radius.tolist() == pytest.approx(truth.tolist(), rel=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200, -1e308])
def test_points_that_overflow_prove_nothing(bad):
    head = head_of(3, 4, 2, nn.Softplus())
    points = torch.full((1, 3), bad, dtype=FLOAT)
    tangent = Differences(head).tangents(points, *pair(1))
    radius = proved_radius(torch.zeros(1, 3, dtype=FLOAT), points, tangent, torch.ones(1).double())
    assert radius.tolist() == [0.0]


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.7, 1.0, 1000.1])
def test_slopes_of_celu_are_those_of_alpha_in_float64(alpha):
    """torch differentiates its own CELU with alpha rounded to float32."""
    head = TwoLayers(
        inner=torch.ones(1, 1, dtype=FLOAT),
        inner_bias=torch.zeros(1, dtype=FLOAT),
        activation=nn.CELU(alpha),
        outer=torch.tensor([[1.0], [0.0]], dtype=FLOAT),
        outer_bias=torch.zeros(2, dtype=FLOAT),
    )
    points = -alpha * torch.tensor([[1e-3], [0.1], [1.0], [3.0]], dtype=FLOAT)
    zero, one = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    tangent = Differences(head).tangents(points, zero, one)
    exact = torch.exp(points / alpha)
    torch.testing.assert_close(tangent.gradient, exact, rtol=1e-15, atol=0)
