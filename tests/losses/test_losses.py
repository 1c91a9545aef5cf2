"""Losses against their formulas, term by term."""

import math

import pytest
import torch
from torch import nn

from onelip.losses import LOSSES, HeadLoss, MarginHinge, OffsetCrossEntropy, RadiusLoss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(7, 5, dtype=torch.float64, generator=generator)
    return logits, torch.tensor([0, 1, 2, 3, 4, 0, 1])


@pytest.mark.parametrize("margin", [0.0, 0.7, 5.0])
def test_hinge(batch, margin):
    logits, labels = batch
    terms = [
        max(0.0, margin - float(row[label] - row[i])) / len(row)
        for row, label in zip(logits, labels, strict=True)
        for i in range(len(row))
        if i != label
    ]
    assert float(MarginHinge(margin)(logits, labels)) == pytest.approx(sum(terms) / len(logits))


def test_hinge_is_zero_beyond_the_margin():
    logits = torch.tensor([[1.0, 0.25, 0.25]])
    assert MarginHinge(0.75)(logits, torch.tensor([0])) == 0
    assert MarginHinge(0.76)(logits, torch.tensor([0])) > 0


@pytest.mark.parametrize(("offset", "temperature"), [(0.0, 1.0), (2**0.5, 0.25), (3.0, 2.0)])
def test_offset_cross_entropy(batch, offset, temperature):
    logits, labels = batch
    terms = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        moved = [(f - offset * (i == label)) / temperature for i, f in enumerate(row)]
        terms.append(temperature * (math.log(sum(map(math.exp, moved))) - moved[label]))
    loss = OffsetCrossEntropy(offset, temperature)(logits, labels)
    assert float(loss) == pytest.approx(sum(terms) / len(terms))


def test_offset_cross_entropy_tends_to_the_largest_violation(batch):
    """A low temperature leaves max(0, offset - margin)."""
    logits, labels = batch
    own = logits.gather(1, labels[:, None]).squeeze(1)
    rivals = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    expected = (1.5 - (own - rivals)).clamp(min=0).mean()
    assert float(OffsetCrossEntropy(1.5, 1e-4)(logits, labels)) == pytest.approx(float(expected))


def test_no_overflow():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = OffsetCrossEntropy(1.5, 0.01)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4, rel=1e-3)
    assert logits.grad.isfinite().all()


def _called(loss, logits, labels):
    """Losses on radii get the constants of a 1-Lipschitz network."""
    if isinstance(loss, RadiusLoss):
        return loss(logits, labels, 2**0.5 * (1 - torch.eye(logits.shape[1])).to(logits))
    if isinstance(loss, HeadLoss):
        return loss(logits, labels, nn.Identity(), None)
    return loss(logits, labels)


# CRC passes gradients on, and soft HKR takes none of its temperature
@pytest.mark.parametrize("name", sorted({*LOSSES} - {"crc", "soft-hkr"}))
def test_gradients(batch, name):
    logits, labels = batch
    loss = LOSSES[name]()
    assert torch.autograd.gradcheck(lambda x: _called(loss, x, labels), logits.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_defaults(batch, name):
    """All have arguments with defaults, and neither weights nor state."""
    logits, labels = batch
    loss = LOSSES[name]()
    assert not list(loss.parameters())
    assert not loss.state_dict()
    value = _called(loss, logits.float(), labels)
    assert value.shape == ()
    assert value.dtype == torch.float32
    order = torch.randperm(7)
    torch.testing.assert_close(_called(loss, logits[order].float(), labels[order]), value)


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "crc"])  # whose samples are no sum
def test_reductions_of_every_loss(name, batch):
    logits, labels = batch
    constants = torch.rand(5, 5, dtype=torch.float64) + 1
    build = LOSSES[name]
    rest = (constants,) if issubclass(build, RadiusLoss) else ()
    each = build(reduction="none")(logits, labels, *rest)
    assert each.shape == labels.shape
    assert torch.allclose(build()(logits, labels, *rest), each.mean())
    assert torch.allclose(build(reduction="sum")(logits, labels, *rest), each.sum())
    with pytest.raises(ValueError, match="reduction is"):
        build(reduction="median")
