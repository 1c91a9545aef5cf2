"""Rises in whole balls, against sampling and ascent in hundreds of small networks."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.bounds.neighbourhood.dense_layers import layers
from onelip.bounds.neighbourhood.stages import Placed, placed, reached, stages
from onelip.bounds.semidefinite import value_functions
from onelip.bounds.semidefinite.falls import Problem, proposed, scales
from onelip.bounds.semidefinite.value_functions import Multipliers, backward, proved_rise
from onelip.chains import Block, Chain, Dense, Elementwise, GroupSorting, identity
from onelip.layers import Abs, MaxMin

ONE = torch.ones((), dtype=torch.float64)
KINDS = {
    "relu": Elementwise.of(nn.ReLU()),
    "leaky": Elementwise.of(nn.LeakyReLU(0.2)),
    "steep-leaky": Elementwise.of(nn.LeakyReLU(1.4)),
    "absolute": Elementwise(Abs(), -ONE, ONE),
    "tanh": Elementwise.of(nn.Tanh()),
    "hardtanh": Elementwise.of(nn.Hardtanh(-0.5, 0.7)),
    "identity": Elementwise.of(nn.Identity()),
}


def gradient_steps(width: int, units: int, depth: int, kind: Elementwise | None = None) -> Chain:
    """A Convex Potential network: steps of size ``2 / |W|^2``, with their constant 1."""
    blocks = []
    for _ in range(depth):
        weight, bias = torch.randn(units, width).double(), torch.randn(units).double() / 2
        step = 2 / torch.linalg.matrix_norm(weight, 2).square()
        blocks.append(
            Block(
                Dense(weight, bias),
                kind or KINDS["relu"],
                Dense(-step * weight.mT),
                identity((width,)),
                constant=1.0 if kind is None else None,
            )
        )
    return Chain(tuple(blocks), Dense(torch.randn(3, width).double()))


def plain(width: int, units: int, depth: int, kind: Elementwise | GroupSorting) -> Chain:
    """Layers one after the other, and a last map."""
    sizes = [width, *[units] * depth]
    maps = [
        Dense(torch.randn(m, n).double() / n**0.5, torch.randn(m).double() / 2)
        for n, m in itertools.pairwise(sizes)
    ]
    blocks = tuple(Block(linear, kind) for linear in maps)
    return Chain(blocks, Dense(torch.randn(3, units).double()))


def network(chain: Chain, x: Tensor, radius: float) -> tuple[list[Placed], list, Tensor]:
    """The stages in a ball, the stages, and a row of the last map."""
    dense, last = layers(chain)
    parts = stages(dense)
    return placed(parts, x[None], torch.tensor(radius).double()), parts, last.matrix[0]


def risen(chain: Chain, x: Tensor, radius: float, count: int = 60, steps: int = 25) -> float:
    """The largest rise of the first output that sampling and ascent find in the ball."""
    exact, start = chain.exact(), chain.exact().forward(x[None])[0, 0]
    moves = F.normalize(torch.randn(count, *x.shape).double(), dim=1)
    moves = moves * radius * torch.rand(count, 1).double() ** 0.2
    best = 0.0
    for _ in range(steps):
        moves.requires_grad_()
        rises = exact.forward(x + moves)[:, 0] - start
        best = max(best, float(rises.detach().max()))
        (gradient,) = torch.autograd.grad(rises.sum(), moves)
        moves = moves.detach() + 0.3 * radius * F.normalize(gradient, dim=1)
        moves = moves * (radius / moves.norm(dim=1, keepdim=True)).clamp_max(1) * (1 - 1e-12)
    return best


def best_proved(
    chain: Chain, x: Tensor, radius: float, share: float = 1.0, *, checked: bool = True
) -> float:
    """The best bound on the way of a search, with multipliers for a share of the largest rise."""
    parts, whole, row = network(chain, x, radius)
    target = share * radius * float(row.norm())
    problem = Problem.of(parts, row, radius, target, known=scales(whole))
    bound, length = math.inf, torch.tensor(radius).double()
    for promised, multipliers in proposed(problem, math.inf):
        if promised < bound:
            found = proved_rise(parts, multipliers, row, length, problem.weight)
            assert not checked or float(found) <= promised + 1e-6 * (1 + abs(promised))
            bound = min(bound, float(found))
    return bound


def test_no_rise_of_any_network_is_above_what_searches_prove(each):
    gained = []
    for _ in each(range(8)):
        chain, x = gradient_steps(4, 6, 3), torch.randn(4).double()
        for radius in (0.1, 1.0, 10.0):
            found = risen(chain, x, radius)
            bounds = [best_proved(chain, x, radius, share) for share in (1.0, 0.6)]
            assert min(bounds) >= found * (1 - 1e-12)
            gained.append(torch.tensor([*bounds, found]) / (radius * chain.last.weight[0].norm()))
    whole, less, least = torch.stack(gained).mean(0).tolist()
    assert whole < 0.85  # the constants of the layers prove 1
    assert less < whole
    assert least > 0.3


def test_other_activations_and_sorting(each):
    for name in each([*KINDS, "max-min"]):
        kind = GroupSorting(MaxMin(), 2) if name == "max-min" else KINDS[name]
        for make, radius in itertools.product((gradient_steps, plain), (0.2, 2.0)):
            if make is gradient_steps and name == "max-min":
                continue
            chain, x = make(4, 6, 3, kind), torch.randn(4).double()
            bound = best_proved(chain, x, radius)
            assert bound >= risen(chain, x, radius) * (1 - 1e-12)


def test_any_multipliers_prove_a_bound(each):
    """Random ones are mostly useless, and what they prove infinite or large: never too small."""
    proved = 0
    for _ in each(range(25)):
        chain, x, radius = gradient_steps(3, 4, 2), torch.randn(3).double(), 1.0
        parts, whole, row = network(chain, x, radius)
        problem, best = (
            Problem.of(parts, row, radius, math.inf, known=scales(whole)),
            risen(chain, x, radius),
        )
        *_, (_, found) = proposed(problem, math.inf)
        for _ in range(20):
            drawn = [
                Multipliers(
                    single.products * (1 + 0.1 * torch.rand_like(single.products)),
                    single.lines * torch.rand_like(single.lines) * 2,
                )
                for single in found
            ]
            weight = problem.weight * (1 + float(torch.rand(())))
            bound = float(proved_rise(parts, drawn, row, torch.tensor(radius).double(), weight))
            assert bound >= best
            proved += bound < math.inf
    assert proved > 20


@pytest.mark.parametrize("bad", [-1e-3, math.nan, math.inf])
def test_multipliers_that_are_none_prove_nothing(bad):
    chain, x, radius = gradient_steps(3, 4, 2), torch.randn(3).double(), torch.ones(()).double()
    parts, whole, row = network(chain, x, 1.0)
    problem = Problem.of(parts, row, 1.0, math.inf, known=scales(whole))
    *_, (_, found) = proposed(problem, math.inf)
    assert torch.isfinite(proved_rise(parts, found, row, radius, problem.weight))
    for field in ("products", "lines"):
        wrong = found[-1]._replace(**{field: getattr(found[-1], field).clone()})
        getattr(wrong, field)[..., 0] = bad
        assert proved_rise(parts, [*found[:-1], wrong], row, radius, problem.weight) == math.inf
    assert proved_rise(parts, found, row, radius, -1.0) == math.inf
    assert proved_rise(parts, found, row, radius, bad) == math.inf


def test_one_unit_is_exact():
    """``x - relu(x - 1)`` around 0: in a ball of radius 1 at most no unit switches."""
    one = torch.ones(1, 1).double()
    block = Block(Dense(one, -one[0]), KINDS["relu"], Dense(-one), identity((1,)), constant=1.0)
    chain = Chain((block,), Dense(one))
    for radius in (0.5, 0.9, 1.0):
        assert best_proved(chain, torch.zeros(1).double(), radius) == pytest.approx(
            radius, rel=1e-3
        )


def test_an_error_of_the_maps_is_added():
    """Maps that are off by as much as is said, in any direction."""
    off = 1e-3
    for _ in range(40):
        chain, x, radius = gradient_steps(3, 5, 2), torch.randn(3).double(), 1.0
        dense, last = layers(chain)
        moved = []
        for layer in dense:
            changed = {}
            for name in ("inner", "outer", "skip"):
                affine = getattr(layer, name)
                noise = torch.randn_like(affine.matrix)
                noise = off * noise / noise.norm()
                error = torch.tensor(off * (1 + 1e-9)).double()
                fresh = replace(affine, matrix=affine.matrix + noise, error=error)
                changed[name] = fresh
            moved.append(replace(layer, **changed))
        row, length = last.matrix[0], torch.tensor(radius).double()
        parts = stages(moved)
        known = placed(parts, x[None], length)
        # The centre of the exact network, in front of each layer.
        exact = placed(stages(dense), x[None], length)
        known = [Placed(a.stage, b.lines, a.distance) for a, b in zip(known, exact, strict=True)]
        problem = Problem.of(known, row, radius, math.inf, known=scales(parts))
        bounds = [
            float(proved_rise(known, found, row, length, problem.weight))
            for _, found in proposed(problem, math.inf)
        ]
        assert min(bounds) >= risen(chain, x, radius, count=20)
        assert min(bounds) < 1.2 * radius * float(row.norm())


def test_distances_grow_by_the_constants():
    chain = gradient_steps(3, 4, 2, KINDS["steep-leaky"])
    parts = stages(layers(chain)[0])
    first, *others = reached(parts, torch.ones(()).double())
    assert float(first) == 1
    for stage, (before, after) in zip(parts, itertools.pairwise([first, *others]), strict=True):
        assert float(after) >= float(before * stage.growth)


@pytest.mark.parametrize("wrong", [0.9, 0.999, 1 - 1e-7, 1 + 1e-7, 1.5, -1.0])
def test_nothing_of_the_recursion_is_trusted(wrong, monkeypatch):
    """Value functions that are no solutions prove less, or nothing; never too much."""
    chain, x, radius = gradient_steps(3, 5, 3), torch.randn(3).double(), 1.0
    parts, whole, row = network(chain, x, radius)
    problem = Problem.of(parts, row, radius, math.inf, known=scales(whole))
    *_, (promised, found) = proposed(problem, math.inf)
    length, best = torch.tensor(radius).double(), risen(chain, x, radius)
    for field in ("constant", "slope", "matrix"):

        def moved(*arguments, field=field):
            value, step = backward(*arguments)
            return value._replace(**{field: wrong * getattr(value, field)}), step

        monkeypatch.setattr(value_functions, "backward", moved)
        bound = float(proved_rise(parts, found, row, length, problem.weight))
        assert bound >= best
        assert abs(wrong - 1) < 1e-3 or not bound <= promised * (1 + 1e-6)


def test_rounding_of_the_centre_cannot_hide_a_unit():
    """In float64 the sum is -0.5 or 0.5 by the order of its terms; it is 0.5, and active."""
    inputs = [[1e16, 1.0, -1e16], [1.0, 1e16, -1e16], [1e16, -1e16, 1.0]]
    layer = Block(Dense(torch.ones(1, 3), torch.tensor([-0.5])), KINDS["relu"])
    chain, radius = Chain((layer,), Dense(torch.ones(1, 1))), 0.25
    for x in torch.tensor(inputs).double():
        assert best_proved(chain, x, radius, checked=False) >= math.sqrt(3) * radius
