"""Norms of Jacobians against autograd's own."""

import pytest
import torch
from torch import nn

from onelip.estimates import jacobian_estimate
from onelip.estimates.jacobian import stretch
from onelip.layers import MaxMin

MODELS = {
    "few outputs": nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 3)),
    "few inputs": nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 25)),
    "neither": nn.Sequential(nn.Linear(20, 24), nn.GELU(), nn.Linear(24, 30)),
    "sorting": nn.Sequential(nn.Linear(20, 24), MaxMin(), nn.Linear(24, 30)),
    "images": nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 20)
    ),
}
SHAPES = {"few outputs": (30,), "few inputs": (4,), "images": (1, 6, 6)}


@pytest.mark.parametrize("name", MODELS)
def test_each_point_against_the_whole_jacobian(name):
    model = MODELS[name].double().eval()
    points = torch.randn(6, *SHAPES.get(name, (20,))).double()
    matrices = [torch.autograd.functional.jacobian(model, point[None]) for point in points]
    numbers = points[0].numel()
    exact = torch.stack([torch.linalg.matrix_norm(m.reshape(-1, numbers), 2) for m in matrices])
    found = stretch(model, points, iterations=400)
    torch.testing.assert_close(found.norms, exact, rtol=1e-4, atol=0)
    assert (found.norms <= exact * (1 + 1e-12)).all()
    lengths = found.directions.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    images = torch.stack(
        [
            m.reshape(-1, numbers) @ d.flatten()
            for m, d in zip(matrices, found.directions, strict=True)
        ]
    )
    torch.testing.assert_close(images.norm(dim=1), exact, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        jacobian_estimate(model, points, iterations=400, chunk=4), exact.max(), rtol=1e-4, atol=0
    )


def test_no_points_and_constants():
    assert float(jacobian_estimate(lambda x: x, torch.zeros(0, 3))) == 0
    assert float(jacobian_estimate(lambda x: x.new_ones(len(x), 2), torch.zeros(2, 3))) == 0
    assert float(jacobian_estimate(lambda x: 0 * x, torch.zeros(2, 30))) == 0


def test_nothing_is_left_behind():
    model = nn.Linear(3, 2)
    estimate = jacobian_estimate(model, torch.randn(4, 3))
    assert not estimate.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
