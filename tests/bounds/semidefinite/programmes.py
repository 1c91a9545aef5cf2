"""LipSDP as the papers state it, through cvxpy: slow, and right to about seven digits."""

import itertools

import cvxpy
import numpy as np
from torch import Tensor

from onelip.bounds.semidefinite.matrices import Groups, Matrices


def optimum(network: Matrices, *, shared: bool = False) -> float:
    """The bound that the best multipliers prove."""
    weights = [weight.numpy() for weight in network.weights]
    sizes = [weight.shape[1] for weight in weights]
    total = sum(sizes)
    starts = np.cumsum([0, *sizes])
    level = cvxpy.Variable()
    place = [_selection(total, a, b) for a, b in itertools.pairwise(starts)]
    form = level * (place[0].T @ place[0])
    form -= (weights[-1] @ place[-1]).T @ (weights[-1] @ place[-1])
    limits = []
    for k, kind in enumerate(network.kinds):
        x, y = place[k + 1], weights[k] @ place[k]
        terms, more = (
            _sorted(kind, x, y, shared) if isinstance(kind, Groups) else _sloped(kind, x, y, shared)
        )
        form, limits = form + terms, limits + more
    problem = cvxpy.Problem(cvxpy.Minimize(level), [(form + form.T) / 2 >> 0, *limits])
    problem.solve(solver=cvxpy.CLARABEL)
    return float(np.sqrt(level.value)) * float(np.prod([float(f) for f in network.factors]))


def _selection(total: int, first: int, last: int) -> np.ndarray:
    return np.eye(total)[first:last]


def _weights(count: int, shared: bool):
    if shared:
        single = cvxpy.Variable(nonneg=True)
        return single * np.eye(count), [single <= 1e4]
    weights = cvxpy.Variable(count, nonneg=True)
    return cvxpy.diag(weights), [weights <= 1e4]


def _sloped(kind, x: np.ndarray, y: np.ndarray, shared: bool):
    weights, limits = _weights(len(x), shared)
    low, high = kind.low.numpy()[:, None] * y, kind.high.numpy()[:, None] * y
    return (x - low).T @ weights @ (x - high), limits


def _sorted(kind, x: np.ndarray, y: np.ndarray, shared: bool):
    weights, limits = _weights(kind.count, shared)
    sums = (kind.index.numpy() == np.arange(kind.count)[:, None]).astype(float)
    spread = sums.T @ weights @ sums
    spread = cvxpy.multiply(spread, np.eye(len(x)))
    first, second = (cvxpy.Variable(kind.count) for _ in range(2))
    of_x, of_y = sums @ x, sums @ y
    terms = x.T @ spread @ x - y.T @ spread @ y
    for number, other in ((first, of_x), (second, of_y)):
        terms = terms + (of_x - of_y).T @ cvxpy.diag(number) @ other
        limits = [*limits, cvxpy.abs(number) <= 1e4]
    return terms, limits


def coupled(weights: list[Tensor]) -> float:
    """LipSDP-Network for one hidden ReLU layer: multipliers that couple neurons, unproved."""
    first, second = (weight.numpy() for weight in weights)
    count, inputs = first.shape
    level = cvxpy.Variable()
    single = cvxpy.Variable(count, nonneg=True)
    matrix = cvxpy.diag(single)
    for i in range(count):
        for j in range(i):
            apart = np.zeros((count, 1))
            apart[i], apart[j] = 1, -1
            matrix = matrix + cvxpy.Variable(nonneg=True) * (apart @ apart.T)
    corner = -(matrix @ first) / 2
    form = cvxpy.bmat(
        [
            [level * np.eye(inputs), corner.T],
            [corner, matrix - second.T @ second],
        ]
    )
    cvxpy.Problem(cvxpy.Minimize(level), [(form + form.T) / 2 >> 0]).solve(solver=cvxpy.CLARABEL)
    return float(np.sqrt(level.value))
