"""Tasks with known answers: the samples are what the answers are about."""

import pytest
import torch

from onelip.transport import TASKS, exact_distance, gaussians, high_dimensional_cone


@pytest.mark.parametrize("name", TASKS)
def test_samples_repeat_and_differ_between_seeds(name):
    task = TASKS[name]
    p, q = task.sample(50, 3)
    assert p.shape == q.shape == (50, task.features)
    assert torch.equal(q, task.sample(50, 3)[1])
    assert not torch.equal(q, task.sample(50, 4)[1])


@pytest.mark.parametrize("name", ["absolute-value", "three-cones", "high-dimensional-cone"])
def test_exact_distances_of_samples_agree_up_to_chance(name):
    task = TASKS[name]
    n = 400
    assert exact_distance(*task.sample(n)) == pytest.approx(task.distance, abs=0.2)
    assert exact_distance(*task.sample(n)) >= task.distance - 1e-5  # every point is that far away


def test_the_shift_of_gaussians_is_their_distance():
    """In one dimension the samples show it."""
    task = gaussians(features=1, shift=3.0)
    assert exact_distance(*task.sample(500)) == pytest.approx(3.0, abs=0.2)
    p, q = gaussians(features=4, shift=3.0).sample(20000)
    assert float((q.mean(0) - p.mean(0)).norm()) == pytest.approx(3.0, abs=0.05)


def test_the_sphere_has_radius_one():
    p, q = high_dimensional_cone(7).sample(20)
    assert not p.any()
    assert q.norm(dim=1).allclose(torch.ones(20))


def test_a_shift_has_no_sign():
    assert gaussians(shift=-2.0).distance == 2.0
