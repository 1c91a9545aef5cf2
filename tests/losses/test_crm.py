"""Certified radius maximisation: values by hand, gradients, who is rewarded."""

import math

import pytest
import torch
from torch.nn import functional as F

from onelip.losses import CRM

CONSTANTS = torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 1.0], [4.0, 1.0, 0.0]])


def test_value_by_hand() -> None:
    logits, labels = torch.tensor([[3.0, 1.0, 2.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1])
    # Only the first sample is right; its radii are (3 - 1) / 2 = 1 and (3 - 2) / 4 = 0.25.
    soft = -math.log(math.exp(-5 * 1.0) + math.exp(-5 * 0.25)) / 5
    expected = F.cross_entropy(logits, labels) - 10 * soft / 2
    found = CRM(radius=2.0, weight=10.0, temperature=5.0)(logits, labels, CONSTANTS)
    torch.testing.assert_close(found, expected)


def test_soft_radius_is_below_the_radius_by_at_most_the_entropy() -> None:
    """Proposition 2.1: the loss of weight 1 lies between those of the hard minimum."""
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor(
        [5.0, 0, 0]
    )
    labels = torch.zeros(200, dtype=torch.int64)
    margins = logits[:, :1] - logits[:, 1:]
    hard = (margins / CONSTANTS[0, 1:]).amin(1).clamp_min(0)
    soft = F.cross_entropy(logits, labels) - CRM(100.0, 1.0, 8.0)(logits, labels, CONSTANTS)
    share = (margins.amin(1) > 0).double().mean()
    assert float(soft) <= float(hard.mean())
    assert float(hard.mean()) <= float(soft) + float(share) * math.log(2) / 8 + 1e-6


@pytest.mark.parametrize(
    ("logits", "rewarded"),
    [
        ([3.0, 1.0, 2.0], True),
        ([1.0, 3.0, 2.0], False),  # wrong
        ([9.0, 1.0, 2.0], False),  # far enough: (9 - 2) / 4 and (9 - 1) / 2 exceed 1
        ([1.0, 1.0, 0.0], False),  # a tie
    ],
)
def test_who_is_rewarded(logits: list[float], rewarded: bool) -> None:
    z, y = torch.tensor([logits]), torch.tensor([0])
    gain = F.cross_entropy(z, y) - CRM(1.0, 10.0, 5.0)(z, y, CONSTANTS)
    assert (float(gain) > 0) is rewarded


def test_gradients_reach_logits_and_constants() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    constants = CONSTANTS.double().clone().requires_grad_()
    labels = torch.tensor([0])
    assert torch.autograd.gradcheck(
        lambda z, c: CRM(9.0, 3.0, 5.0)(z, labels, c), (logits, constants)
    )
    CRM(9.0, 3.0, 5.0)(logits, labels, constants).backward()
    assert constants.grad is not None
    assert (constants.grad[0, 1:] > 0).all()  # smaller constants, smaller loss
    assert torch.isfinite(constants.grad).all()


@pytest.mark.parametrize(
    "arguments", [{"radius": 0}, {"temperature": 0}, {"weight": -1}, {"start_epoch": -1}]
)
def test_bad_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        CRM(**arguments)
