"""EMMA: rivals raised one by one."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from onelip.losses import EMMA


@pytest.fixture
def batch():
    """Margins below, within and above the range in which rivals are raised to a tie."""
    logits = torch.tensor(
        [[1.0, 0.9, 0.4, -3.0, 1.5], [0.0, 0.0, -0.2, 0.6, -0.7]], dtype=torch.float64
    )
    return logits, torch.tensor([0, 3])


def _raised(logits, labels, epsilon, constant, floor):
    rows = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        radii = [(row[label] - f) / constant for f in row]
        sizes = [min(max(r, floor * epsilon), epsilon) for r in radii]
        rows.append([constant * s * (i != label) for i, s in enumerate(sizes)])
    return torch.tensor(rows, dtype=torch.float64)


def test_rivals_by_hand(each, batch):
    for epsilon, constant, floor in each(
        itertools.product([0.0, 36 / 255, 0.5, 3.0], [2**0.5, 1.0], [0.0, 0.01, 1.0])
    ):
        logits, labels = batch
        expected = F.cross_entropy(logits + _raised(*batch, epsilon, constant, floor), labels)
        torch.testing.assert_close(EMMA(epsilon, constant, floor)(logits, labels), expected)


def test_the_offsets_are_constants_to_the_gradient(batch):
    logits, labels = batch
    first, second = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    EMMA(0.5, 1.0)(first, labels).backward()
    F.cross_entropy(second + _raised(*batch, 0.5, 1.0, 0.01), labels).backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_rivals_within_epsilon_become_ties():
    logits = torch.tensor([[0.3, 0.1, 0.25, 0.0]])
    raised = EMMA(0.5, 1.0).raised(logits, torch.tensor([0]))
    torch.testing.assert_close(logits + raised, torch.full((1, 4), 0.3))


def test_without_a_radius_it_is_cross_entropy(batch):
    torch.testing.assert_close(EMMA(0.0)(*batch), F.cross_entropy(*batch))


def test_a_floor_of_1_is_cross_entropy_with_an_offset(batch):
    logits, labels = batch
    offset = 0.5 * 2**0.5 * F.one_hot(labels, 5)
    torch.testing.assert_close(
        EMMA(0.5, floor=1.0)(*batch), F.cross_entropy(logits - offset, labels)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits(dtype):
    logits = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 0]], dtype=dtype, requires_grad=True)
    loss = EMMA(1.0)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4, rel=1e-5)
    assert loss.dtype == dtype
    assert logits.grad.isfinite().all()


def test_errors():
    with pytest.raises(ValueError, match="epsilon >= 0 and constant > 0 are asked, got -1"):
        EMMA(-1.0)
    with pytest.raises(ValueError, match="epsilon >= 0 and constant > 0 are asked"):
        EMMA(1.0, 0.0)
    for floor in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="floor is a share"):
            EMMA(1.0, floor=floor)


def test_constants_of_pairs():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 2.5]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    constants = torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 1.0], [4.0, 1.0, 0.0]])
    raised = EMMA(0.25, floor=0.0).raised(logits, labels, constants.double())
    assert torch.equal(raised, torch.tensor([[0.0, 0.5, 1.0], [0.5, 0.0, 0.25]]).double())
    same = torch.full((3, 3), 1.5, dtype=torch.float64)
    loss = EMMA(0.25)(logits, labels, same)
    assert torch.allclose(loss, EMMA(0.25, constant=1.5)(logits, labels))
