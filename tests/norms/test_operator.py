"""Norms of maps that are known by what they do, and what is said of them."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip import norms
from onelip.errors import NonFiniteError, NotApplicableError, UsageError
from onelip.norms import _operator
from onelip.norms._operator import ProbableNorm, operator
from onelip.norms.rounding import product
from tests.oracles import is_above, materialised, norm_below, sigma_max


def of(matrix: Tensor) -> tuple:
    return (lambda x: matrix @ x), (lambda y: matrix.T @ y), (matrix.shape[1],)


def projections(image: Tensor) -> Tensor:
    """Sums along rows, columns and diagonals, as a scanner takes them."""
    size = image.shape[-1]
    diagonals = [image.diagonal(k).sum() for k in range(1 - size, size)]
    return torch.cat([image.sum(0), image.sum(1), torch.stack(diagonals)])


def back_projection(sums: Tensor) -> Tensor:
    size = (len(sums) + 1) // 4
    columns, rows, diagonals = sums.split([size, size, 2 * size - 1])
    places = torch.arange(size)
    return columns + rows[:, None] + diagonals[places - places[:, None] + size - 1]


def test_small_maps_are_proved():
    for rows, columns in ((1, 1), (5, 3), (3, 5), (20, 20)):
        matrix = torch.randn(rows, columns, dtype=torch.float64)
        bound = operator(*of(matrix))
        assert is_above(bound, norm_below(matrix))
        assert float(bound) == pytest.approx(sigma_max(matrix), rel=1e-8)


def test_images_in_batches_and_one_by_one():
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    forward = lambda x: F.conv2d(x, weight, padding=1, stride=2)  # noqa: E731
    back = lambda y: F.conv_transpose2d(y, weight, padding=1, stride=2, output_padding=1)  # noqa: E731
    truth = sigma_max(materialised(forward, (2, 6, 8)))
    for batch in (1, 7, 1000):
        bound = operator(forward, back, (2, 6, 8), batch=batch)
        assert truth * (1 - 1e-14) <= float(bound) <= truth * (1 + 1e-8)
    single = operator(lambda x: forward(x[None])[0], lambda y: back(y[None])[0], (2, 6, 8))
    assert float(single) == pytest.approx(truth, rel=1e-8)


def test_maps_without_negative_numbers_are_proved(monkeypatch):
    """Matrix-free; compared with the matrix."""
    truth = sigma_max(torch.stack([projections(e.view(9, 9)) for e in torch.eye(81).double()]))
    monkeypatch.setattr(_operator, "_SIDE", 0)
    bound = operator(projections, back_projection, (9, 9), nonnegative=True)
    assert isinstance(bound, Tensor)
    assert truth * (1 - 1e-14) <= float(bound) <= truth * (1 + 1e-5)
    for _ in range(30):
        matrix = torch.rand(8, 6, dtype=torch.float64) * (torch.rand(8, 6) < 0.4)
        bound = operator(*of(matrix), nonnegative=True)
        assert float(bound) >= sigma_max(matrix) * (1 - 1e-14)  # reducible ones, too
    assert float(operator(*of(torch.zeros(3, 3).double()), nonnegative=True)) < 1e-140
    with pytest.raises(NotApplicableError, match="nonnegative=False"):
        operator(*of(torch.randn(9, 9).double()), nonnegative=True)


def test_a_probable_norm_is_no_bound(monkeypatch):
    monkeypatch.setattr(_operator, "_SIDE", 0)
    matrix = torch.randn(60, 80, dtype=torch.float64)
    found = operator(*of(matrix), iterations=30)
    assert isinstance(found, ProbableNorm)
    truth = sigma_max(matrix)
    assert found.estimate <= truth * (1 + 1e-12)
    assert truth <= found.value <= 1.2 * found.estimate
    assert found.probability == 1 - 1e-9
    assert found.products == 60
    model = nn.Linear(2, 2)
    for taken in (
        lambda: float(found),
        lambda: torch.as_tensor(found),
        lambda: product([found]),
        lambda: onelip.lipschitz_bound(found),
        lambda: onelip.lipschitz_bound(model, (2,), method=found),
        lambda: onelip.certify(model, torch.rand(1, 2), method=found),
    ):
        with pytest.raises((TypeError, AttributeError, RuntimeError, onelip.errors.OnelipError)):
            taken()


def test_the_probability_is_not_claimed_too_high(monkeypatch):
    """Of maps that are hard to see, far fewer than the stated share exceed the value."""
    monkeypatch.setattr(_operator, "_SIDE", 0)
    monkeypatch.setattr(_operator, "_PAIRS", 1)
    for probability, steps, rest in ((0.5, 2, 0.9), (0.7, 3, 0.5), (0.9, 2, 0.0), (0.8, 4, 0.97)):
        values = torch.full((40,), rest, dtype=torch.float64)
        values[7] = 1.0
        above = 0
        for _ in range(400):
            found = operator(
                lambda x, v=values: v * x,
                lambda y, v=values: v * y,
                (40,),
                probability=probability,
                iterations=steps,
            )
            above += found.value < 1
        assert above / 400 <= 1 - probability + 0.05


def test_the_ratio_solves_its_equation():
    for dimensions, steps, failure in ((10, 2, 0.1), (10**6, 60, 1e-9), (10**6, 120, 1e-9)):
        ratio = _operator._ratio(dimensions, steps, failure)
        chebyshev = math.cosh((steps - 1) * math.acosh(2 * ratio - 1))
        left = (ratio - 1) * chebyshev**2
        assert left == pytest.approx(2 * dimensions / math.pi / failure**2, rel=1e-6)
    assert _operator._ratio(10**6, 60, 1e-9) ** 0.5 < 1.035
    assert _operator._ratio(10**6, 120, 1e-9) ** 0.5 < 1.01


def test_a_component_on_the_sphere_is_rarely_small():
    """The inequality that the probability rests on, in few dimensions and many."""
    for dimensions in (1, 2, 3, 10, 300):
        x = torch.randn(20_000, dimensions, dtype=torch.float64)
        first = (x[:, 0] / x.norm(dim=1)).abs()
        for t in (0.01, 0.05, 0.2):
            share = float((first <= t).double().mean())
            assert share <= t * math.sqrt(2 * dimensions / math.pi) + 0.006


def test_wrong_adjoints_are_refused(monkeypatch):
    """By 5 %, as interpolating back projections are; transposed, shifted, of another shape."""
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    forward = lambda x: F.conv2d(x, weight, padding=1)  # noqa: E731
    right = lambda y: F.conv_transpose2d(y, weight, padding=1)  # noqa: E731
    shape = (1, 40, 40)
    for side in (4096, 0):
        monkeypatch.setattr(_operator, "_SIDE", side)
        operator(forward, right, shape, batch=64)
        wrong = [
            lambda y: 1.05 * right(y),
            lambda y: right(y).roll(1, -1),
            forward,
            lambda y: right(y) * torch.linspace(0.95, 1.05, 40),
        ]
        for adjoint in wrong:
            with pytest.raises(UsageError, match="is not the adjoint of apply"):
                operator(forward, adjoint, shape, batch=64)
        with pytest.raises(UsageError, match="returns shape"):
            operator(forward, lambda y: right(y)[..., 1:], shape, batch=64)


def test_what_is_refused():
    matrix = torch.randn(4, 4, dtype=torch.float64)
    apply, adjoint, shape = of(matrix)
    bent = Bent()
    with pytest.raises(UsageError, match="not linear"):
        operator(bent.apply, bent.adjoint, shape)
    with pytest.raises(NonFiniteError):
        operator(lambda x: matrix @ x / 0, adjoint, shape)
    with pytest.raises(UsageError, match="complex"):
        operator(lambda x: (matrix @ x).to(torch.complex128), adjoint, shape)
    for arguments in ({"probability": 1.0}, {"iterations": 1}, {"batch": 0}):
        with pytest.raises(UsageError):
            operator(apply, adjoint, shape, **arguments)
    with pytest.raises(UsageError):
        operator(apply, adjoint, (0,))


class Bent:
    """No linear map, and an adjoint that passes the trial, since it remembers the input."""

    def apply(self, x: Tensor) -> Tensor:
        self.seen = x
        return x.abs()

    def adjoint(self, y: Tensor) -> Tensor:
        return self.seen * (self.seen.abs() * y).sum() / self.seen.square().sum()


def test_it_agrees_with_the_norm_of_the_same_convolution():
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    bound = operator(
        lambda x: F.conv2d(x, weight, padding=1),
        lambda y: F.conv_transpose2d(y, weight, padding=1),
        (2, 9, 9),
        batch=50,
    )
    assert float(bound) == pytest.approx(
        float(norms.conv2d(weight, padding=1, input_size=9)), rel=1e-9
    )


def test_numbers_of_another_dtype_are_refused_in_one_line():
    matrix = torch.eye(3)
    with pytest.raises(UsageError, match=r"in float64 is asked: .*; matrix.double"):
        operator(lambda x: matrix @ x, lambda y: matrix.T @ y, (3,))
