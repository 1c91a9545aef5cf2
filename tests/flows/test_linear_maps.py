"""Which linear maps are products of steps on quadratic potentials (appendix C.3, corrected)."""

import math

import pytest
import torch
from torch import Tensor

import onelip
from onelip.flows import ExplicitEuler, ImplicitEuler, QuadraticPotential


def reflections(orthogonal: Tensor) -> list[Tensor]:
    """Unit vectors v whose reflections ``I - 2 v v^T``, from left to right, multiply to it."""
    rest, found = orthogonal.clone(), []
    for i in range(len(rest)):
        v = rest[:, i] - torch.eye(len(rest), dtype=rest.dtype)[i]
        if v.norm() > 1e-9:
            v = v / v.norm()
            rest = rest - 2 * torch.outer(v, v @ rest)
            found.append(v)
    return found


def factors(matrix: Tensor) -> list[ExplicitEuler]:
    """Explicit steps with ``h L <= 2`` on quadratics that multiply, last one first, to a matrix."""
    u, s, vt = torch.linalg.svd(matrix)
    steps = [(v[None], 2.0) for v in reflections(u)]
    steps += [(torch.diag((1 - s.clamp(max=1)).sqrt()), 1.0)]
    steps += [(v[None], 2.0) for v in reflections(vt)]
    return [explicit(root, step) for root, step in steps]


def explicit(root: Tensor, step: float) -> ExplicitEuler:
    """``x - h W^T W x``."""
    quadratic = QuadraticPotential(root.shape[1], root.shape[0]).double()
    with torch.no_grad():
        quadratic.weight.copy_(root)
    return ExplicitEuler(quadratic, step)


def rotation(angle: float, size: int = 2) -> Tensor:
    turn = torch.eye(size, dtype=torch.float64)
    turn[:2, :2] = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    ).double()
    return turn


def contractions():
    generator = torch.Generator().manual_seed(0)
    for i in range(20):
        matrix = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        if i % 3 == 0:
            matrix[:, 0] = 0  # singular
        yield matrix / torch.linalg.matrix_norm(matrix, 2)
    yield torch.linalg.qr(matrix).Q
    yield torch.zeros(3, 3, dtype=torch.float64)
    yield torch.eye(3, dtype=torch.float64)
    yield -torch.eye(2, dtype=torch.float64)
    for angle in (1e-3, 1.0, math.pi / 2, 3.0):
        yield torch.linalg.qr(rotation(angle)).Q
    yield torch.linalg.qr(rotation(0.5, 5)).Q


def test_every_contraction_is_a_product_of_explicit_steps(each):
    """What the paper's appendix C.3 denies."""
    for matrix in each(list(contractions())):
        steps = factors(matrix)
        assert len(steps) <= 2 * len(matrix) + 1
        network = torch.nn.Sequential(*reversed(steps)).requires_grad_(False)
        eye = torch.eye(len(matrix), dtype=torch.float64)
        torch.testing.assert_close(network(eye).T, matrix, rtol=0, atol=1e-12)
        for step in steps:
            assert float(step.step()) * float(step.potential.smoothness()) <= 2 * (1 + 1e-9)
            assert onelip.lipschitz_bound(step) <= 1 + 1e-12
        if torch.allclose(matrix @ matrix.T, eye):  # all reflections: the longest steps, proved
            proved = torch.nn.Sequential(*(ExplicitEuler(s.potential) for s in reversed(steps)))
            assert onelip.lipschitz_bound(proved) <= 1
            torch.testing.assert_close(proved(eye).detach().T, matrix, rtol=0, atol=1e-6)


def random_products(size: int):
    """Products of steps that are positive semidefinite: short explicit ones, implicit ones."""
    for depth in (1, 2, 5, 40):
        matrix = bound = torch.eye(size, dtype=torch.float64)
        bound = 0.0
        for i in range(depth):
            quadratic = QuadraticPotential(size, 1 + i % size).double()
            smoothness = float(quadratic.smoothness())
            kind, step = (ExplicitEuler, 0.9 / smoothness) if i % 2 else (ImplicitEuler, 3.0)
            with torch.no_grad():
                one = kind(quadratic, step)(torch.eye(size, dtype=torch.float64)).T
            assert torch.linalg.eigvalsh((one + one.T) / 2)[0] > -1e-12
            bound += float(torch.linalg.matrix_norm(torch.eye(size) - one, 2))
            matrix = one @ matrix
        yield matrix, bound


@pytest.mark.parametrize("size", [2, 3, 5])
def test_short_and_implicit_steps_turn_only_as_far_as_they_shrink(size):
    for _ in range(10):
        for matrix, telescoped in random_products(size):
            distance = float(torch.linalg.matrix_norm(torch.eye(size) - matrix, 2))
            shrunk = -float(torch.linalg.slogdet(matrix).logabsdet)
            assert distance <= telescoped * (1 + 1e-9)
            assert telescoped <= shrunk * (1 + 1e-9) + 1e-12


def test_a_rotation_stays_out_of_reach_of_short_steps():
    """At a distance of eps the determinant is at least ``(1 - eps)^d``, so eps cannot be small."""
    turn, eye = rotation(0.5), torch.eye(2, dtype=torch.float64)
    far = float(torch.linalg.matrix_norm(eye - turn, 2))
    least = next(e / 1000 for e in range(1, 1000) if far - e / 1000 <= -2 * math.log1p(-e / 1000))
    assert least > 0.1
    torch.manual_seed(0)
    with torch.enable_grad():  # the closest that training gets
        quadratics = [QuadraticPotential(2).double() for _ in range(6)]
        network = torch.nn.Sequential(*(ImplicitEuler(q, 1.0) for q in quadratics))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (network(eye).T - turn).square().sum()
            loss.backward()
            optimizer.step()
    for q in quadratics:
        torch.nn.init.zeros_(q.bias)
    assert float(torch.linalg.matrix_norm(network(eye).detach().T - turn, 2)) > least
