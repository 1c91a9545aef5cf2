"""Matrices that stay orthogonal, whatever the gradients, and that learn."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from onelip import norms
from onelip.errors import UsageError
from onelip.optim import StiefelMuon

SHAPES = [(1, 1), (6, 6), (40, 7), (7, 40), (1, 9), (9, 1), (64, 64)]


def is_orthogonal(weight: Tensor, slack: float) -> bool:
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.mT
    product = tall.double().mT @ tall.double()
    return bool((product - torch.eye(len(product))).abs().max() <= slack)


def test_the_norm_is_proved_after_violent_steps(each):
    """Huge and tiny gradients, of low rank, repeated, zero, infinite; rates from 0 to 1000."""
    for shape in each(SHAPES):
        weight = nn.Parameter(100 * torch.randn(shape))
        optimiser = StiefelMuon([weight], lr=0.1, momentum=0.95)
        assert float(norms.dense(weight)) <= 1 + 1e-5
        for turn in range(28):
            optimiser.param_groups[0]["lr"] = (0.0, 0.1, 3.0, 1000.0)[turn % 4]
            gradient = torch.randn(shape) * 10.0 ** (turn * 2.2 - 30)
            if turn % 5 == 0:
                gradient = torch.randn(shape[0], 1) @ torch.randn(1, shape[1])
            elif turn % 7 == 0:
                gradient = weight.detach().clone()  # which points off the manifold
            elif turn % 11 == 0:
                gradient = torch.full(shape, (0.0, math.inf, math.nan, 3e38)[turn % 4])
            weight.grad = gradient
            optimiser.step()
            assert float(norms.dense(weight)) <= 1 + 1e-5, turn
            assert is_orthogonal(weight, 1e-5), turn


def test_weights_that_depend_linearly_become_no_longer_than_one():
    for start in (torch.zeros(6, 4), torch.ones(6, 4)):
        weight = nn.Parameter(start)
        StiefelMuon([weight])
        assert float(norms.dense(weight)) <= 1 + 1e-5


def test_in_double_precision():
    weight = nn.Parameter(torch.randn(20, 30, dtype=torch.float64))
    optimiser = StiefelMuon([weight])
    for _ in range(50):
        weight.grad = torch.randn(20, 30, dtype=torch.float64)
        optimiser.step()
    assert float(norms.dense(weight)) <= 1 + 1e-8


def test_it_finds_the_rotation_between_two_clouds(each):
    """Orthogonal Procrustes, whose answer is the polar factor, within one component."""
    for size in each([2, 8]):
        points = torch.randn(200, size)
        wanted = torch.linalg.qr(torch.randn(size, size)).Q
        turn = torch.randn(size, size)
        weight = nn.Parameter(wanted @ torch.matrix_exp(0.3 * (turn - turn.T)))
        optimiser = StiefelMuon([weight], lr=0.1, momentum=0.5)
        for i in range(250):
            optimiser.param_groups[0]["lr"] = 0.1 * 0.965**i
            optimiser.zero_grad()
            (points @ weight - points @ wanted).square().mean().backward()
            optimiser.step()
        assert (weight - wanted).abs().max() < 1e-2


def test_it_finds_the_leading_subspace():
    values = torch.linspace(1, 2, 12)
    basis = torch.linalg.qr(torch.randn(12, 12)).Q
    matrix = basis @ torch.diag(values) @ basis.T
    weight = nn.Parameter(torch.randn(12, 3))
    optimiser = StiefelMuon([weight], lr=0.1, momentum=0.5)
    for turn in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * 0.97**turn
        optimiser.zero_grad()
        (-(weight.T @ matrix @ weight).trace()).backward()
        optimiser.step()
    found = float((weight.T @ matrix @ weight).trace().detach())
    assert found == pytest.approx(float(values[-3:].sum()), rel=1e-3)


def test_an_update_has_the_length_of_the_rate():
    weight = nn.Parameter(torch.randn(9, 4))
    optimiser = StiefelMuon([weight], lr=1e-2, momentum=0.0)
    before = weight.detach().clone()
    weight.grad = torch.randn(9, 4) * 1e6
    optimiser.step()
    moved = torch.linalg.svdvals(weight.detach() - before)
    assert 0.5e-2 < float(moved[0]) <= 1.5e-2


def test_a_state_travels():
    weight = nn.Parameter(torch.randn(5, 3))
    optimiser = StiefelMuon([weight], lr=0.05)
    weight.grad = torch.randn(5, 3)
    optimiser.step()
    twin = nn.Parameter(weight.detach().clone())
    other = StiefelMuon([twin], lr=0.05)
    twin.data.copy_(weight.data)
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    gradient = torch.randn(5, 3)
    for parameter, chosen in ((weight, optimiser), (twin, other)):
        parameter.grad = gradient.clone()
        chosen.step()
    assert torch.equal(weight, twin)


def test_a_closure_and_parameters_without_gradients():
    first, second = (nn.Parameter(torch.randn(3, 3)) for _ in range(2))
    optimiser = StiefelMuon([first, second])
    kept = second.detach().clone()

    def closure() -> float:
        optimiser.zero_grad()
        loss = first.sum()
        loss.backward()
        return float(loss.detach())

    assert isinstance(optimiser.step(closure), float)
    assert torch.equal(second, kept)


def test_what_is_refused():
    layer = nn.Conv2d(2, 2, 3)
    for bad in (layer.weight, layer.bias, nn.Parameter(torch.randn(2, 2).half())):
        with pytest.raises(UsageError, match="another optimiser"):
            StiefelMuon([bad])
    weight = nn.Parameter(torch.randn(2, 2))
    for arguments in ({"lr": -1.0}, {"lr": math.nan}, {"momentum": 1.0}, {"momentum": -0.1}):
        with pytest.raises(UsageError, match="lr must not be negative"):
            StiefelMuon([weight], **arguments)
