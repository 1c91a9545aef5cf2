"""The loss of curvature certificates: its attack, its gradients, its penalty."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from onelip.layers import MLPHead
from onelip.losses import CRC


@pytest.fixture
def batch():
    torch.manual_seed(0)
    head = MLPHead(4, 3, hidden=8).double()
    features = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    return features, torch.tensor([0, 1, 2, 0, 1, 2]), head


@pytest.mark.parametrize("radius", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_perturbation_stays_in_the_ball_and_raises_the_loss(batch, radius, steps):
    features, labels, head = batch
    moved = CRC(radius=radius, steps=steps).perturbation(features.detach(), labels, head)
    assert float(moved.norm(dim=1).max()) <= radius * (1 + 1e-12)
    before = F.cross_entropy(head(features), labels, reduction="none")
    after = F.cross_entropy(head(features + moved), labels, reduction="none")
    assert bool((after >= before).all())
    if radius:
        assert bool((after > before).all())


def test_against_a_linear_head_the_attack_ends_at_the_worst_point():
    """Of two classes: the direction is that of the difference of the rows."""
    torch.manual_seed(0)
    head = nn.Linear(5, 2).double()
    features, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    away = F.normalize(head.weight[1] - head.weight[0], dim=0).detach()
    worst = torch.stack([away, -away, away, -away])
    moved = CRC(radius=0.7).perturbation(features, labels, head)
    torch.testing.assert_close(moved, 0.7 * worst)


def test_the_body_receives_the_gradient_at_the_moved_point(batch):
    features, labels, head = batch
    loss = CRC(radius=0.5, weight=0.0)
    (gradient,) = torch.autograd.grad(loss(features, labels, head, None), features)
    moved = (features + loss.perturbation(features.detach(), labels, head)).detach()
    moved.requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(head(moved), labels), moved)
    torch.testing.assert_close(gradient, expected)


def test_the_attack_leaves_no_gradient_in_the_head(batch):
    features, labels, head = batch
    CRC(radius=0.5).perturbation(features.detach(), labels, head)
    assert all(p.grad is None for p in head.parameters())


def test_the_penalty_is_the_mean_over_samples_of_the_larger_curvature(batch):
    features, labels, head = batch
    bends = torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 3.0], [4.0, 7.0, 0.0]]).double()
    logits = head(features).detach()
    expected = 0.0
    for label, row in zip(labels.tolist(), logits, strict=True):
        rival = max((i for i in range(3) if i != label), key=lambda i: float(row[i]))
        expected += max(float(bends[label, rival]), float(bends[rival, label])) / 6
    plain = CRC(radius=0.0, weight=0.0)(features, labels, head, None)
    whole = CRC(radius=0.0, weight=0.3)(features, labels, head, lambda a, b: bends[a, b])
    assert (whole - plain).item() == pytest.approx(0.3 * expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": -1.0}, "radius and weight must not be negative, got -1.0 and 0.5"),
        ({"weight": float("nan")}, "radius and weight must not be negative"),
        ({"steps": 0}, "steps must be positive, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CRC(**arguments)
