"""Branch and bound over all patterns of slopes, against all patterns one by one."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from onelip.bounds import Best, Exact, LipLT, LipSDP, Product, patterns
from onelip.bounds.method import Shared
from onelip.chains import Block, Chain, Convolution, Dense, Elementwise
from onelip.errors import NotApplicableError
from tests.networks import chain_of, random_weights, sorting_chain
from tests.oracles import materialised, sampled, sigma_max

KINDS = (
    (nn.ReLU(), 0.0, 1.0),
    (nn.LeakyReLU(0.1), 0.1, 1.0),
    (nn.LeakyReLU(-1.0), -1.0, 1.0),  # the absolute value
    (nn.LeakyReLU(1.5), 1.0, 1.5),
    (nn.Identity(), 1.0, 1.0),
)


def every_pattern(weights: list[Tensor], low: float, high: float) -> float:
    """The largest norm, one pattern after the other."""
    sizes = [len(weight) for weight in weights[:-1]]
    patterns_ = list(itertools.product((low, high), repeat=sum(sizes)))
    slopes = torch.tensor(patterns_, dtype=torch.float64)
    jacobians = weights[0].expand(len(slopes), *weights[0].shape)
    for part, weight in zip(slopes.split(sizes, 1), weights[1:], strict=True):
        jacobians = weight @ (part[:, :, None] * jacobians)
    return float(torch.linalg.matrix_norm(jacobians, 2).max())


def small_networks(count: int) -> Iterator[list[Tensor]]:
    for seed in range(count):
        torch.manual_seed(seed)
        depth = int(torch.randint(1, 5, ()))
        hidden = torch.randint(1, 1 + 9 // depth, (depth,)).tolist()
        ends = torch.randint(1, 5, (2,)).tolist()
        weights = random_weights(ends[0], *hidden, ends[1])
        if seed % 5 == 0:
            weights[seed % len(weights)][0] = 0  # a dead unit, or a logit that is constant
        if seed % 7 == 0:
            weights = [weight.sign() for weight in weights]  # ties
        yield weights


@pytest.mark.parametrize(("module", "low", "high"), KINDS, ids=str)
def test_equals_the_largest_of_all_patterns(module: nn.Module, low: float, high: float) -> None:
    for weights in small_networks(15):
        exact, chain = every_pattern(weights, low, high), chain_of(weights, module)
        bound = float(Exact().bound(chain))
        assert exact <= bound * (1 + 1e-14)
        assert bound <= exact * (1 + 2e-7) + 1e-12
        assert bound <= float(LipLT().bound(chain)) * (1 + 1e-7) + 1e-12


@pytest.mark.slow
def test_a_thousand_networks() -> None:
    for weights in small_networks(1000):
        exact = every_pattern(weights, 0.0, 1.0)
        assert exact <= float(Exact().bound(chain_of(weights))) * (1 + 1e-14)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e80])
def test_numbers_of_all_sizes(scale: float) -> None:
    weights = random_weights(3, 4, 4, 2)
    weights[1] = weights[1] * scale
    bound = float(Exact().bound(chain_of(weights)))
    assert bound == pytest.approx(every_pattern(weights, 0.0, 1.0), rel=2e-7)


def test_slopes_that_differ_between_layers_and_entries() -> None:
    for _ in range(10):
        weights = random_weights(3, 3, 4, 2)
        low, high = -torch.rand(3).double(), torch.rand(3).double()
        first = Block(Dense(weights[0]), Elementwise(nn.PReLU(3), low, high))
        second = Block(Dense(weights[1]), Elementwise.of(nn.LeakyReLU(0.2)))
        exact = 0.0
        for a in itertools.product((0, 1), repeat=3):
            one = torch.where(torch.tensor(a) > 0, high, low)
            for b in itertools.product((0.2, 1.0), repeat=4):
                two = torch.tensor(b, dtype=torch.float64)
                matrix = (weights[2] * two) @ (weights[1] * one) @ weights[0]
                exact = max(exact, sigma_max(matrix))
        bound = float(Exact().bound(Chain((first, second), Dense(weights[2]))))
        assert exact <= bound * (1 + 1e-14) <= exact * (1 + 2e-7)


def test_smooth_activations_are_bounded() -> None:
    for activation in (nn.Tanh(), nn.GELU(), nn.Sigmoid()):
        chain = chain_of(random_weights(3, 5, 4, 2), activation)
        assert sampled(chain) <= float(Exact().bound(chain))
        assert float(Exact().bound(chain)) <= float(LipSDP().bound(chain)) * (1 + 1e-6)


def test_convolutions_that_are_small() -> None:
    kernel = torch.randn(2, 1, 2, 2).double()
    block = Block(Convolution((1, 3, 3), kernel), Elementwise.of(nn.ReLU()))
    last = Convolution((2, 2, 2), torch.randn(1, 2, 2, 2).double())
    chain = Chain((block,), last)
    matrices = [materialised(linear, linear.inputs) for linear in (block.inner, last)]
    exact = every_pattern(matrices, 0.0, 1.0)
    assert float(Exact().bound(chain)) == pytest.approx(exact, rel=2e-7)


def test_more_nodes_never_give_more_and_none_gives_a_bound(monkeypatch) -> None:
    weights = random_weights(4, 6, 6, 2)
    exact, chain = every_pattern(weights, 0.0, 1.0), chain_of(weights)
    bounds = []
    monkeypatch.setattr(patterns, "_BATCH", 1)
    for batches in (0, 1, 4, 16, 64, 10**6):
        left = iter([1.0] * batches)
        monkeypatch.setattr(
            patterns.Deadline, "passed", property(lambda _, left=left: next(left, None) is None)
        )
        outcome = Exact(seconds=1).outcome(Shared(chain))
        bounds.append(float(outcome.bound))
        assert batches > 1 or "nodes are open" in outcome.more
        assert exact <= bounds[-1] * (1 + 1e-14)
    assert not outcome.more
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] <= float(Product().bound(chain)) * (1 + 1e-9)
    assert bounds[0] > bounds[-1] * 1.01
    assert bounds[-1] == pytest.approx(exact, rel=2e-7)


def test_bad_guesses_cost_time_and_no_truth(monkeypatch) -> None:
    weights = random_weights(3, 5, 4, 2)
    exact, chain = every_pattern(weights, 0.0, 1.0), chain_of(weights)
    for guess in (0.0, exact / 2):
        monkeypatch.setattr(patterns._Nodes, "ascended", lambda _, guess=guess: guess * 1e-3)
        assert float(Exact().bound(chain)) == pytest.approx(exact, rel=2e-7)
    # A pattern that is said to be larger than it is closes nodes early, with their own bounds.
    monkeypatch.setattr(patterns._Nodes, "ascended", lambda _: 1e9)
    assert exact <= float(Exact().bound(chain)) <= float(Product().bound(chain)) * (1 + 1e-9)


def test_what_it_does_not_cover() -> None:
    with pytest.raises(NotApplicableError, match="elementwise"):
        Exact().bound(sorting_chain(random_weights(4, 4, 2)))
    with pytest.raises(NotApplicableError, match="100 hidden entries"):
        Exact().bound(chain_of(random_weights(4, 100, 2)))
    dense = Dense(torch.eye(3).double())
    residual = Chain((Block(dense, Elementwise.of(nn.ReLU()), dense, dense),), dense)
    with pytest.raises(NotApplicableError, match="skip"):
        Exact().bound(residual)
    weight = torch.randn(2, 3).double()
    assert float(Exact().bound(Chain((), Dense(weight)))) == pytest.approx(sigma_max(weight))
    assert float(Exact().bound(chain_of([torch.zeros(3, 3), torch.ones(2, 3)]))) == 0


def test_best_takes_it_where_it_is_least() -> None:
    """LipSDP is at 107.4 here."""
    torch.manual_seed(5)
    chain = chain_of(random_weights(4, 8, 8, 8, 1))
    found = Best(seconds=20).report(chain)
    assert found.method == "exact"
    by_name = {tried.method: tried.bound for tried in found.tried}
    assert by_name["exact"] < by_name["lipsdp"] * 0.99
    assert found.lower.bound <= by_name["exact"]
