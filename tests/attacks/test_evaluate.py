"""Several attacks: each sees what is left, the first success stays."""

import pytest
import torch

from onelip.attacks import PGD, Pointwise, attack
from onelip.errors import UsageError


class Recorder:
    """An attack that only breaks the images it is told to, by a jump along the gradient."""

    def __init__(self, inner=None):
        self.inner, self.seen = inner, []

    name = "recorder"

    def __call__(self, model, images, labels, eps):
        self.seen.append(len(images))
        return self.inner(model, images, labels, eps) if self.inner else images


def test_only_reachable_images_are_broken(linear):
    eps = linear.distance.median().item() * 1.0001
    result = attack(linear.model, linear.images, linear.labels, eps, [PGD(steps=100)])
    assert torch.equal(result.success, linear.distance < eps)
    assert (result.distance[result.success] >= linear.distance[result.success] * 0.999999).all()
    assert (result.distance <= eps).all()
    standing = ~result.success
    assert torch.equal(result.adversarial[standing], linear.images[standing])


def test_clean_errors_are_broken_at_distance_zero(linear):
    labels = (linear.labels + 1) % 3
    watcher = Recorder()
    result = attack(linear.model, linear.images, labels, 0.1, [watcher])
    assert result.success.all()
    assert (result.distance == 0).all()
    assert watcher.seen == []


def test_later_attacks_see_what_is_left(linear):
    eps = linear.distance.median().item() * 1.0001
    first, second = Recorder(PGD(steps=100)), Recorder(Pointwise())
    result = attack(linear.model, linear.images, linear.labels, eps, [first, second], batch_size=3)
    broken = int((linear.distance < eps).sum())
    assert first.seen == [3, 3, 2]
    assert sum(second.seen) == 8 - broken
    assert int(result.success.sum()) == broken


def test_the_first_success_stays(linear):
    both = attack(linear.model, linear.images, linear.labels, 2.0, [Pointwise(), PGD()])
    alone = attack(linear.model, linear.images, linear.labels, 2.0, [Pointwise()])
    assert alone.success.any()
    assert torch.equal(both.adversarial[alone.success], alone.adversarial[alone.success])


def test_without_attacks_the_clean_errors_remain(linear):
    labels = linear.labels.clone()
    labels[0] = (labels[0] + 1) % 3
    result = attack(linear.model, linear.images, labels, 0.1, [])
    assert result.success.tolist() == [True] + [False] * 7


def test_arguments_are_left_alone(linear):
    before = linear.images.clone()
    attack(linear.model, linear.images, linear.labels, 1.0, [PGD(steps=3)])
    assert torch.equal(linear.images, before)


def test_wrong_batch_size(linear):
    with pytest.raises(UsageError, match="batch size 0 is not positive"):
        attack(linear.model, linear.images, linear.labels, 0.1, [], batch_size=0)
