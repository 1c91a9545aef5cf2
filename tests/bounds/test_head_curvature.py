"""Curvature of MLP heads: against exact eigenvalues and Hessians, and the trap of the field."""

import itertools
import math

import pytest
import torch
from torch import nn

from onelip.activations import second_derivatives
from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.errors import NonFiniteError, UnboundedModuleError

ACTIVATIONS = [nn.Softplus(), nn.Softplus(beta=3), nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.ELU()]


def random_head(
    features: int, hidden: int, classes: int, activation: nn.Module | None = None
) -> TwoLayers:
    inner, outer = nn.Linear(features, hidden), nn.Linear(hidden, classes)
    return TwoLayers.of(inner, activation or nn.Softplus(), outer)


def pairs_of(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.cartesian_prod(*[torch.arange(classes)] * 2).unbind(1)
    return first[first != second], second[first != second]


def exact(head: TwoLayers, first: int, second: int) -> float:
    """The largest eigenvalue of the matrix that the second derivatives allow at worst."""
    low, high = second_derivatives(head.activation)
    d = head.outer[first] - head.outer[second]
    bend = torch.stack([-d * low, -d * high]).amax(0).clamp_min(0)
    return float(torch.linalg.eigvalsh(head.inner.T @ (bend[:, None] * head.inner))[-1])


def test_never_below_the_exact_eigenvalue_and_tight(each):
    for activation, (features, hidden) in each(
        itertools.product(ACTIVATIONS, [(6, 20), (20, 6), (1, 1), (5, 5)])
    ):
        torch.manual_seed(features)
        head = random_head(features, hidden, 4, activation)
        first, second = pairs_of(4)
        bounds = Curvature(head)(first, second)
        for bound, own, rival in zip(bounds.tolist(), first.tolist(), second.tolist(), strict=True):
            truth = exact(head, own, rival)
            assert truth * (1 - 1e-13) <= bound <= truth * (1 + 1e-8) + 1e-12


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_hessians_anywhere_lie_between(activation):
    torch.manual_seed(1)
    head = random_head(4, 12, 3, activation)
    curvature = Curvature(head)
    zero, one = torch.tensor([0]), torch.tensor([1])
    down, up = float(curvature(zero, one)), float(curvature(one, zero))
    for scale in (0.1, 1.0, 10.0):
        for _ in range(50):
            y = scale * torch.randn(4, dtype=torch.float64)
            hessian = torch.autograd.functional.hessian(
                lambda y: head(y) @ torch.tensor([1.0, -1.0, 0.0]).double(), y
            )
            eigenvalues = torch.linalg.eigvalsh(hessian)
            assert -down <= float(eigenvalues[0])
            assert float(eigenvalues[-1]) <= up


def test_rough_bounds_are_looser_and_become_exact_where_a_pair_is_known():
    torch.manual_seed(2)
    head = random_head(10, 40, 7)
    curvature = Curvature(head)
    first, second = pairs_of(7)
    rough = curvature.rough(first, second)
    assert curvature.proved_pairs == 0
    truth = torch.tensor([exact(head, *pair) for pair in zip(first, second, strict=True)])
    assert bool((rough >= truth).all())
    assert bool((rough <= 2 * truth).all())
    known = curvature(first[:5], second[:5])
    assert curvature.proved_pairs == 5
    torch.testing.assert_close(curvature.rough(first, second)[:5], known, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e75])
def test_scales(scale):
    torch.manual_seed(3)
    plain = random_head(3, 8, 2)
    zero, one = torch.tensor([0]), torch.tensor([1])
    scaled = TwoLayers(
        plain.inner * scale, plain.inner_bias, nn.Softplus(), plain.outer / scale, plain.outer_bias
    )
    expected = float(Curvature(plain)(zero, one)) * scale
    assert float(Curvature(scaled)(zero, one)) == pytest.approx(expected, rel=1e-9)


def test_zero_weights_and_equal_rows_do_not_bend():
    head = random_head(3, 8, 3)
    none, equal = torch.zeros_like(head.inner), head.outer[:1].expand(3, -1)
    first, second = pairs_of(3)
    straight = TwoLayers(none, head.inner_bias, nn.Softplus(), head.outer, head.outer_bias)
    alike = TwoLayers(head.inner, head.inner_bias, nn.Softplus(), equal, head.outer_bias)
    assert float(Curvature(straight)(first, second).max()) <= 1e-150
    assert float(Curvature(alike)(first, second).max()) <= 1e-150
    linear = Curvature(random_head(3, 8, 3, nn.Identity()))
    assert float(linear(first, second).max()) <= 1e-150


def test_weights_that_overflow_the_curvature_have_an_infinite_one():
    head = random_head(3, 8, 2)
    huge = TwoLayers(
        head.inner * 1e200, head.inner_bias, nn.Softplus(), head.outer * 1e200, head.outer_bias
    )
    assert float(Curvature(huge)(torch.tensor([0]), torch.tensor([1]))) == math.inf


def test_what_is_refused():
    with pytest.raises(UnboundedModuleError, match="second derivative of ReLU"):
        Curvature(random_head(3, 4, 2, nn.ReLU()))
    broken = nn.Linear(3, 4)
    broken.weight.data[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        TwoLayers.of(broken, nn.Softplus(), nn.Linear(4, 2))
