"""Radii of heads with one hidden layer, against distances found by exhaustion."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.certificates.head_curvature.parabola import proved_radius
from onelip.certificates.head_curvature.radii import HeadRadii, head_radii
from onelip.certificates.head_curvature.search import Pairs, search
from onelip.certificates.head_curvature.tangents import Differences
from tests.networks import head_of

FLOAT = torch.float64


def centred(head: TwoLayers) -> TwoLayers:
    """All logits meet at 0: boundaries are near, where the head is nearly linear."""
    head.outer_bias.copy_(-(head.outer @ head.activation(head.inner_bias)))
    return head


def slopes_of(head: TwoLayers) -> Tensor:
    """Looser than anybody would use."""
    norm = 2 * head.inner.norm() * head.outer.norm() * 1.2 + 1e-300
    return norm.expand(head.classes, head.classes)


def radii_of(head: TwoLayers, features: Tensor, **settings: float) -> HeadRadii:
    prediction = head(features.double()).argmax(1)
    return head_radii(head, features, prediction, Curvature(head), slopes_of(head), **settings)


def along_rays(head: TwoLayers, x: Tensor, ways: Tensor, reach: float) -> float:
    """The first change of the prediction along any of the ways: a grid, then bisection."""
    label = int(head(x[None]).argmax())
    steps = torch.linspace(0, reach, 801, dtype=FLOAT)[1:]
    grid = x + steps[:, None, None] * ways
    changed = head(grid.flatten(0, 1)).argmax(1).reshape(len(steps), len(ways)) != label
    if not changed.any():
        return math.inf
    first = int(changed.any(1).nonzero()[0])
    ways = ways[changed[first]]
    high = steps[first].expand(len(ways), 1)
    low = high - reach / 800
    for _ in range(50):
        middle = (low + high) / 2
        same = head(x + middle * ways).argmax(1, keepdim=True) == label
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return float(high.min())


def circle(count: int = 360) -> Tensor:
    angle = torch.arange(count, dtype=FLOAT) * 2 * math.pi / count
    return torch.stack([angle.cos(), angle.sin()], 1)


# Against the exact distance


@pytest.mark.parametrize("phi", [nn.Softplus(), nn.Softplus(10), nn.Tanh(), nn.Sigmoid()])
@pytest.mark.parametrize("hidden", [1, 3, 16])
def test_one_feature_against_all_roots(phi, hidden):
    ways = torch.tensor([[1.0], [-1.0]], dtype=FLOAT)
    for _ in range(6):
        head = head_of(1, hidden, 4, phi, scale=2.0)
        features = torch.randn(8, 1, dtype=FLOAT) * 2
        radii = radii_of(head, features)
        for x, radius, distance in zip(features, radii.radius, radii.distance, strict=True):
            truth = along_rays(head, x, ways, 20.0)
            assert float(radius) <= truth + 1e-9
            assert float(distance) >= truth - 0.026  # at most one cell of the grid is overlooked


@pytest.mark.parametrize(
    ("phi", "scale", "exact"),
    [(nn.Softplus(), 0.3, 0.9), (nn.Tanh(), 0.1, 0.9), (nn.Sigmoid(), 0.3, 0.9)],
)
def test_two_features_against_all_directions(phi, scale, exact):
    reached = []
    for _ in range(8):
        head = centred(head_of(2, 8, 4, phi, scale=scale))
        features = torch.randn(6, 2, dtype=FLOAT)
        radii = radii_of(head, features)
        for x, radius in zip(features, radii.radius, strict=True):
            truth = along_rays(head, x, circle(), 12.0)
            assert float(radius) <= truth + 1e-9
            if truth < 12:
                reached.append(float(radius) >= truth * (1 - 1e-3))
    assert sum(reached) >= exact * len(reached) > 5


def test_the_witness_loses_the_prediction():
    for phi in (nn.Softplus(), nn.Softplus(10), nn.Tanh()):
        head = head_of(6, 30, 5, phi, scale=2.0)
        features = torch.randn(200, 6, dtype=FLOAT)
        prediction, radii = head(features).argmax(1), radii_of(head, features)
        found = torch.isfinite(radii.distance)
        assert float(found.double().mean()) > 0.95
        logits = head(radii.witness[found])
        own = logits.gather(1, prediction[found][:, None])
        assert bool((logits.gather(1, radii.rival[found][:, None]) >= own).all())
        away = (radii.witness - features).norm(dim=1)[found]
        assert bool((radii.distance[found] >= away).all())
        assert radii.distance[found].tolist() == pytest.approx(away.tolist(), rel=1e-12)
        assert bool((radii.radius <= radii.distance).all())


def test_slack_keeps_the_logits_apart_and_moves_the_witness_beyond():
    head = head_of(4, 20, 3, nn.Softplus(), scale=2.0)
    features = torch.randn(100, 4, dtype=FLOAT)
    prediction, plain = head(features).argmax(1), radii_of(head, features)
    for slack in (1e-9, 1e-3, 0.1):
        radii = radii_of(head, features, slack=slack)
        assert bool((radii.radius <= plain.radius).all())
        assert bool((radii.radius < plain.radius).any())
        rows = (radii.distance > 0) & torch.isfinite(radii.distance)
        logits = head(radii.witness[rows])
        margin = logits.gather(1, prediction[rows][:, None])
        margin = margin - logits.gather(1, radii.rival[rows][:, None])
        assert bool((margin < -slack).all())
        assert int(rows.sum()) > 50


def test_slack_costs_no_proofs_of_curvature():
    """The search ends where the logits are apart by the slack: that is as near as can be proved."""
    head = centred(head_of(20, 50, 10, nn.Softplus()))
    features = torch.randn(300, 20, dtype=FLOAT)
    prediction, curvature = head(features).argmax(1), Curvature(head)
    head_radii(head, features, prediction, curvature, slopes_of(head))
    before = curvature.proved_pairs
    head_radii(head, features, prediction, curvature, slopes_of(head), slack=0.01)
    assert curvature.proved_pairs <= before + 5


def test_a_head_that_bends_little_is_certified_exactly():
    head = centred(head_of(20, 50, 10, nn.Softplus()))
    radii = radii_of(head, torch.randn(300, 20))
    exact = radii.radius >= radii.distance * (1 - 1e-4)
    assert float(exact.double().mean()) > 0.9


# All rivals


@pytest.mark.parametrize("scale", [0.7, 2.0])
def test_it_is_the_smallest_radius_over_all_rivals(scale):
    """Against a search for every pair, with the exact curvature and nothing left out."""
    head = head_of(5, 20, 12, nn.Softplus(), scale=scale)
    features = torch.randn(60, 5, dtype=FLOAT)
    prediction, curvature = head(features).argmax(1), Curvature(head)
    least = torch.full((60,), math.inf, dtype=FLOAT)
    for rival in range(12):
        other = torch.full((60,), rival)
        bend = curvature(prediction, other)
        found = search(
            Differences(head),
            Pairs(features, prediction, other, bend),
            enough=least.new_full((60,), math.inf),
            steps=200,
            tolerance=1e-8,
        )
        least = torch.where(other == prediction, least, torch.minimum(least, found.radius))
    radii = radii_of(head, features)
    assert radii.radius.tolist() == pytest.approx(least.tolist(), rel=1e-4)


def test_most_pairs_are_never_touched(monkeypatch):
    head = head_of(8, 40, 60, nn.Softplus())
    features = torch.randn(30, 8, dtype=FLOAT)
    touched = []
    whole = Differences.tangents

    def counted(self, points, *others):
        touched.append(len(points))
        return whole(self, points, *others)

    monkeypatch.setattr(Differences, "tangents", counted)
    head_radii(head, features, head(features).argmax(1), Curvature(head), tight_slopes(head))
    assert sum(touched) < 30 * 59


def tight_slopes(head: TwoLayers) -> Tensor:
    rows = head.outer @ head.inner
    spread = head.outer[:, None] - head.outer
    middle = (rows[:, None] - rows).norm(dim=2) / 2
    return middle + spread.norm(dim=2) * torch.linalg.matrix_norm(head.inner, 2) / 2 + 1e-9


# Steps


def test_no_steps_are_the_closed_form_and_more_are_never_worse():
    head = head_of(6, 20, 3, nn.Softplus(), scale=1.5)
    features = torch.randn(100, 6, dtype=FLOAT)
    prediction, curvature = head(features).argmax(1), Curvature(head)
    closed = torch.full((100,), math.inf, dtype=FLOAT)
    for rival in range(3):
        other = torch.full((100,), rival)
        x = features.clone().requires_grad_()
        logits = head(x)
        margin = (logits.gather(1, prediction[:, None]) - logits[:, [rival]])[:, 0]
        steep = torch.autograd.grad(margin.sum(), x)[0].norm(dim=1)
        bend, margin = curvature(prediction, other), margin.detach()
        value = (-steep + (steep.square() + 2 * bend * margin).sqrt()) / bend
        closed = torch.where(other == prediction, closed, torch.minimum(closed, value))
    before = radii_of(head, features, steps=0).radius
    assert before.tolist() == pytest.approx(closed.tolist(), rel=1e-6, abs=1e-7)
    for steps in (1, 2, 3, 5, 10, 30):
        after = radii_of(head, features, steps=steps).radius
        assert bool((after >= before * (1 - 1e-4)).all())
        before = after
    assert float((before / closed).mean()) > 1.02


@pytest.mark.parametrize("steps", [0, 1, 2, 30])
@pytest.mark.parametrize("phi", [nn.Softplus(), nn.Softplus(10), nn.Tanh(), nn.GELU()])
def test_attacks_in_feature_space_never_succeed_inside(phi, steps):
    head = head_of(10, 40, 6, phi, scale=2.0)
    features = torch.randn(500, 10, dtype=FLOAT)
    prediction = head(features).argmax(1)
    radius = radii_of(head, features, steps=steps).radius[:, None]
    for attempt in range(2):
        noise = nn.functional.normalize(torch.randn(500, 10, dtype=FLOAT), dim=1)
        points = features + attempt * radius * noise
        for _ in range(25):
            points = points.detach().requires_grad_()
            logits = head(points)
            others = logits.scatter(1, prediction[:, None], -math.inf).amax(1)
            margin = logits.gather(1, prediction[:, None])[:, 0] - others
            assert bool((margin > 0).all())
            (way,) = torch.autograd.grad(margin.sum(), points)
            moved = points.detach() - 0.2 * radius * nn.functional.normalize(way, dim=1)
            away = moved - features
            far = away.norm(dim=1, keepdim=True) / radius
            points = features + away / far.clamp_min(1) * (1 - 1e-12)


# The dual problem


@pytest.mark.parametrize("bend_factor", [1.0, pytest.param(4.0, marks=pytest.mark.slow)])
def test_the_radius_is_the_root_of_twice_the_dual_value(bend_factor):
    """Solved by scipy; a larger N puts eta at its end, 1 / N, where the radius is not exact."""
    optimize = pytest.importorskip("scipy.optimize")
    head = head_of(3, 10, 2, nn.Softplus(2), scale=2.0)
    start = torch.randn(12, 3, dtype=FLOAT)
    first = head(start).argmax(1)
    second = 1 - first
    bend = Curvature(head)(first, second) * bend_factor
    found = search(
        Differences(head),
        Pairs(start, first, second, bend),
        enough=torch.full_like(bend, math.inf),
        steps=300,
        tolerance=1e-9,
    )
    clamped = 0
    for row in range(12):
        dual, eta = _dual(optimize, head, start[row], int(first[row]), float(bend[row]))
        clamped += eta > (1 - 1e-4) / float(bend[row])
        assert float(found.radius[row]) == pytest.approx(math.sqrt(2 * dual), rel=1e-6)
    assert clamped >= 6 if bend_factor > 1 else clamped < 12


def _dual(optimize, head: TwoLayers, x: Tensor, first: int, bend: float) -> tuple[float, float]:
    def inner(eta: float) -> float:
        def objective(y):
            point = torch.tensor(y, dtype=FLOAT, requires_grad=True)
            logits = head(point[None])[0]
            value = (point - x).square().sum() / 2 + eta * (logits[first] - logits[1 - first])
            return value.item(), torch.autograd.grad(value, point)[0].numpy()

        answer = optimize.minimize(
            objective, x.numpy(), jac=True, method="BFGS", options={"gtol": 1e-11}
        )
        return float(answer.fun)

    options = {"xatol": 1e-10 / bend}
    best = optimize.minimize_scalar(
        lambda eta: -inner(eta), bounds=(0, 1 / bend), method="bounded", options=options
    )
    end = inner(1 / bend)
    return (end, 1 / bend) if end >= -best.fun else (-best.fun, float(best.x))


# Edges


def test_linear_heads_get_their_exact_distance():
    for classes, features, hidden in ((2, 1, 1), (5, 7, 4), (10, 3, 30)):
        head = head_of(features, hidden, classes, nn.Identity())
        points = torch.randn(50, features)
        logits, rows = head(points.double()), head.outer @ head.inner
        best = logits.argmax(1)
        gaps = logits.gather(1, best[:, None]) - logits
        truth = gaps / (rows[best][:, None] - rows).norm(dim=2)
        truth = truth.scatter(1, best[:, None], math.inf).amin(1)
        radii = radii_of(head, points)
        assert bool((radii.radius <= truth).all())
        assert radii.radius.tolist() == pytest.approx(truth.tolist(), rel=1e-9)


def test_ties_and_wrong_predictions_get_nothing():
    head = head_of(3, 5, 4, nn.Softplus())
    head.outer[2], head.outer_bias[2] = head.outer[1], head.outer_bias[1]
    features = torch.randn(40, 3, dtype=FLOAT)
    slopes, curvature = slopes_of(head), Curvature(head)
    ties = head_radii(head, features, torch.full((40,), 1), curvature, slopes)
    assert ties.radius.tolist() == [0.0] * 40
    least = head(features).argmin(1)
    wrong = head_radii(head, features, least, curvature, slopes)
    assert wrong.radius.tolist() == wrong.distance.tolist() == [0.0] * 40
    assert torch.equal(wrong.witness, features)


def test_zero_weights():
    zeros = torch.zeros(3, 3, dtype=FLOAT)
    flat = TwoLayers(zeros, zeros[0], nn.Tanh(), zeros, zeros[0])
    assert radii_of(flat, torch.randn(5, 3)).radius.tolist() == [0.0] * 5
    biased = TwoLayers(zeros, zeros[0], nn.Tanh(), zeros, torch.arange(3).double())
    radii = radii_of(biased, torch.randn(5, 3))
    assert bool((radii.radius > 1e100).all())
    assert bool(radii.distance.isinf().all())


def test_absurd_scales_are_survived(each):
    for scale, phi in each(
        itertools.product(
            [1e-150, 1e-30, 1e30, 1e150, 1e300], [nn.Identity(), nn.Softplus(), nn.Tanh()]
        )
    ):
        plain = head_of(4, 6, 3, phi)
        features = torch.randn(30, 4, dtype=FLOAT)
        factors = (scale, 1, 1), (1, scale, 1), (1, 1, scale), (scale, 1, 1 / scale)
        for inner, outer, inputs in factors:
            last = plain.outer * outer, plain.outer_bias * outer
            head = TwoLayers(plain.inner * inner, plain.inner_bias, phi, *last)
            radii = radii_of(head, features * inputs)
            assert not radii.radius.isnan().any()
            assert bool((radii.radius <= radii.distance).all())
            if phi.__class__ is nn.Identity and scale in (1e-30, 1e30):
                assert bool((radii.radius > 0).all())


def test_features_that_are_not_finite_get_nothing():
    """Whatever was predicted for them."""
    head = head_of(2, 5, 3, nn.Softplus())
    features = torch.zeros(4, 2)
    alone = radii_of(head, features)
    assert bool((alone.radius > 0).all())
    features[1, 0], features[2, 1] = math.nan, math.inf
    prediction = head(torch.zeros(4, 2).double()).argmax(1)
    radii = head_radii(head, features, prediction, Curvature(head), slopes_of(head))
    assert radii.radius[1:3].tolist() == [0.0, 0.0]
    assert bool(radii.distance[1:3].isinf().all() & radii.witness[1:3].isnan().all())
    assert radii.radius[[0, 3]].tolist() == pytest.approx(alone.radius[[0, 3]].tolist(), rel=1e-4)


def test_no_samples():
    radii = radii_of(head_of(3, 5, 4, nn.Tanh()), torch.zeros(0, 3))
    assert [len(column) for column in (radii.radius, radii.rival, radii.witness)] == [0, 0, 0]


def test_single_precision_features_are_exact_numbers():
    head = head_of(5, 9, 4, nn.Softplus())
    features = torch.randn(20, 5)
    assert torch.equal(radii_of(head, features).radius, radii_of(head, features.double()).radius)


def test_the_batch_does_not_matter(monkeypatch):
    head = head_of(5, 9, 7, nn.Softplus(), scale=1.5)
    features = torch.randn(50, 5, dtype=FLOAT)
    whole = radii_of(head, features)
    monkeypatch.setattr("onelip.certificates.head_curvature.radii._NUMBERS_AT_ONCE", 100)
    monkeypatch.setattr("onelip.certificates.head_curvature.rivals._NUMBERS_AT_ONCE", 30)
    parts = radii_of(head, features)
    assert parts.radius.tolist() == pytest.approx(whole.radius.tolist(), rel=1e-4)


def test_inference_mode_and_autocast_change_nothing():
    head = head_of(5, 9, 4, nn.Softplus())
    features = torch.randn(20, 5, dtype=FLOAT)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inside = radii_of(head, features).radius
    assert torch.equal(inside, radii_of(head, features).radius)


def test_a_search_that_begins_anywhere_proves_nothing_wrong():
    head = head_of(2, 10, 2, nn.Softplus(5), scale=2.0)
    start = torch.randn(40, 2, dtype=FLOAT)
    first = head(start).argmax(1)
    bend = Curvature(head)(first, 1 - first)
    pairs = Pairs(start, first, 1 - first, bend)
    inf = torch.full_like(bend, math.inf)
    settings = {"enough": inf, "steps": 3, "tolerance": 1e-4}
    for _ in range(5):
        begin = start + torch.randn_like(start)
        found = search(Differences(head), pairs, begin=begin, **settings)
        at = proved_radius(start, begin, Differences(head).tangents(begin, first, 1 - first), bend)
        assert bool((found.radius >= at).all())
        for x, radius in zip(start, found.radius, strict=True):
            assert float(radius) <= along_rays(head, x, circle(90), 6.0) + 1e-9
