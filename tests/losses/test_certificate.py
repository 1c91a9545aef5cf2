"""Cross-entropy minus certified radii."""

import math

import pytest
import torch
from torch.nn import functional as F

from onelip.losses import CertificateRegularized

LOGITS = torch.tensor(
    [[3.0, 1.0, 0.5], [0.0, 2.0, 1.5], [1.0, 1.0, -4.0], [0.2, 0.1, 0.7]], dtype=torch.float64
)
LABELS = torch.tensor([0, 2, 0, 2])
RADII = [2.0, 0.0, 0.0, 0.5]  # times the constant


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("constant", [2**0.5, 1.0, 2.0])
def test_radii_by_hand(gamma, constant):
    expected = F.cross_entropy(LOGITS, LABELS) - gamma * sum(RADII) / 4 / constant
    found = CertificateRegularized(gamma, constant)(LOGITS, LABELS)
    torch.testing.assert_close(found, expected)


def test_the_default_constant_is_that_of_a_1_lipschitz_network():
    found = CertificateRegularized(1.0)(torch.tensor([[1000.0, 0.0]]), torch.tensor([0]))
    assert float(found) == pytest.approx(-1000 / math.sqrt(2))


def test_wrong_samples_have_the_gradient_of_cross_entropy():
    x = LOGITS[1:2].clone().requires_grad_()
    (own,) = torch.autograd.grad(CertificateRegularized(7.0)(x, LABELS[1:2]), x)
    (plain,) = torch.autograd.grad(F.cross_entropy(x, LABELS[1:2]), x)
    torch.testing.assert_close(own, plain)


def test_right_samples_gain_by_their_radius():
    x = LOGITS[:1].clone().requires_grad_()
    (own,) = torch.autograd.grad(CertificateRegularized(7.0, 2.0)(x, LABELS[:1]), x)
    (plain,) = torch.autograd.grad(F.cross_entropy(x, LABELS[:1]), x)
    expected = torch.tensor([[-3.5, 3.5, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(own - plain, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits(dtype):
    logits = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 0]], dtype=dtype, requires_grad=True)
    loss = CertificateRegularized(1.0, 1.0)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx((2e4 - 1e4) / 2)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("gamma", "constant"), [(-1.0, 1.0), (1.0, 0.0), (math.nan, 1.0)])
def test_errors(gamma, constant):
    with pytest.raises(ValueError, match="gamma >= 0 and constant > 0 are asked"):
        CertificateRegularized(gamma, constant)
