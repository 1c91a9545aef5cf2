"""Sphere tracing of a field whose constant is proved."""

import torch
from torch import nn

from examples import plot_distance_field


def test_small_run():
    found = plot_distance_field.run(steps=150, width=16, side=12, points=50)["proved"]
    assert 1 <= found["constant"] < 1.0001
    assert found["crossed"] == 0
    assert found["steepest"] <= found["constant"]
    assert found["evaluations"] > 1


def test_the_check_sees_a_constant_that_is_too_small():
    field = nn.Linear(3, 1).double()
    with torch.no_grad():
        field.weight.copy_(torch.tensor([[0.0, 3.0, 0.0]]))
        field.bias.fill_(0.5)
        eye = torch.tensor([0.0, 1.0, 0.0]).double()
        rays = torch.tensor([[0.0, -1.0, 0.0]]).double()
        for constant, crosses in ((3.0, False), (2.0, True)):
            t, _, _ = plot_distance_field.traced(field, eye, rays, constant, 0.0)
            lowest = plot_distance_field.crossings(field, eye, rays, t, 100)
            assert bool(lowest < 0) == crosses
        f, apart = plot_distance_field.distances(field, 2000)
        assert 2.5 < float((f.abs() / apart).max()) <= 3 + 1e-9


def test_rays_are_no_longer_than_1():
    _, rays = plot_distance_field.camera(9)
    assert (rays.norm(dim=1) <= 1).all()
