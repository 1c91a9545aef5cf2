"""Logit annealing against its formula in double precision, and where that formula fails."""

import math

import pytest
import torch
from torch.nn import functional as F

from onelip.losses import LogitAnnealing, OffsetCrossEntropy


@pytest.fixture
def batch():
    logits = 3 * torch.randn(7, 5, dtype=torch.float64)
    return logits, torch.tensor([0, 1, 2, 3, 4, 0, 1])


@pytest.mark.parametrize(
    ("offset", "temperature", "beta"),
    [(2.0, 0.75, 5.0), (0.0, 1.0, 1.0), (0.5, 2.0, 0.3), (-1.0, 0.5, 0.0)],
)
def test_formula(batch, offset, temperature, beta):
    terms = []
    for row, label in zip(batch[0].tolist(), batch[1].tolist(), strict=True):
        powers = [math.exp((f - offset * (i == label)) / temperature) for i, f in enumerate(row)]
        p = powers[label] / sum(powers)
        terms.append(-temperature * (1 - p) ** beta * math.log(p))
    loss = LogitAnnealing(offset, temperature, beta)(*batch)
    assert float(loss) == pytest.approx(sum(terms) / len(terms))
    x = batch[0].requires_grad_()
    loss = LogitAnnealing(offset, temperature, beta)
    assert torch.autograd.gradcheck(lambda v: loss(v, batch[1]), x)


def test_the_defaults_are_those_of_the_paper():
    loss = LogitAnnealing()
    assert (loss.offset, loss.temperature, loss.beta) == (2.0, 0.75, 5.0)


def test_beta_0_is_cross_entropy_with_an_offset(batch):
    found = LogitAnnealing(1.5, 0.25, 0.0)(*batch)
    torch.testing.assert_close(found, OffsetCrossEntropy(1.5, 0.25)(*batch))
    torch.testing.assert_close(LogitAnnealing(0.0, 1.0, 0.0)(*batch), F.cross_entropy(*batch))


def test_samples_with_a_margin_fade():
    """Both -log p and 1 - p are about e^-20, which is lost where 1 - p is a difference."""
    found = LogitAnnealing(0.0, 1.0, 2.0)(torch.tensor([[20.0, 0.0]]), torch.tensor([0]))
    assert float(found) == pytest.approx(math.exp(-60), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 5.0])
def test_extreme_logits(dtype, beta):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype, requires_grad=True)
    loss = LogitAnnealing(0.0, 0.01, beta)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(logits.grad[0], torch.zeros(2, dtype=dtype))
    torch.testing.assert_close(logits.grad[1], torch.tensor([-0.5, 0.5], dtype=dtype))


@pytest.mark.parametrize(("temperature", "beta"), [(0.0, 5.0), (-1.0, 5.0), (1.0, -0.1)])
def test_errors(temperature, beta):
    with pytest.raises(ValueError, match="temperature > 0 and beta >= 0 are asked"):
        LogitAnnealing(1.0, temperature, beta)
