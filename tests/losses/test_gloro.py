"""GloRo: the extra logit wins exactly where the certificate fails."""

import pytest
import torch
from torch.nn import functional as F

from onelip.errors import UsageError
from onelip.losses import GloRo

CONSTANTS = torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 1.0], [4.0, 1.0, 0.0]])


def test_the_extra_logit_wins_where_the_radius_is_too_small() -> None:
    logits = 3 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    extended = GloRo(epsilon=0.5).extended(logits, CONSTANTS)
    top, predicted = logits.max(1)
    radii = (top[:, None] - logits) / CONSTANTS[predicted]
    radius = radii.scatter(1, predicted[:, None], torch.inf).amin(1)
    assert 0.2 < float((radius > 0.5).float().mean()) < 0.8
    assert torch.equal(extended.argmax(1) == 3, radius < 0.5)


def test_value_by_hand() -> None:
    logits, labels = torch.tensor([[1.5, 0.0, -1.0]]), torch.tensor([1])
    p = F.softmax(logits, 1)
    q = F.softmax(torch.tensor([[1.5, 0.0, -1.0, 1.0]]), 1)  # 0 + 0.5 * 2, -1 + 0.5 * 4
    divergence = (p * (p / q[:, :3]).log()).sum()
    found = GloRo(0.5, 2.0)(logits, labels, CONSTANTS)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels) + 2 * divergence)


def test_gradients() -> None:
    logits = torch.tensor([[1.5, 0.0, -1.3]], dtype=torch.float64, requires_grad=True)
    constants = CONSTANTS.double().clone().requires_grad_()
    loss, labels = GloRo(0.5, 2.0), torch.tensor([1])
    assert torch.autograd.gradcheck(lambda z, c: loss(z, labels, c), (logits, constants))


def test_errors() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        GloRo(-1.0)
    with pytest.raises(UsageError, match="no rival"):
        GloRo().extended(torch.ones(2, 1), torch.zeros(1, 1))
