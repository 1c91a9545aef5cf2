"""All products of neighbouring maps: above the exact norms, and close to them."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from onelip.bounds import LipLT, Product
from onelip.bounds.products import intervals
from onelip.bounds.products.intervals import Intervals, work_of
from onelip.bounds.products.norms import Norms
from onelip.chains import Block, Chain, Convolution, Dense, Elementwise, LinearMap, Scale, composed
from onelip.deadline import Deadline
from onelip.errors import NotApplicableError
from tests.networks import chain_of, random_weights
from tests.oracles import materialised, sigma_max


def products(maps: list[LinearMap], norms: Norms | None = None) -> list[list[float]]:
    """Bounds of all products, from the ratios."""
    found = Intervals(maps, norms or Norms())
    table = []
    for k, ratios in enumerate(found.ratios):
        row = [float(math.prod(found.singles[i : k + 1])) for i in range(k + 1)]
        table.append([float(ratio) * single for ratio, single in zip(ratios, row, strict=True)])
    return table


def check(maps: list[LinearMap], tight: float) -> None:
    matrices = [materialised(m, m.inputs) for m in maps]
    for k, row in enumerate(products(maps)):
        for i, bound in enumerate(row):
            product = torch.eye(maps[i].columns).double()
            for matrix in matrices[i : k + 1]:
                product = matrix @ product
            exact, single = sigma_max(product), math.prod(map(sigma_max, matrices[i : k + 1]))
            assert exact <= bound * (1 + 1e-12) + 1e-290
            assert bound <= exact * (1 + tight) + 1e-14 * single


def test_random_maps_of_all_shapes(each) -> None:
    for sizes in each([(3, 3, 3, 3), (5, 2, 7, 1, 4), (1, 1, 1), (2, 9), (6, 6, 6, 6, 6, 6, 2)]):
        for _ in range(5):
            check([Dense(weight) for weight in random_weights(*sizes)], 2e-8)


def test_numbers_of_all_sizes(each) -> None:
    for scale in each([1e-300, 1e-150, 1e-20, 1e20, 1e100]):
        weights = random_weights(4, 4, 4)
        maps = [Dense(weights[0] * scale), Dense(weights[1] / scale), Dense(weights[0])]
        check(maps, 2e-8)


def test_convolutions_compositions_and_numbers() -> None:
    first = Convolution((2, 4, 4), torch.randn(3, 2, 3, 3).double(), padding=(1, 1))
    second = Scale((3, 4, 4), torch.tensor([1.0, -2.0, 0.5]).double().view(3, 1, 1))
    third = Convolution((3, 4, 4), torch.randn(2, 3, 2, 2).double())
    number = Scale((2, 3, 3), torch.tensor(3.0).double())
    check([composed([first, second]), composed([third, number]), number], 1e-7)


def test_ill_matched_products_are_seen() -> None:
    """The second map forgets what the first makes large."""
    first, second = torch.diag(torch.tensor([1.0, 1e-9])), torch.diag(torch.tensor([1e-9, 1.0]))
    check([Dense(first.double()), Dense(second.double())], 1e-6)
    zero = torch.zeros(2, 2).double()
    assert products([Dense(first.double()), Dense(zero)])[1] == [0.0, 0.0]
    silent = [Dense(torch.diag(torch.tensor(d)).double()) for d in ([1.0, 0.0], [0.0, 1.0])]
    assert products(silent)[1][0] < 1e-14


@pytest.mark.slow
def test_deep_products_stay_in_range() -> None:
    for scale in (0.01, 1.0, 100.0):
        weights = [scale * torch.randn(3, 3, dtype=torch.float64) for _ in range(400)]
        found = Intervals([Dense(weight) for weight in weights], Norms())
        total, logarithm = torch.eye(3).double(), 0.0
        for weight in weights:
            total = weight @ total
            logarithm, total = logarithm + math.log(total.norm()), total / total.norm()
        singles = sum(math.log(single) for single in found.singles)
        found_log = math.log(float(found.ratios[-1][0])) + singles
        exact = logarithm + math.log(sigma_max(total))
        assert exact - 1e-9 <= found_log <= exact + 1e-6


def test_a_wrong_sweep_is_measured(monkeypatch) -> None:
    """The proofs of squares and of factors agree."""
    maps: list[LinearMap] = [Dense(weight) for weight in random_weights(6, 6, 6, 6, 6)]
    monkeypatch.setattr(intervals, "_SQUARINGS", 0)
    factored = products(maps)
    monkeypatch.setattr(intervals, "_SQUARINGS", 8)
    monkeypatch.setattr(intervals, "_TIGHT", math.inf)
    squared = products(maps)
    for a, b in itertools.pairwise([factored, squared]):
        for row, other in zip(a, b, strict=True):
            assert all(x <= y * (1 + 1e-9) <= 3 * x for x, y in zip(row, other, strict=True))


@pytest.mark.parametrize("pieces", [0, 1, 3, 10, 30])
def test_liplt_keeps_what_it_knows_when_the_time_is_over(monkeypatch, pieces: int) -> None:
    chain = chain_of(random_weights(4, *[8] * 11, 3))
    least, most = float(LipLT().bound(chain)), float(Product().bound(chain))
    left = iter([math.inf] * pieces)
    monkeypatch.setattr(Deadline, "left", property(lambda _: next(left, 0.0)))
    try:
        found = float(LipLT(seconds=1).bound(chain))
    except NotApplicableError:
        assert pieces < 3
        return
    assert least * (1 - 1e-9) <= found <= most * (1 + 1e-9)
    assert (found < most * 0.99) == (pieces > 5)


def _slow(weights: list[Tensor], slopes: list[tuple[float, float]]) -> float:
    """The smallest over all starting points, on matrices."""
    body, hidden = [1.0], []
    for k, weight in enumerate(weights):
        path, fed, best = weight, 0.0, sigma_max(weight) * body[k]
        for j in reversed(range(k)):
            middle, half = (slopes[j][0] + slopes[j][1]) / 2, (slopes[j][1] - slopes[j][0]) / 2
            fed += half * sigma_max(path) * hidden[j]
            path = middle * path @ weights[j]
            best = min(best, fed + sigma_max(path) * body[j])
        hidden.append(best)
        if k < len(slopes):
            body.append(max(map(abs, slopes[k])) * best)
    return hidden[-1]


def test_liplt_with_slopes_that_differ_between_layers() -> None:
    kinds = [
        (nn.ReLU(), (0.0, 1.0)),
        (nn.LeakyReLU(3.0), (1.0, 3.0)),
        (nn.LeakyReLU(-1.0), (-1.0, 1.0)),
        (nn.Identity(), (1.0, 1.0)),
        (nn.Tanh(), (0.0, 1.0)),
    ]
    for seed in range(40):
        torch.manual_seed(seed)
        weights = random_weights(*torch.randint(1, 6, (7,)).tolist())
        chosen = [kinds[i] for i in torch.randint(0, len(kinds), (5,)).tolist()]
        blocks = tuple(
            Block(Dense(weight), Elementwise.of(module))
            for weight, (module, _) in zip(weights, chosen, strict=False)
        )
        bound = float(LipLT().bound(Chain(blocks, Dense(weights[-1]))))
        expected = _slow(weights, [slopes for _, slopes in chosen])
        assert bound == pytest.approx(expected, rel=1e-7)


def test_the_work_is_estimated_and_memory_refused() -> None:
    maps: list[LinearMap] = [Dense(weight) for weight in random_weights(*[16] * 9)]
    assert 1e5 < work_of(maps) < work_of(maps * 2) < math.inf
    assert work_of([Convolution((64, 64, 64), torch.ones(64, 64, 1, 1))]) == math.inf
