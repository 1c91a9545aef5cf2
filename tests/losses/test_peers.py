"""Losses of deel-torchlip and orthogonium: equal values, reductions and gradients."""

import pytest
import torch
from torch.nn import functional as F

from onelip.losses import (
    BinaryCrossEntropy,
    Cosine,
    LseHKR,
    OffsetCrossEntropy,
    RunnerUpHinge,
    SoftHKR,
)

deel = pytest.importorskip("deel.torchlip")
from deel.torchlip.modules import loss as theirs  # noqa: E402

peers = pytest.importorskip("orthogonium.losses")


@pytest.fixture(params=[0.2, 3.0])
def batch(request):
    generator = torch.Generator().manual_seed(0)
    scores = request.param * torch.randn(9, 4, generator=generator)
    return scores.requires_grad_(), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 1])


def same(ours, their_loss, scores):
    """Equal values and gradients."""
    assert torch.allclose(ours, their_loss.to(ours.dtype), atol=1e-5)
    pair = (torch.autograd.grad(loss.sum(), scores)[0] for loss in (ours, their_loss))
    assert torch.allclose(*pair, atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_multiclass_hkr(batch, alpha, reduction):
    scores, labels = batch
    one_hot = F.one_hot(labels)
    soft = theirs.SoftHKRMulticlassLoss(
        alpha, 1.3, alpha_mean=0.0, temperature=2.0, reduction=reduction
    )
    same(SoftHKR(alpha, 1.3, 2.0, reduction)(scores, labels), soft(scores, one_hot), scores)
    lse = theirs.LseHKRMulticlassLoss(alpha, 2.0, 0.7, 1.3, reduction=reduction)
    same(LseHKR(alpha, 1.3, 2.0, 0.7, reduction)(scores, labels), lse(scores, one_hot), scores)


def test_soft_hkr_of_orthogonium(batch):
    scores, labels = batch
    other = peers.SoftHKRMulticlassLoss(0.3, 1.3, alpha_mean=0.0, temperature=2.0)
    same(SoftHKR(0.3, 1.3, 2.0)(scores, labels), other(scores, labels), scores)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropies_and_hinge(batch, reduction):
    scores, labels = batch
    tau = theirs.TauCrossEntropyLoss(4.0, reduction=reduction)
    ours = OffsetCrossEntropy(0.0, 1 / 4, reduction)
    same(ours(scores, labels), tau(scores, labels), scores)
    binary = theirs.TauBCEWithLogitsLoss(4.0, reduction=reduction)
    column = scores[:, 0]
    target = (labels > 1).float()
    other = binary(column, target)
    same(BinaryCrossEntropy(1 / 4, reduction)(column, labels > 1), other, scores)
    hinge = theirs.CategoricalHingeLoss(1.3, reduction=reduction)
    same(RunnerUpHinge(1.3, reduction)(scores, labels), hinge(scores, F.one_hot(labels)), scores)


def test_losses_of_orthogonium(batch):
    scores, labels = batch
    same(Cosine()(scores, labels), peers.CosineLoss()(scores, labels), scores)
    for kind, constant in (("global", 2**0.5), ("classwise", 2.0)):
        other = peers.Cosine_VRA_Loss(0.2, 1.0, 0.5, kind)
        same(Cosine(0.2, 0.5, constant)(scores, labels), other(scores, labels), scores)
    offset = peers.LossXent(4, 1.1, 0.5)
    same(OffsetCrossEntropy(1.1, 0.5)(scores, labels), offset(scores, labels), scores)


def test_two_classes():
    """One rival: the soft maximum is its score, where a factor log(1) = 0 would give NaN."""
    scores, labels = torch.tensor([[2.0, -1.0], [0.5, 0.25]]), torch.tensor([0, 1])
    own, other = scores.gather(1, labels[:, None]), scores.gather(1, 1 - labels[:, None])
    hinge = (0.5 - own).relu() + (0.5 + other).relu()
    expected = (0.3 * hinge - 0.7 * (own - other)).squeeze(1)
    assert torch.allclose(LseHKR(0.3, reduction="none")(scores, labels), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SoftHKR(1.5), "alpha is between"),
        (lambda: LseHKR(penalty=0), "penalty must be positive"),
        (lambda: SoftHKR(temperature=-1), "temperature must be positive"),
        (lambda: BinaryCrossEntropy(0), "temperature must be positive"),
        (lambda: Cosine(2), "gamma in"),
    ],
)
def test_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
