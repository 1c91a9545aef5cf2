"""The attacks that are written here, where the truth is known and beside the ones of foolbox."""

import pytest
import torch
from torch import nn

from onelip.attacks import APGD, FMN, PGD, Square, attack_radii, judge
from onelip.attacks.objectives import OBJECTIVES, other_classes
from onelip.errors import UsageError


def succeeds(method, linear, row, factor):
    images, labels = linear.images[row : row + 1], linear.labels[row : row + 1]
    eps = factor * linear.distance[row].item()
    return judge(
        linear.model, images, labels, method(linear.model, images, labels, eps), eps
    ).success.item()


@pytest.mark.parametrize(
    ("method", "factor"),
    [(APGD(), 1.001), (APGD("margin", 2), 1.001), (FMN(), 1.03)],
    ids=["dlr", "margin", "fmn"],
)
def test_the_exact_distance_is_found_and_never_less(linear, method, factor):
    for row in range(len(linear.images)):
        assert succeeds(method, linear, row, factor)
        assert not succeeds(method, linear, row, 0.999999)


def test_minimum_norm_on_a_curved_network():
    """Its balls shrink. Those of foolbox 3.3.4 do not: four times as far in the median."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 4)).eval()
    with torch.no_grad():
        model[1].weight.mul_(6)
    images = torch.rand(40, 1, 4, 4)
    labels = model(images).argmax(1)
    best = torch.full((len(images),), torch.inf)
    for eps in (0.02 * 1.15**i for i in range(30)):
        found = APGD("cross-entropy", 0, 60)(model, images, labels, eps)
        best[model(found).argmax(1) != labels] = best.clamp(max=eps)[
            model(found).argmax(1) != labels
        ]
    found = FMN(50)(model, images, labels, 1.0)
    assert (model(found).argmax(1) != labels).all()
    far = (found - images).flatten(1).norm(dim=1) / best
    assert far.median() <= 1.1


def test_square_comes_close_without_gradients(linear):
    assert all(succeeds(Square(queries=1500), linear, row, 1.5) for row in range(4))
    assert not any(succeeds(Square(queries=200), linear, row, 0.999999) for row in range(8))


def test_square_on_every_size():
    """Sides of 1 to 9, more and fewer channels: the candidates are finite and in the ball."""
    for height, width, channels in ((1, 1, 1), (1, 9, 2), (2, 3, 3), (4, 4, 1), (9, 7, 3)):
        torch.manual_seed(height)
        model = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 5)).eval()
        images = torch.rand(3, channels, height, width)
        labels = model(images).argmax(1)
        candidates = Square(queries=60)(model, images, labels, 0.01)
        assert candidates.isfinite().all()
        assert ((candidates - images).flatten(1).norm(dim=1) <= 0.01 * 1.0001).all()
        assert (candidates != images).flatten(1).any(1).all()


def test_square_wants_images(linear):
    with pytest.raises(UsageError, match=r"images of shape \(8, 16\) have no squares"):
        Square()(linear.model, linear.images.flatten(1), linear.labels, 0.1)


def test_targets_that_a_margin_never_climbs_to():
    """Untargeted ascent follows the class that rises first; a mistake is in the other one.

    The logits are a label of height 1, a class that rises to 0.9 at most, and one that is low here
    and wins in the other direction.
    """

    class Trap(nn.Module):
        def forward(self, images):
            x = images.flatten(1)[:, :1] - 0.5
            rises = 0.5 + (4 * x).clamp(-0.2, 0.4)
            wins = -8 * x - 0.6
            nothing = torch.full_like(x, -5.0)
            return torch.cat([torch.ones_like(x), rises, wins, nothing, nothing], dim=1)

    images = torch.full((1, 1, 1, 1), 0.52)
    labels = torch.zeros(1, dtype=torch.int64)
    for restarts in (1, 3):
        method = APGD(steps=30, targets=2, restarts=restarts)
        assert judge(Trap(), images, labels, method(Trap(), images, labels, 0.3), 0.3).success.all()


def test_restarts_are_different(linear):
    calls = []

    class Watched(nn.Module):
        def forward(self, images):
            calls.append(images.detach().clone())
            return linear.model(images)

    APGD("margin", 0, steps=1, restarts=2)(Watched(), linear.images, linear.labels, 1e-6)
    assert not torch.equal(calls[0], calls[3])


def test_objectives_are_positive_exactly_for_mistakes():
    torch.manual_seed(0)
    logits, labels = torch.randn(200, 6), torch.randint(6, (200,))
    targets = (labels + torch.randint(1, 6, (200,))) % 6
    wrong = logits.argmax(1) != labels
    for name in ("margin", "dlr"):
        assert torch.equal(OBJECTIVES[name](logits, labels, None) > 0, wrong)
        reached = OBJECTIVES[name](logits, labels, targets) > 0
        assert torch.equal(
            reached,
            logits.gather(1, targets[:, None]).squeeze(1) > logits[torch.arange(200), labels],
        )
    assert torch.allclose(
        OBJECTIVES["dlr"](7 * logits + 3, labels, targets),
        OBJECTIVES["dlr"](logits, labels, targets),
        atol=1e-5,
    )


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes(classes):
    torch.manual_seed(0)
    logits, labels = torch.randn(9, classes), torch.randint(classes, (9,))
    others = other_classes(logits, labels, 9)
    assert len(others) == classes - 1
    assert all((target != labels).all() for target in others)
    assert OBJECTIVES["dlr"](logits, labels, others[-1]).isfinite().all()


def test_stronger_than_the_attack_that_was_the_default():
    """On a network with plateaus, of which one start of PGD on the margin misses some."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 8)
    ).eval()
    images = torch.rand(200, 1, 4, 4)
    labels = model(images).argmax(1)
    radii = (0.1, 0.2, 0.3)
    old = attack_radii(model, images, labels, radii, [PGD(50), PGD(50, loss="cross-entropy")])
    new = attack_radii(model, images, labels, radii, [FMN(50), APGD()])
    assert all(n.sum() >= o.sum() for n, o in zip(new, old, strict=True))
    assert sum(n.sum() for n in new) > sum(o.sum() for o in old)


def test_settings_that_cannot_be():
    for wrong in (
        lambda: APGD(steps=0),
        lambda: APGD(targets=-1),
        lambda: APGD("hinge"),
        lambda: Square(queries=0),
        lambda: Square(share=0),
        lambda: FMN(steps=0),
    ):
        with pytest.raises(UsageError):
            wrong()
