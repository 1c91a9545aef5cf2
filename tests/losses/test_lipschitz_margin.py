"""Lipschitz margin training: rivals are raised by what they can reach."""

import pytest
import torch
from torch.nn import functional as F

from onelip.losses import LipschitzMargin, OffsetCrossEntropy


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, dtype=torch.float64, generator=generator)
    return logits, torch.tensor([0, 1, 2, 3, 4, 0, 1])


def test_equal_constants_are_an_offset(batch):
    constants = torch.full((5, 5), 2**0.5, dtype=torch.float64)  # the diagonal does not count
    loss = LipschitzMargin(0.3, 0.25)(*batch, constants)
    assert torch.allclose(loss, OffsetCrossEntropy(2**0.5 * 0.3, 0.25)(*batch))


def test_each_rival_by_its_own_constant(batch):
    logits, labels = batch
    constants = torch.rand(5, 5, dtype=torch.float64) + 1
    moved = logits.clone()
    for row, label in zip(moved, labels.tolist(), strict=True):
        for i in range(5):
            row[i] += 0.3 * constants[label, i] * (i != label)
    expected = 0.5 * F.cross_entropy(moved / 0.5, labels)
    assert torch.allclose(LipschitzMargin(0.3, 0.5)(logits, labels, constants), expected)


def test_constants_have_a_gradient(batch):
    constants = torch.ones(5, 5, dtype=torch.float64, requires_grad=True)
    LipschitzMargin(0.3)(*batch, constants).backward()
    off = ~torch.eye(5, dtype=torch.bool)
    assert (constants.grad[off] > 0).all()
    assert (constants.grad[~off] == 0).all()


def test_out_of_range():
    with pytest.raises(ValueError, match="epsilon >= 0 and temperature > 0"):
        LipschitzMargin(-1.0)
    with pytest.raises(ValueError, match="epsilon >= 0 and temperature > 0"):
        LipschitzMargin(1.0, 0.0)
