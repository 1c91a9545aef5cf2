"""Generalized cross-entropy against its formula and its two limits."""

import math

import pytest
import torch
from torch.nn import functional as F

from onelip.losses import GeneralizedCrossEntropy, OffsetCrossEntropy


@pytest.fixture
def batch():
    logits = 3 * torch.randn(7, 5, dtype=torch.float64)
    return logits, torch.tensor([0, 1, 2, 3, 4, 0, 1])


@pytest.mark.parametrize(
    ("q", "offset", "temperature"), [(0.7, 0.0, 1.0), (1.0, 1.5, 0.25), (0.1, -1.0, 2.0)]
)
def test_formula(batch, q, offset, temperature):
    terms = []
    for row, label in zip(batch[0].tolist(), batch[1].tolist(), strict=True):
        powers = [math.exp((f - offset * (i == label)) / temperature) for i, f in enumerate(row)]
        terms.append(temperature * (1 - (powers[label] / sum(powers)) ** q) / q)
    loss = GeneralizedCrossEntropy(q, offset, temperature)
    assert float(loss(*batch)) == pytest.approx(sum(terms) / len(terms))
    assert torch.autograd.gradcheck(lambda v: loss(v, batch[1]), batch[0].requires_grad_())


def test_small_q_is_cross_entropy(batch):
    """Down to a q that 1 - p^q would cancel to 0."""
    for q in (1e-9, 1e-18):
        found = GeneralizedCrossEntropy(q, 1.5, 0.25)(*batch)
        torch.testing.assert_close(found, OffsetCrossEntropy(1.5, 0.25)(*batch))


def test_q_1_is_half_the_absolute_error(batch):
    p = batch[0].softmax(1)
    error = (p - F.one_hot(batch[1], 5)).abs().sum(1).mean()
    torch.testing.assert_close(GeneralizedCrossEntropy(1.0)(*batch), error / 2)


def test_the_gradient_is_that_of_cross_entropy_times_a_power(batch):
    logits, labels = batch[0][:1].requires_grad_(), batch[1][:1]
    (own,) = torch.autograd.grad(GeneralizedCrossEntropy(0.4)(logits, labels), logits)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    p = logits.softmax(1)[0, labels[0]]
    torch.testing.assert_close(own, p**0.4 * plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("q", [1e-3, 0.7, 1.0])
def test_extreme_logits(dtype, q):
    """The loss is bounded by T / q, and its gradient vanishes at both ends."""
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype, requires_grad=True)
    loss = GeneralizedCrossEntropy(q, temperature=0.1)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.1 / q / 2)
    assert logits.grad.isfinite().all()
    assert float(logits.grad.abs().max()) < 1e-6


def test_errors():
    for q in (0.0, -0.5, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"q must be in \(0, 1\], .* OffsetCrossEntropy"):
            GeneralizedCrossEntropy(q)
    for temperature in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature must be positive"):
            GeneralizedCrossEntropy(temperature=temperature)
