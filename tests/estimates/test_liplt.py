"""Estimates of LipLT's constants: against the recursion written down with matrices."""

import itertools

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip.chains import (
    Block,
    Chain,
    Convolution,
    Dense,
    Elementwise,
    GroupSorting,
    Opaque,
    Reshape,
    composed,
    identity,
    transformed,
)
from onelip.estimates import LipLTEstimate, ProductEstimate
from onelip.layers import MaxMin


def _weight(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _dense_chain(activation: nn.Module, widths: tuple[int, ...] = (4, 6, 5, 7, 3)) -> Chain:
    pairs = list(itertools.pairwise(widths))
    blocks = [
        Block(Dense(_weight(b, a, seed=i)), Elementwise.of(activation))
        for i, (a, b) in enumerate(pairs[:-1])
    ]
    return Chain(tuple(blocks), Dense(_weight(widths[-1], widths[-2], seed=99)))


def _residual_chain() -> Chain:
    blocks = (
        Block(
            Dense(_weight(6, 4, seed=0)),
            Elementwise.of(nn.LeakyReLU(0.3)),
            Dense(_weight(4, 6, seed=1)),
            identity((4,)),
        ),
        Block(Dense(_weight(8, 4, seed=2)), GroupSorting(MaxMin(), 2)),
        Block(
            Dense(_weight(5, 8, seed=3)),
            Elementwise.of(nn.GELU()),
            Dense(_weight(8, 5, seed=4)),
            Dense(_weight(8, 8, seed=5)),
        ),
    )
    return Chain(blocks, Dense(_weight(3, 8, seed=6)))


def _opaque_chain() -> Chain:
    blocks = (
        Block(Dense(_weight(6, 4, seed=0)), Elementwise.of(nn.ReLU())),
        Block(Dense(_weight(6, 6, seed=1)), Opaque(nn.Hardswish(), 1.5, (6,))),
        Block(Dense(_weight(5, 6, seed=2)), Elementwise.of(nn.ReLU())),
    )
    return Chain(blocks, Dense(_weight(3, 5, seed=3)))


def _conv_chain() -> Chain:
    blocks = (
        Block(
            Convolution((2, 5, 5), _weight(4, 2, 3, 3, seed=0), padding=(1, 1)),
            Elementwise.of(nn.ReLU()),
        ),
        Block(
            Convolution(
                (4, 5, 5), _weight(3, 4, 3, 3, seed=1), stride=(2, 2), circular=True, padding=(1, 1)
            ),
            Elementwise.of(nn.ReLU()),
        ),
        Block(
            composed([Reshape((3, 3, 3), (27,)), Dense(_weight(6, 27, seed=2))]),
            Elementwise.of(nn.ReLU()),
        ),
    )
    return Chain(blocks, Dense(_weight(4, 6, seed=3)))


CHAINS = {
    "relu": _dense_chain(nn.ReLU()),
    "tanh": _dense_chain(nn.Tanh()),
    "linear": _dense_chain(nn.Identity()),
    "one-layer": _dense_chain(nn.ReLU(), (3, 4, 2)),
    "residual": _residual_chain(),
    "opaque": _opaque_chain(),
    "convolutional": _conv_chain(),
}


def _converged(name: str, **settings: int) -> Tensor:
    """After so many steps that a thousand give the same six digits."""
    iterations = 600 if name == "convolutional" else 200
    return LipLTEstimate(CHAINS[name], iterations=iterations, **settings).eval()(CHAINS[name])


def _matrix(linear: object) -> Tensor:
    basis = torch.eye(linear.columns, dtype=torch.float64).unflatten(1, linear.inputs)
    return linear(basis).flatten(1).T


def _by_matrices(chain: Chain) -> Tensor:
    """Theorem 3.3, each norm an SVD, for each difference of two logits."""
    stages = [
        [None if part is None else _matrix(part) for part in transformed(block)]
        for block in chain.blocks
    ]
    last = _matrix(chain.last)
    result = torch.zeros(len(last), len(last), dtype=torch.float64)
    for i, j in itertools.combinations(range(len(last)), 2):
        targets = [stage[2] for stage in stages] + [(last[i] - last[j])[None]]
        reach: list[Tensor] = []
        for k, target in enumerate(targets):
            total, path = torch.zeros((), dtype=torch.float64), target
            for source in range(k, 0, -1):
                passes, enters, _ = stages[source - 1]
                total = total + torch.linalg.matrix_norm(path @ enters, 2) * reach[source - 1]
                if passes is None:
                    path = None
                    break
                path = path @ passes
            reach.append(total if path is None else total + torch.linalg.matrix_norm(path, 2))
        result[i, j] = result[j, i] = reach[-1]
    return result


@pytest.mark.parametrize("name", CHAINS)
def test_it_converges_to_the_recursion(name: str) -> None:
    exact = _by_matrices(CHAINS[name])
    torch.testing.assert_close(_converged(name), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CHAINS)
def test_many_classes_are_the_rows_times_the_rest(name: str) -> None:
    """The recursion on the same network with the identity as last map, times the rows."""
    chain = CHAINS[name]
    found = _converged(name, most_classes=1)
    rows = _matrix(chain.last)
    reach: list[Tensor] = []
    stages = [
        [None if part is None else _matrix(part) for part in transformed(block)]
        for block in chain.blocks
    ]
    for k in range(len(stages) + 1):
        path: Tensor | None = stages[k][2] if k < len(stages) else torch.eye(rows.shape[1]).double()
        total = torch.zeros((), dtype=torch.float64)
        for source in range(k, 0, -1):
            passes, enters, _ = stages[source - 1]
            total = total + torch.linalg.matrix_norm(path @ enters, 2) * reach[source - 1]
            path = None if passes is None else path @ passes
            if path is None:
                break
        reach.append(total if path is None else total + torch.linalg.matrix_norm(path, 2))
    torch.testing.assert_close(found, torch.cdist(rows, rows) * reach[-1], rtol=1e-5, atol=1e-5)
    assert (found >= _by_matrices(chain) * (1 - 1e-5)).all()


@pytest.mark.parametrize("name", CHAINS)
def test_it_comes_from_below(name: str) -> None:
    chain, exact = CHAINS[name], _by_matrices(CHAINS[name])
    few = LipLTEstimate(chain, iterations=1).eval()(chain)
    assert (few <= exact * (1 + 1e-9) + 1e-6).all()


def test_each_call_in_training_moves_one_step_and_none_in_eval() -> None:
    chain = CHAINS["relu"]
    estimate = LipLTEstimate(chain, iterations=0)
    first = estimate(chain)
    assert (estimate(chain).sum() - first.sum()) > 1e-3
    estimate.eval()
    assert torch.equal(estimate(chain), estimate(chain))
    many = LipLTEstimate(chain, iterations=5).eval()(chain)
    again = LipLTEstimate(chain, iterations=0)
    for _ in range(5):
        again(chain)
    torch.testing.assert_close(again.eval()(chain), many)


def test_gradients_are_those_of_the_recursion() -> None:
    weight = _weight(6, 4, seed=0).requires_grad_()
    base = CHAINS["relu"]
    chain = Chain((Block(Dense(weight), base.blocks[0].nonlinearity), *base.blocks[1:]), base.last)
    estimate = LipLTEstimate(chain, iterations=500).eval()
    (found,) = torch.autograd.grad(estimate(chain)[0, 1], weight)
    (exact,) = torch.autograd.grad(_by_matrices(chain)[0, 1], weight)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


def test_the_estimate_of_the_product() -> None:
    chain = CHAINS["relu"]
    found = ProductEstimate(chain, iterations=300).eval()(chain)
    norms = [torch.linalg.matrix_norm(block.inner.weight, 2) for block in chain.blocks]
    rows = torch.cdist(chain.last.weight, chain.last.weight)
    torch.testing.assert_close(found, rows * torch.stack(norms).prod(), rtol=1e-6, atol=1e-6)
    assert (LipLTEstimate(chain, iterations=300).eval()(chain) <= found * (1 + 1e-6)).all()
    with pytest.raises(ValueError, match="LipLTEstimate"):
        ProductEstimate(CHAINS["residual"])


def test_zero_weights_have_finite_gradients() -> None:
    weight = torch.zeros(6, 4, requires_grad=True)
    chain = Chain(
        (Block(Dense(weight), Elementwise.of(nn.ReLU())),), Dense(_weight(3, 6, seed=0).float())
    )
    for estimate in (LipLTEstimate(chain), ProductEstimate(chain)):
        constants = estimate(chain)
        constants.sum().backward()
        assert torch.isfinite(constants).all()
        assert torch.isfinite(weight.grad).all()


def test_directions_travel_in_the_state_dict() -> None:
    chain = CHAINS["relu"]
    one, other = LipLTEstimate(chain, iterations=3, seed=1), LipLTEstimate(chain, iterations=3)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(chain), other.eval()(chain))


def test_the_old_name_of_the_product_warns() -> None:
    with pytest.warns(DeprecationWarning, match="estimates.ProductEstimate"):
        assert onelip.estimates.NaiveEstimate is ProductEstimate
