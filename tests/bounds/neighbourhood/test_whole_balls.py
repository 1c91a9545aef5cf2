"""Radii of networks whose layers have tight constants, against attacks and the global constant."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip import certify, export
from onelip.bounds import LipLT, Local
from onelip.bounds.neighbourhood.dense_layers import layers as dense_layers
from onelip.bounds.neighbourhood.stages import placed, stages
from onelip.bounds.neighbourhood.whole_balls import WholeBalls
from onelip.bounds.semidefinite.falls import Problem, proposed, scales
from onelip.bounds.semidefinite.value_functions import proved_rise
from onelip.certificates._radius_proof import ForwardPass, Rounding, smallest_quotient
from onelip.chains import Chain
from onelip.errors import UsageError
from onelip.layers import (
    CholeskyLinear,
    ConvexPotentialConv2d,
    ConvexPotentialLinear,
    GroupSort,
    HalfAbs,
    Normalize,
)
from onelip.reading import read

OWN = Local(cap=LipLT())


def convex_potential(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    parts = [ConvexPotentialLinear(6, 8) for _ in range(4)]
    model = nn.Sequential(*parts, nn.Linear(6, 3)).double()
    model(torch.randn(64, 6).double())  # a power step
    return model.eval()


def attacked(chain: Chain, x: Tensor, prediction: Tensor, radius: Tensor) -> Tensor:
    """Which predictions change within the radii, by projected ascent for each rival."""
    exact, fooled = chain.exact(), torch.zeros(len(x), dtype=torch.bool)
    classes = chain.outputs[0]
    for rival in list(range(classes)) * 3:
        step = F.normalize(torch.randn_like(x).flatten(1), dim=1).view_as(x)
        size = radius.view(-1, *[1] * (x.ndim - 1))
        step = step * size
        for _ in range(30):
            step.requires_grad_()
            logits = exact.forward(x + step)
            own = logits.gather(1, prediction[:, None])[:, 0]
            (gradient,) = torch.autograd.grad((logits[:, rival] - own).sum(), step)
            step = step.detach() + 0.3 * size * F.normalize(gradient.flatten(1), dim=1).view_as(x)
            length = step.flatten(1).norm(dim=1).clamp_min(1e-300)
            step = step * (radius / length).clamp_max(1).view_as(size)
            fooled |= exact.forward(x + step).argmax(1) != prediction
    return fooled


def test_no_attack_breaks_a_radius(each):
    before, after, reached = [], [], []
    for seed in each(range(3)):
        model = convex_potential(seed)
        chain, x = read(model, (6,)), 2 * torch.randn(8, 6).double()
        prediction, radius = OWN.radius(chain, x)
        assert not attacked(chain, x, prediction, radius * (1 - 1e-9)).any()
        reached.append(attacked(chain, x, prediction, 2 * radius))
        before.append(Local(cap=LipLT(), tries=0).radius(chain, x).radius)
        after.append(radius)
    assert (torch.cat(after) >= torch.cat(before)).all()
    assert float((torch.cat(after) / torch.cat(before)).mean()) > 1.2
    assert float(torch.cat(reached).double().mean()) > 0.4  # the attack works


def test_it_proves_more_than_slopes(each):
    """In balls beyond what the global constant certifies."""
    whole, alone, count = 0, 0, 0
    for seed in each(range(4)):
        chain, x = read(convex_potential(seed), (6,)), 2 * torch.randn(8, 6).double()
        prediction, radius = Local(cap=LipLT(), tries=0).radius(chain, x)
        radius = 2.0 * radius
        logits = chain.exact().forward(x)
        margins = logits.gather(1, prediction[:, None]) - logits
        own = prediction[:, None]
        slopes = LipLT().logit_bounds(chain).pairwise[prediction]
        rivals = (margins <= slopes * radius[:, None]).scatter(1, own, False)
        falls = WholeBalls(*dense_layers(chain)).falls(x, radius, prediction, margins, slopes)
        plain = Local(cap=LipLT(), units=0)
        found = plain.from_centre(chain, x, radius) * radius[:, None]
        whole += int(((falls < margins) | ~rivals).all(1).sum())
        alone += int(((found < margins) | ~rivals).all(1).sum())
        count += len(x)
    assert whole > 0.5 * count
    assert whole > alone


def test_convolutions_and_sorting(each):
    torch.manual_seed(0)
    images = nn.Sequential(
        ConvexPotentialConv2d(2, 3, 3, image_size=(4, 4)),
        ConvexPotentialConv2d(2, 3, 3, image_size=(4, 4)),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    sorting = nn.Sequential(
        CholeskyLinear(6, 6), GroupSort(2), CholeskyLinear(6, 6), GroupSort(2), nn.Linear(6, 3)
    )
    folding = nn.Sequential(
        CholeskyLinear(6, 6), HalfAbs(6), CholeskyLinear(6, 6), HalfAbs(6), nn.Linear(6, 3)
    )
    for network, shape in each([(images, (2, 4, 4)), (sorting, (6,)), (folding, (6,))]):
        model = network.double()
        model(torch.randn(16, *shape).double())
        chain, x = read(model.eval(), shape), 2 * torch.randn(10, *shape).double()
        dense, last = dense_layers(chain)
        assert WholeBalls(dense, last).suits(LipLT().logit_bounds(chain).pairwise)
        prediction, radius = OWN.radius(chain, x)
        assert not attacked(chain, x, prediction, radius * (1 - 1e-9)).any()
        whole = Local(cap=LipLT(), tries=0).radius(chain, x).radius
        assert float((radius / whole).mean()) >= (1 if network is folding else 1.03)


def test_networks_without_tight_constants_are_left_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU())
    chain = read(nn.Sequential(*model, nn.Linear(20, 3)).double().eval(), (6,))
    dense, last = dense_layers(chain)
    assert not WholeBalls(dense, last).suits(LipLT().logit_bounds(chain).pairwise)


def test_falls_are_those_of_rivals_that_limit():
    model = convex_potential(0)
    chain, x = read(model, (6,)), 2 * torch.randn(8, 6).double()
    dense, last = dense_layers(chain)
    slopes = LipLT().logit_bounds(chain).pairwise
    logits = chain.exact().forward(x)
    own = logits.argmax(1)
    margins, slopes = logits.gather(1, own[:, None]) - logits, slopes[own]
    for factor in (0.0, 0.9, 1.1, 3.0):
        quotients = (margins / slopes).nan_to_num(math.inf)
        radius = factor * quotients.amin(1)
        falls = WholeBalls(dense, last).falls(x, radius, own, margins, slopes)
        known = torch.isfinite(falls)
        assert not known[quotients >= radius[:, None]].any()
        assert (falls < margins)[known].all()
        assert bool(known.any()) == (factor == 1.1)
        falls = WholeBalls(dense, last).falls(x, radius, own, -margins, slopes)
        assert not torch.isfinite(falls).any()


@pytest.mark.parametrize("lost", [0.0, 0.05, 0.2])
def test_a_rival_counts_unless_its_margin_is_larger_than_its_fall(lost):
    logits = torch.tensor([[1.0, 0.0, -4.0]]).double()
    batch = ForwardPass(logits, logits, logits, torch.tensor([0]))
    slopes, rounding = torch.ones(1, 3).double(), Rounding(margins=lost)
    left = 1 - lost
    for fall, counts in ((0.4, left <= 0.4), (0.9, left <= 0.9), (1.0, True), (math.nan, True)):
        falls = torch.tensor([[0.0, fall, math.inf]]).double()
        found = float(smallest_quotient(batch, slopes, rounding, falls))
        wanted = left if counts else 5 - lost
        assert found == pytest.approx(wanted, rel=1e-9)


def test_certificates_count_the_rounding_of_the_model():
    """At both levels no attack breaks them, and another prediction than that in float64 gets 0."""
    model = nn.Sequential(Normalize((0.5,) * 6, (0.2,) * 6), *convex_potential(1)).float().eval()
    model = export(model)
    x = torch.rand(8, 6)
    exact, computed = (certify(model, x, method=OWN, level=v) for v in ("real", "float"))
    assert (computed.radius <= exact.radius * (1 + 1e-9)).all()
    assert float((computed.radius / exact.radius).mean()) > 0.97
    capped = certify(model, x, method=LipLT())
    assert float((computed.radius / capped.radius).mean()) > 1.1
    chain = read(model, (6,))
    radius = computed.radius * (1 - 1e-6)
    assert not attacked(chain, x.double(), computed.prediction, radius).any()


def risen_inside(chain: Chain, x: Tensor, row: Tensor, radius: float) -> float:
    """The largest rise that ascent finds among inputs in [0, 1] within a radius."""
    exact, best = chain.exact(), 0.0
    for start in range(6):
        step = radius * F.normalize(torch.randn_like(x), dim=1) * (start > 0)
        for _ in range(40):
            point = (x + step).clamp(0, 1).requires_grad_()
            value = (exact.forward(point) - exact.forward(x)) @ row
            best = max(best, float(value))
            (slope,) = torch.autograd.grad(value.sum(), point)
            step = point.detach() - x + 0.3 * radius * F.normalize(slope, dim=1)
            step = (x + step).clamp(0, 1) - x  # and back into the ball, which keeps it inside
            step = step * min(1.0, radius / max(float(step.norm()), 1e-300))
    return best


def test_margins_fall_less_inside_walls(each):
    ratios = []
    for seed in each((1, 2)):
        chain = read(convex_potential(seed), (6,))
        dense, last = dense_layers(chain)
        whole = stages(dense)
        for x in torch.rand(4, 1, 6).double().sub(0.2).mul(1.6).clamp(0, 1):  # many at the walls
            row = last.matrix[0] - last.matrix[1]
            found = []
            for room in (None, torch.cat([x, 1 - x])):
                ball = placed(whole, x, torch.tensor(0.5).double())
                problem = Problem.of(ball, row, 0.5, math.inf, known=scales(whole), room=room)
                bounds = []
                for _, some in proposed(problem, math.inf):
                    ends = ball[0].distance, problem.weight
                    bounds.append(float(proved_rise(ball, some, row, *ends, room=room)))
                found.append(min(bounds))
            logits = torch.tensor([1.0, -1.0, 0.0]).double()
            assert found[1] >= risen_inside(chain, x, logits, 0.5) * (1 - 1e-9)
            ratios.append(found[1] / found[0])
    assert max(ratios) < 1.001
    assert min(ratios) < 0.98
    nothing = [part._replace(lines=-part.lines) for part in some]
    assert proved_rise(ball, nothing, row, ball[0].distance, problem.weight, room=room) == math.inf


def test_a_box_is_said_and_asked_for():
    model, x = convex_potential(0), torch.rand(4, 6).double()
    found = certify(model, x, method=Local(cap=LipLT(), inside=(0.0, 1.0)))
    assert found.method == "local, inputs in [0, 1]"
    with pytest.raises(UsageError, match="not inside"):
        certify(model, x + 1, box=None, method=Local(cap=LipLT(), inside=(0.0, 1.0)))
    for wrong in ((1.0, 0.0), (math.nan, 1.0)):
        with pytest.raises(UsageError, match="no interval"):
            Local(inside=wrong)


def test_no_ball_is_farther_than_asked():
    model, x = convex_potential(0), 2 * torch.randn(12, 6).double()
    plain = certify(model, x, box=None, method=Local(cap=LipLT(), tries=0)).radius
    far = float(plain.median()) * 1.1
    method = Local((far,), cap=LipLT(), farthest=far, tries=1)
    found = certify(model, x, box=None, method=method).radius
    assert (found[plain >= far] == plain[plain >= far]).all()
    assert (found[plain < far] <= far).all()
    assert (found > plain).any()
