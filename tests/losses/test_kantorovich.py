"""Kantorovich-Rubinstein losses and their hinge, against sums and against deel-torchlip."""

import pytest
import torch
from torch.nn import functional as F

from onelip.errors import UsageError
from onelip.losses import HKR, KR, HingeMargin

torchlip = pytest.importorskip("deel.torchlip")
REDUCTIONS = ("mean", "sum", "none")


@pytest.fixture(params=[torch.float32, torch.float64])
def dtype(request):
    return request.param


@pytest.fixture
def binary(dtype):
    scores = torch.linspace(-2, 3, 9, dtype=dtype).sin()
    return scores, torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 1])


@pytest.fixture
def classes(dtype):
    scores = torch.arange(36, dtype=dtype).mul(1.7).sin().view(9, 4)
    return scores, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 1])


def test_gap_of_means(binary):
    scores, labels = binary
    gap = scores[labels == 1].mean() - scores[labels == 0].mean()
    for y in (labels, 2 * labels - 1, labels == 1, labels.float()):
        assert torch.allclose(KR()(scores, y), -gap)
        assert torch.allclose(KR()(scores[:, None], y), -gap)
        assert torch.allclose(KR()(scores[:, None], y[:, None]), -gap)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_values_of_torchlip(binary, reduction):
    scores, labels = binary[0][:, None], binary[1][:, None]
    theirs = {
        torchlip.NegKRLoss(reduction=reduction): KR(reduction),
        torchlip.HKRLoss(0.7, 1.3, reduction=reduction): HKR(0.7, 1.3, reduction),
        torchlip.HingeMarginLoss(1.3, reduction=reduction): HingeMargin(1.3, reduction),
    }
    for other, ours in theirs.items():
        expected = other(scores, (2 * labels - 1).to(scores.dtype)).flatten()
        assert torch.allclose(ours(scores, labels).flatten(), expected, atol=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_values_of_torchlip_for_classes(classes, reduction):
    scores, labels = classes
    one_hot = F.one_hot(labels).to(scores.dtype)
    negative = -torchlip.KRMulticlassLoss(reduction=reduction)(scores, one_hot)
    assert torch.allclose(KR(reduction)(scores, labels), negative, atol=1e-5)
    hinge = torchlip.HingeMulticlassLoss(1.3, reduction=reduction)(scores, one_hot)
    assert torch.allclose(HingeMargin(1.3, reduction)(scores, labels), hinge, atol=1e-5)
    both = torchlip.HKRMulticlassLoss(0.7, 1.3, reduction=reduction)(scores, one_hot)
    assert torch.allclose(HKR(0.7, 1.3, reduction)(scores, labels), both, atol=1e-5)
    several = torchlip.HingeMarginLoss(1.3, reduction=reduction)(scores, 2 * one_hot - 1)
    assert torch.allclose(HingeMargin(1.3, reduction)(scores, one_hot), several, atol=1e-5)


@pytest.mark.parametrize("loss", [KR, HKR, HingeMargin])
def test_reductions_agree(classes, loss):
    each = loss(reduction="none")(*classes)
    assert each.shape == (9,)
    assert torch.allclose(loss()(*classes), each.mean())
    assert torch.allclose(loss(reduction="sum")(*classes), each.sum())


def test_a_batch_of_one_class_is_finite():
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = KR()(scores, torch.tensor([1, 1]))
    loss.backward()
    assert loss == -1.5
    assert scores.grad.isfinite().all()


def test_what_does_not_fit():
    with pytest.raises(UsageError, match=r"labels of shape \(3,\) do not fit scores of \(2, 4\)"):
        KR()(torch.zeros(2, 4), torch.zeros(3))
    with pytest.raises(UsageError, match="classes must be integers"):
        KR()(torch.zeros(2, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="alpha is between 0 and 1"):
        HKR(1.5)
    with pytest.raises(ValueError, match="reduction is"):
        KR("median")(torch.zeros(2), torch.zeros(2))
