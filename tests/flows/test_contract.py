"""Every scheme against the contract of layers, every potential against its own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import onelip
from onelip import flows
from onelip.errors import NotApplicableError, UnboundedModuleError
from onelip.flows import (
    ExactFlow,
    ExplicitEuler,
    ExplicitEulerSkew,
    Flow,
    ImplicitEuler,
    ImplicitEulerSkew,
    Midpoint,
    Piece,
    Potential,
    QuadraticPotential,
    RidgeConv2d,
    RidgeLinear,
    SkewConv2d,
    SkewLinear,
    SkewPart,
    SumPotential,
)
from onelip.testing import check_layer, check_potential

ONE = torch.ones((), dtype=torch.float64)


class SoftThreshold(Potential):
    """The sum of absolute values: no smoothness, a closed form."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs().flatten(1).sum(1)

    def smoothness(self) -> Tensor:
        return ONE * torch.inf

    def proximal(self, x: Tensor, step: Tensor) -> Tensor:
        return x.sign() * (x.abs() - step).clamp_min(0)


class LogCosh(Potential):
    """Nothing but a value and a proof: the gradient is autograd's."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.2))

    def forward(self, x: Tensor) -> Tensor:
        values = self.scale.square() * torch.logaddexp(x, -x) + x.square() / 20
        return values.flatten(1).sum(1)

    def smoothness(self) -> Tensor:
        return (self.scale.detach().double().square() + 0.1) * (1 + 1e-12)


def zeroed(part: nn.Module) -> nn.Module:
    for parameter in part.parameters():
        nn.init.zeros_(parameter)
    return part


POTENTIALS: dict[str, tuple[Callable[[], Potential], tuple[int, ...]]] = {
    "ridge": (lambda: RidgeLinear(4, 6), (4,)),
    "one-neuron": (lambda: RidgeLinear(1, 1), (1,)),
    "zero": (lambda: zeroed(RidgeLinear(3, 4)), (3,)),
    "leaky": (lambda: RidgeLinear(3, 6, activation=nn.LeakyReLU(0.3)), (3,)),
    "identity": (lambda: RidgeLinear(3, 4, activation=nn.Identity()), (3,)),
    "tanh": (lambda: RidgeLinear(4, 3, activation=nn.Tanh()), (4,)),
    "sigmoid": (lambda: RidgeLinear(4, 3, activation=nn.Sigmoid()), (4,)),
    "softsign": (lambda: RidgeLinear(4, 3, activation=nn.Softsign()), (4,)),
    "prelu": (lambda: RidgeLinear(3, 5, activation=nn.PReLU()), (3,)),
    "softplus": (lambda: RidgeLinear(3, 5, activation=nn.Softplus()), (3,)),
    "conv": (lambda: RidgeConv2d(2, 3, image_size=(4, 5)), (2, 4, 5)),
    "conv-circular": (
        lambda: RidgeConv2d(2, 3, image_size=4, padding_mode="circular", activation=nn.Tanh()),
        (2, 4, 4),
    ),
    "quadratic": (lambda: QuadraticPotential(4), (4,)),
    "quadratic-flat": (lambda: QuadraticPotential(4, 2), (4,)),
    "sum": (
        lambda: SumPotential([QuadraticPotential(3), RidgeLinear(3, 4)], [0.5, 2.0]),
        (3,),
    ),
    "user": (LogCosh, (3,)),
}
SKEWS: dict[str, tuple[Callable[[], SkewPart], tuple[int, ...]]] = {
    "dense": (lambda: SkewLinear(4), (4,)),
    "odd": (lambda: SkewLinear(3), (3,)),
    "one": (lambda: SkewLinear(1), (1,)),
    "zero": (lambda: zeroed(SkewLinear(3)), (3,)),
    "circular": (lambda: SkewConv2d(2, 3, image_size=(4, 5)), (2, 4, 5)),
    "zeros": (lambda: SkewConv2d(2, 3, image_size=4, padding_mode="zeros"), (2, 4, 4)),
}


IMPLICIT = ("one-neuron", "zero", "leaky", "quadratic", "quadratic-flat")
ALIKE = ("identity", "sigmoid", "softsign", "softplus")
LONG = ("ridge", "leaky", "conv", "quadratic")


def schemes():
    for name, (build, shape) in POTENTIALS.items():
        if name not in ALIKE:
            yield f"explicit-{name}", lambda b=build: ExplicitEuler(b()), shape
        if name in LONG:
            yield f"explicit-long-{name}", lambda b=build: ExplicitEuler(b(), 3.0), shape
        if name in IMPLICIT:
            yield f"implicit-{name}", lambda b=build: ImplicitEuler(b(), 0.8, tolerance=1e-6), shape
    for name, (build, shape) in SKEWS.items():
        yield f"explicit-skew-{name}", lambda b=build: ExplicitEulerSkew(b(), 0.7), shape
        yield f"exact-{name}", lambda b=build: ExactFlow(b(), 0.7), shape
        if name == "dense":
            yield "exact-six-terms", lambda b=build: ExactFlow(b(), 0.7, terms=6), shape
        if name != "zeros":
            yield f"midpoint-{name}", lambda b=build: Midpoint(b(), 0.7), shape
            yield f"implicit-skew-{name}", lambda b=build: ImplicitEulerSkew(b(), 0.7), shape


@pytest.mark.parametrize(
    ("build", "shape"), [pytest.param(*rest, id=name) for name, *rest in schemes()]
)
def test_schemes(build, shape):
    torch.manual_seed(0)
    check_layer(build(), shape)


@pytest.mark.parametrize("build", [pytest.param(b, id=name) for name, b, _ in schemes()])
def test_exporting_draws_no_random_numbers(build):
    layer = build().eval()
    torch.manual_seed(0)
    onelip.lipschitz_bound(onelip.export(layer))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("name", POTENTIALS)
def test_potentials(name):
    torch.manual_seed(0)
    build, shape = POTENTIALS[name]
    check_potential(build(), shape)


def test_a_flow_and_closed_forms():
    torch.manual_seed(0)
    flow = Flow(
        Piece(RidgeLinear(3, 4), SkewLinear(3), duration=0.5),
        Piece(QuadraticPotential(3)),
        Piece(None, SkewLinear(3)),
    )
    check_layer(flow.discretise(steps=2), (3,))
    check_potential(SoftThreshold(), (3,))
    check_layer(ImplicitEuler(SoftThreshold(), 0.3), (3,))


def test_every_public_scheme_is_here():
    known = {type(build()) for _, build, _ in schemes()}
    public = {getattr(flows, name) for name in flows.__all__}
    assert {kind for kind in public if issubclass(kind, onelip.LipschitzModule)} == known


class Lies(RidgeLinear):
    """Each liar below tells the truth but for one method."""

    def smoothness(self):
        return super().smoothness()

    def convexity(self):
        return super().convexity()

    def proximal(self, x, step):
        raise NotImplementedError

    has_proximal = False


class TooSmooth(Lies):
    def smoothness(self):
        return 0.98 * super().smoothness()

    convexity, proximal = Lies.convexity, Lies.proximal


class TooConvex(Lies):
    def convexity(self):
        return 1e-3 * ONE

    smoothness, proximal = Lies.smoothness, Lies.proximal


class OtherGradient(Lies):
    def gradient(self, x):
        return super().gradient(x) + 0.01

    smoothness, convexity, proximal = Lies.smoothness, Lies.convexity, Lies.proximal


class NotConvex(Potential):
    """``x^2 / 2 - 2 exp(-x^2)``-like dents: smooth, and bent downwards near 2."""

    def forward(self, x):
        return (x.square() / 2 + 4 * torch.cos(x / 2)).flatten(1).sum(1) - 0.2 * x[:, 0].square()

    def smoothness(self):
        return 2.5 * ONE


class BatchMean(Potential):
    def forward(self, x):
        return (x - x.mean(0)).square().flatten(1).sum(1)

    def smoothness(self):
        return 2 * ONE


class WrongProximal(SoftThreshold):
    def smoothness(self):
        return super().smoothness()

    convexity = Potential.convexity

    def proximal(self, x, step):
        return x.sign() * (x.abs() - 1.1 * step).clamp_min(0)


class Counts(Potential):
    """Another bound each time."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, x):
        return x.square().flatten(1).sum(1) / 2

    def smoothness(self):
        self.asked += 1
        return (1 + self.asked) * ONE


class TurnsAround(Potential):
    """A field that is no gradient, with no value to say so."""

    def forward(self, x):
        raise NotApplicableError("no closed form")

    def gradient(self, x):
        return x + 1.7 * torch.stack([-x[:, 1], x[:, 0], 0 * x[:, 2]], 1)

    def smoothness(self):
        return 1.98 * ONE


class RightAtOneStep(Potential):
    """A closed form for the step 0.7."""

    def forward(self, x):
        return x.square().sum(1) / 2

    def smoothness(self):
        return ONE

    def proximal(self, x, step):
        return x / (1 + step) * (1 + 10 * (step - 0.7) ** 2)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (TurnsAround, "no symmetric Jacobian"),
        (RightAtOneStep, "not the minimiser at step 0.01"),
        (lambda: TooSmooth(3, 3, activation=nn.Identity()), "the gradient"),
        (lambda: TooConvex(3, 3), "less convex|not convex"),
        (lambda: OtherGradient(3, 3), "not the derivative"),
        (NotConvex, "less convex|not convex"),
        (BatchMean, "in a batch"),
        (WrongProximal, "not the minimiser"),
        (Counts, "asked twice"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_liars_are_caught(build, match):
    torch.manual_seed(1)
    with pytest.raises(AssertionError, match=match):
        check_potential(build(), (3,))


class Inherits(RidgeLinear):
    def gradient(self, x):
        return 2 * super().gradient(x)


class InheritsSkew(SkewLinear):
    def forward(self, x):
        return 2 * super().forward(x)


class Nonsense(Potential):
    def forward(self, x):
        return x.sum(1)

    def smoothness(self):
        return -ONE


def test_parts_are_final():
    for layer in (ExplicitEuler(Inherits(2, 2), 0.1), ExplicitEuler(Inherits(2, 2))):
        with pytest.raises(UnboundedModuleError, match="inherits"):
            onelip.lipschitz_bound(layer)
    with pytest.raises(UnboundedModuleError, match="inherits"):
        onelip.lipschitz_bound(ExactFlow(InheritsSkew(2)))
    with pytest.raises(UnboundedModuleError, match="0 <= convexity <= smoothness"):
        onelip.lipschitz_bound(ExplicitEuler(Nonsense(), 0.1))
    potential = RidgeLinear(2, 2)
    potential.register_forward_hook(lambda *_: None)
    with pytest.raises(UnboundedModuleError, match="hook"):
        onelip.lipschitz_bound(ExplicitEuler(potential))


class Turned(SkewLinear):
    def act(self, x, blocks):
        return 3 * super().act(x, blocks)


class Unplain(SkewConv2d):
    def plain(self, blocks):
        return nn.Identity()


def test_parts_that_change_what_acts_must_measure_it():
    for scheme in (Midpoint, ImplicitEulerSkew):
        with pytest.raises(UnboundedModuleError, match="Turned inherits measure"):
            onelip.lipschitz_bound(scheme(Turned(2)))
    layer = Midpoint(Unplain(1, 3, image_size=4, padding_mode="circular"))
    with pytest.raises(UnboundedModuleError, match="Unplain inherits measure"):
        onelip.lipschitz_bound(layer)


@pytest.mark.parametrize(
    "register", ["register_full_backward_hook", "register_full_backward_pre_hook"]
)
def test_hooks_on_the_way_back_change_a_gradient_and_are_refused(register):
    class Bowl(Potential):
        def __init__(self):
            super().__init__()
            self.activation = nn.Softplus()

        def forward(self, x):
            return self.activation(x).sum(1)

        def smoothness(self):
            return 0.25 * ONE

    potential = Bowl()
    assert onelip.lipschitz_bound(ExplicitEuler(potential, 8.0)) <= 1 + 1e-12
    handle = getattr(potential.activation, register)(lambda *_: None)
    for scheme in (ExplicitEuler, ImplicitEuler):
        with pytest.raises(UnboundedModuleError, match="backward hook"):
            onelip.lipschitz_bound(scheme(potential, 8.0))
    handle.remove()
    everywhere = nn.modules.module.register_module_full_backward_hook(lambda *_: None)
    try:
        with pytest.raises(UnboundedModuleError, match="backward hook"):
            onelip.lipschitz_bound(ExplicitEuler(potential, 8.0))
    finally:
        everywhere.remove()


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_proximal_step_of_steep_valleys_stretches_nothing(scale, dtype):
    """A QR factorisation that meets the identity first loses it beside long rows."""
    torch.manual_seed(0)
    potential = QuadraticPotential(6, 3)
    nn.init.normal_(potential.weight, std=scale)
    layer = ImplicitEuler(potential.to(dtype), 1.0)
    columns = layer(torch.eye(6, dtype=dtype)) - layer(torch.zeros(1, 6, dtype=dtype))
    assert torch.linalg.matrix_norm(columns.double(), 2) <= 1 + 50 * torch.finfo(dtype).eps


def test_a_flat_potential_moves_nothing():
    class Flat(Potential):
        def forward(self, x):
            return torch.ones(len(x))

        def smoothness(self):
            return 0 * ONE

    x = torch.rand(3, 2)
    assert torch.equal(ExplicitEuler(Flat(), 1.0)(x), x)


def test_activations_that_work_in_place_leave_the_value_right():
    potential = RidgeLinear(3, 4, activation=nn.LeakyReLU(inplace=True))
    plain = RidgeLinear(3, 4, activation=nn.LeakyReLU())
    plain.load_state_dict(potential.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(potential(x), plain(x))


def test_steps_that_vanish_in_the_precision_of_the_weights_are_refused():
    for step in (1e-50, 1e39):
        with pytest.raises(ValueError, match=r"in torch\.float32"):
            ImplicitEuler(RidgeLinear(2, 2), step).plan()
    layer = ExplicitEuler(SumPotential([RidgeLinear(2, 2)]), 1e-50)
    with pytest.raises(ValueError, match=r"in torch\.float32"):
        layer(torch.ones(1, 2))
    assert onelip.export(layer.double()).fixed_step == 1e-50


def test_weights_that_move_when_they_are_read_are_refused():
    potential = parametrizations.spectral_norm(RidgeLinear(3, 4), "weight")
    with pytest.raises(UnboundedModuleError, match="training mode"):
        onelip.lipschitz_bound(ExplicitEuler(potential, 0.1))

    class Random(nn.Module):
        def forward(self, weight):
            return weight + torch.rand_like(weight)

    potential = RidgeLinear(3, 4).eval()
    nn.utils.parametrize.register_parametrization(potential, "weight", Random())
    with pytest.raises(UnboundedModuleError, match="another weight each time"):
        onelip.lipschitz_bound(ExplicitEuler(potential.eval(), 0.1).eval())
