"""Solutions of the differential equation against what is proved of them."""

import math

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip.flows import (
    ExactFlow,
    ExplicitEuler,
    ExplicitEulerSkew,
    Flow,
    ImplicitEuler,
    Midpoint,
    Piece,
    QuadraticPotential,
    RidgeConv2d,
    RidgeLinear,
    SkewConv2d,
    SkewLinear,
)

odeint = pytest.importorskip("torchdiffeq").odeint


def dense(**options) -> Piece:
    return Piece(RidgeLinear(4, 6, activation=nn.Tanh()), SkewLinear(4), **options)


def convolutional(padding_mode: str) -> Piece:
    ridge = RidgeConv2d(2, 3, image_size=4, padding_mode=padding_mode, activation=nn.Softplus())
    return Piece(ridge, SkewConv2d(2, 3, image_size=4, padding_mode=padding_mode), duration=0.7)


FLOWS = {
    "dense": (lambda: Flow(dense()), (4,)),
    "skew": (lambda: Flow(Piece(None, SkewLinear(4))), (4,)),
    "gradient": (lambda: Flow(Piece(RidgeLinear(4, 9, activation=nn.Sigmoid()))), (4,)),
    "relu": (lambda: Flow(Piece(RidgeLinear(4, 6), SkewLinear(4))), (4,)),
    "strongly-convex": (
        lambda: Flow(Piece(QuadraticPotential(4, 8), SkewLinear(4), duration=0.5)),
        (4,),
    ),
    "pieces": (
        lambda: Flow(
            dense(duration=0.3),
            Piece(None, SkewLinear(4), duration=0.4),
            Piece(QuadraticPotential(4, 8), duration=0.25),
            dense(duration=1.0),
        ),
        (4,),
    ),
    "zeros": (lambda: Flow(convolutional("zeros")), (2, 4, 4)),
    "circular": (lambda: Flow(convolutional("circular"), convolutional("circular")), (2, 4, 4)),
}


def solved(flow: Flow, x: Tensor, times: Tensor) -> Tensor:
    with torch.no_grad():
        return odeint(
            flow, x, times, rtol=1e-10, atol=1e-12, method="dopri5", options={"jump_t": flow.jumps}
        )


def distances(states: Tensor) -> Tensor:
    return (states[:, 0::2] - states[:, 1::2]).flatten(2).norm(dim=2)


@pytest.mark.parametrize("name", FLOWS)
def test_proposition_2_and_corollary_1(name):
    torch.manual_seed(0)
    build, shape = FLOWS[name]
    flow = build().double()
    x = 2 * torch.randn(12, *shape, dtype=torch.float64)
    x[1::2] = x[0::2] + torch.logspace(-2, 0.5, 6).view(-1, *(1,) * len(shape)) * x[1::2]
    times = torch.linspace(0, 1.2 * flow.duration, 9, dtype=torch.float64)
    found = distances(solved(flow, x, times))
    for i in range(len(times)):
        for j in range(i + 1, len(times)):
            least, most = flow.distance_bounds(float(times[i]), float(times[j]))
            factor = found[j] / found[i]
            assert (factor >= least * (1 - 1e-7)).all()
            assert (factor <= most * (1 + 1e-7)).all()
            assert most <= 1
    if name == "skew":
        assert flow.distance_bounds(0, 5) == (1, 1)
    if name == "strongly-convex":
        assert flow.distance_bounds(0.0, 9.0)[1] < 0.95


def test_the_bounds_are_attained():
    """By the eigenvectors of a quadratic potential, whatever part turns in between."""
    potential = QuadraticPotential(2).double()
    with torch.no_grad():
        potential.weight.copy_(torch.diag(torch.tensor([1.0, 2.0])))
    flow = Flow(Piece(potential, duration=0.5), Piece(None, SkewLinear(2).double()))
    eye = torch.eye(2, dtype=torch.float64)
    end = solved(flow, eye, torch.tensor([0.0, 1.5], dtype=torch.float64))[-1].norm(dim=1)
    least, most = flow.distance_bounds(0.0, 1.5)
    assert math.isclose(end[0], most, rel_tol=1e-7)
    assert math.isclose(end[1], least, rel_tol=1e-7)
    assert flow.rates(0.2)[1] <= -1 + 1e-7
    assert flow.rates(0.5) == flow.rates(99.0) == (0, 0)


@pytest.mark.parametrize("name", ["dense", "pieces", "circular"])
def test_schemes_converge_to_the_flow(name):
    torch.manual_seed(0)
    build, shape = FLOWS[name]
    flow = build().double()
    x = torch.randn(3, *shape, dtype=torch.float64)
    exact = solved(flow, x, torch.tensor([0.0, flow.duration], dtype=torch.float64))[-1]
    for schemes in (
        (ExplicitEuler, Midpoint),
        (ExplicitEuler, ExactFlow),
        (ImplicitEuler, ExplicitEulerSkew),
    ):
        errors = []
        for steps in (4, 16):
            with torch.no_grad():
                network = flow.discretise(*schemes, steps=steps)
                errors.append(float((network(x) - exact).norm()))
        assert errors[1] < errors[0] / 3  # of first order
        assert errors[1] < 0.1 * float((x - exact).norm())


def test_discretise_shares_parameters_and_never_shortens():
    torch.manual_seed(0)
    flow = Flow(Piece(RidgeLinear(3, 5), SkewLinear(3), duration=40.0))
    network = flow.discretise(steps=2)
    assert len(network) == 4
    assert set(network.parameters()) == set(flow.parameters())
    assert network[0].fixed_step == 20.0
    assert onelip.lipschitz_bound(network) > 10
    network = flow.discretise(lambda f, _: ExplicitEuler(f), steps=2)
    assert onelip.lipschitz_bound(network) < 1 + 1e-5
    with pytest.raises(ValueError, match="steps"):
        flow.discretise(steps=0)


def test_steps_that_are_shared_are_computed_once():
    flow = Flow(dense(), dense()).double()
    network, x = flow.discretise(steps=3), torch.randn(2, 4, dtype=torch.float64)
    expected = network(x)
    with onelip.layers.computed_once(network):
        torch.testing.assert_close(network(x), expected)
    exported = onelip.export(network)
    torch.testing.assert_close(exported(x), expected.detach())
    assert onelip.lipschitz_bound(exported) == onelip.lipschitz_bound(network)


def test_a_network_of_flow_steps_is_trained_exported_and_certified():
    """Proposition 1: a margin above sqrt(2) L eps keeps the prediction within eps."""
    torch.manual_seed(0)
    flow = Flow(dense(duration=0.5), dense(duration=0.5))
    layers = flow.discretise(lambda f, _: ExplicitEuler(f))  # as long as is proved
    network = nn.Sequential(*layers, onelip.layers.CholeskyLinear(4, 3))
    x = torch.rand(90, 4)
    labels = x[:, :3].argmax(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(20 * network(x), labels).backward()
        optimizer.step()
    network = onelip.export(network).double()
    x = x.double()
    result = onelip.certify(network, x)
    constant = onelip.lipschitz_bound(network)
    assert constant < 1 + 1e-5
    logits = network(x)
    right = logits.argmax(1) == labels
    assert right.double().mean() > 0.8
    top = logits.topk(2, 1).values
    radius = (top[:, 0] - top[:, 1]) / (math.sqrt(2) * constant)
    certified = result.radius.clamp_min(0)
    assert certified.median() > 0.02
    for eps in (radius, certified.to(radius)):
        for attacked in attacks(network, x, logits.argmax(1), eps * (1 - 1e-9)):
            assert (network(attacked).argmax(1) == logits.argmax(1)).all()
    far = attacks(network, x, logits.argmax(1), 20 * radius)
    assert any((network(attacked).argmax(1) != logits.argmax(1)).any() for attacked in far)


def attacks(network: nn.Module, x: Tensor, labels: Tensor, eps: Tensor) -> list[Tensor]:
    """Random points and the end of a gradient attack, all on the sphere of radius eps."""
    found = []
    for start in range(3):
        move = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(start))
        for _ in range(20):
            move = eps[:, None] * nn.functional.normalize(move, dim=1)
            found.append(x + move)
            point = found[-1].clone().requires_grad_()
            loss = nn.functional.cross_entropy(network(point), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
            move = move + 0.5 * eps[:, None] * nn.functional.normalize(gradient, dim=1)
    return found


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.Sigmoid()])
def test_proposition_3_is_sharp(activation):
    """At 2 / L no pair is stretched; beyond it, one is: along the leading singular vector."""
    torch.manual_seed(0)
    ridge = RidgeLinear(3, 1, activation=activation).double()
    top = {nn.Sigmoid: 0.25}.get(type(activation), 1.0)
    longest = 2 / (top * float(ridge.weight.detach().square().sum()))
    direction = (ridge.weight / ridge.weight.norm()).detach()
    start = 0.0 if isinstance(activation, nn.ReLU) else -1e-4
    x = direction * (start - ridge.bias.detach()) / ridge.weight.detach().norm()
    z = x + 2e-4 * direction
    for factor in (0.5, 1.0, 1.01, 1.5):
        layer = ExplicitEuler(ridge, factor * longest)
        with torch.no_grad():
            stretch = float((layer(x) - layer(z)).norm() / (x - z).norm())
        bound = float(onelip.lipschitz_bound(layer))
        assert stretch <= bound * (1 + 1e-9)
        if factor <= 1:
            assert bound <= 1 + 1e-9
        else:
            assert stretch > 1 + (factor - 1)
            assert bound < stretch * (1 + 1e-6)


def test_explicit_euler_unsplit_stretches():
    """The counter-example of section 3.1: f = 0, where squared lengths grow by |A x|^2."""
    skew = SkewLinear(4).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    growth = ExplicitEulerSkew(skew)(x).square().sum(1) - x.square().sum(1)
    torch.testing.assert_close(growth, skew(x).square().sum(1))


def test_fields_with_skew_jacobians_are_linear():
    """Appendix C.1, on quadratic fields: of all of them only 0 has a skew Jacobian everywhere.

    The Jacobian of ``F_k(x) = sum T_kij x_i x_j`` is skew iff ``T_kij + T_ikj = 0``, T symmetric in
    its last two indices.
    """
    size = 3
    conditions = []
    for column in torch.eye(size**3, dtype=torch.float64):
        t = column.view(size, size, size)
        skewness, symmetry = t + t.transpose(0, 1), t - t.transpose(1, 2)
        conditions.append(torch.cat([skewness.flatten(), symmetry.flatten()]))
    assert torch.linalg.matrix_rank(torch.stack(conditions)) == size**3


def test_float32_and_errors():
    torch.manual_seed(0)
    flow = Flow(dense())
    states = odeint(flow, torch.randn(2, 4), torch.tensor([0.0, 1.0]))
    assert states.dtype == torch.float32
    assert states[-1].requires_grad
    with pytest.raises(ValueError, match="at least one piece"):
        Flow()
    with pytest.raises(ValueError, match="a potential, a skew part, or both"):
        Piece()
    with pytest.raises(ValueError, match="positive"):
        Piece(RidgeLinear(2, 2), duration=0)
    with pytest.raises(ValueError, match="0 <= start <= end"):
        flow.distance_bounds(1, 0)


def test_no_flow_is_bounded_for_ever():
    with pytest.raises(ValueError, match="end < inf"):
        Flow(Piece(RidgeLinear(2, 2))).distance_bounds(0.0, math.inf)
