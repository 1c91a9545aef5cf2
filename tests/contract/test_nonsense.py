"""No proof believes a factorisation: with wrong ones, bounds hold or are refused.

Each function of torch that factors, solves or finds eigenvalues is replaced, one at a time, by one
whose answers are off, entry by entry, by up to 0.1 % or 30 %. Layers that use it compute other
weights then; their bounds are held against the Jacobians of what they compute. Whatever never calls
a function computes the same with a wrong one: it is looked at once, with all of them right.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import bounds, layers
from onelip.certificates.forward_error import forward_error
from onelip.chains import Chain
from onelip.errors import OnelipError
from onelip.estimates import lower_estimate
from onelip.estimates.jacobian import stretch
from onelip.layers import MaxMin
from onelip.reading import read
from onelip.testing import jacobian_norm
from onelip.testing.searching import inputs
from tests.cases import LAYERS, Case
from tests.networks import dense_model

FUNCTIONS = [
    "linalg.cholesky_ex",
    "linalg.eigh",
    "linalg.eigvalsh",
    "linalg.inv_ex",
    "linalg.qr",
    "linalg.solve_triangular",
    "linalg.svd",
    "linalg.svdvals",
    "cholesky_solve",
    "matrix_exp",
]
SIZES = (1e-3, 0.3)
OFTEN = ("linalg.cholesky_ex", "linalg.eigvalsh", "linalg.svdvals", "cholesky_solve")
WRONG = [  # what proofs and layers call most, one size in turn; all with -m slow
    pytest.param(
        (name, size),
        id=f"{name}-{size}",
        marks=pytest.mark.slow if (i + j) % 2 or name not in OFTEN else [],
    )
    for i, name in enumerate(FUNCTIONS)
    for j, size in enumerate(SIZES)
]


def _place(name: str) -> tuple[object, str]:
    """The module and the attribute that hold a function."""
    return (torch.linalg if name.startswith("linalg.") else torch), name.removeprefix("linalg.")


def _off(result: object, size: float) -> object:
    """The same numbers, each wrong by its own share: the same ones for the same shape."""
    if isinstance(result, Tensor):
        if not (result.is_floating_point() or result.is_complex()):
            return result
        generator = torch.Generator().manual_seed(result.numel())
        noise = 2 * torch.rand(result.shape, generator=generator, dtype=torch.float64) - 1
        return result * (1 + size * noise).to(result.real.dtype)
    if isinstance(result, tuple):
        parts = [_off(part, size) for part in result]
        return parts if type(result) is tuple else type(result)(parts)
    return result


@dataclasses.dataclass(frozen=True)
class Nonsense:
    """One function that answers wrongly while a check runs that calls it."""

    name: str
    size: float

    def during(self, check: Callable[..., int], *arguments: object) -> int:
        """Return the count that the check returns."""
        count, called = _with_right_functions(check, *arguments)
        if self.name not in called:
            return count
        place, attribute = _place(self.name)
        right: Callable[..., object] = getattr(place, attribute)
        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, attribute, lambda *a, **k: _off(right(*a, **k), self.size))
            return check(*arguments)


@functools.cache
def _with_right_functions(check: Callable[..., int], *arguments: object) -> tuple[int, set[str]]:
    """The count that a check returns, and the functions that it calls."""
    called: set[str] = set()

    def watched(name: str, right: Callable[..., object]) -> Callable[..., object]:
        def function(*arguments: object, **options: object) -> object:
            called.add(name)
            return right(*arguments, **options)

        return function

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        for name in FUNCTIONS:
            place, attribute = _place(name)
            patch.setattr(place, attribute, watched(name, getattr(place, attribute)))
        return check(*arguments), called


@pytest.fixture(params=WRONG)
def nonsense(request: pytest.FixtureRequest) -> Nonsense:
    return Nonsense(*request.param)


def _or_refused(query: Callable[[], Tensor]) -> Tensor | None:
    try:
        return query()
    except OnelipError:
        return None


def _layer_and_its_export(case: Case) -> int:
    torch.manual_seed(0)
    layer = case.build().double().eval().requires_grad_(False)
    bounded = 0
    for module in (layer, onelip.export(layer)):
        bound = _or_refused(lambda module=module: onelip.lipschitz_bound(module))
        if bound is None:
            continue
        bounded += 1
        for x in inputs(case.input_shape, 2):
            found = jacobian_norm(module, x)
            assert found <= bound * (1 + 1e-9), f"{case.id}, {type(module).__name__}"
    return bounded


def test_layers_and_their_exports(nonsense):
    """Unexported, the weight in use is itself computed from nonsense."""
    bounded = sum(nonsense.during(_layer_and_its_export, case) for case in LAYERS)
    assert bounded > 1.9 * len(LAYERS)  # nothing is won by refusing


# Whole networks


def _networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    image = (2, 5, 5)
    convolutional = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 2, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(18, 3),
    )
    pooled = nn.Sequential(
        layers.ConvexPotentialConv2d(2, 3, image_size=4), nn.AvgPool2d(2), nn.Flatten()
    )
    networks = {
        "relu": (dense_model(3, 7, 6, 3, activation=nn.ReLU), (3,)),
        "tanh": (dense_model(3, 7, 6, 3, activation=nn.Tanh), (3,)),
        "max-min": (dense_model(3, 8, 6, 3, activation=MaxMin), (3,)),
        "convolutional": (convolutional, image),
        "pooled": (pooled, (2, 4, 4)),
    }
    return {name: (m.double().eval().requires_grad_(False), s) for name, (m, s) in networks.items()}


NETWORKS = _networks()


@functools.cache
def _reference(name: str) -> float:
    """A lower estimate by right factorisations: a check runs with these first."""
    model, shape = NETWORKS[name]
    return float(lower_estimate(read(model, shape), seconds=0))


METHODS: dict[str, Callable[[Chain], Tensor]] = {
    "product": bounds.Product().bound,
    "liplt": bounds.LipLT().bound,
    "liplt-sll": bounds.LipLT(refinement="sll").bound,
    "eclipse-fast": bounds.ECLipsE(fast=True).bound,
    "eclipse": bounds.ECLipsE().bound,
    "lipsdp-layer": bounds.LipSDP("layer").bound,
    "lipsdp": bounds.LipSDP(seconds=2).bound,
}


def _method_on_a_network(name: str, method: str, written_out: int) -> int:
    model, shape = NETWORKS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onelip.bounds.products.costs.WRITTEN_OUT", written_out)
        chain = read(model, shape)
        bound = _or_refused(lambda: METHODS[method](chain))
    if bound is None:
        return 0
    assert float(bound) >= _reference(name), f"{name}, {method}"
    return 1


@pytest.mark.usefixtures("clock")
def test_every_method_on_whole_networks(nonsense):
    proved = sum(
        nonsense.during(_method_on_a_network, name, method, written_out)
        for written_out in (2048, 10)  # and through Gram matrices
        for name in NETWORKS
        for method in METHODS
        if written_out == 2048 or "liplt" in method or method == "product"
    )
    assert proved > 30


def _local_bound(name: str, radius: float) -> int:
    model, shape = NETWORKS[name]
    chain, points = read(model, shape), inputs(shape, 3)
    bound = _or_refused(lambda: bounds.Local().around(chain, points, radius))
    if bound is None:
        return 0
    for i, x in enumerate(points):
        steps = torch.randn(64, *shape, dtype=torch.float64)
        lengths = steps.flatten(1).norm(dim=1).view(-1, *(1,) * len(shape))
        inside = x + radius * steps / lengths * torch.rand_like(lengths)
        found = torch.stack([jacobian_norm(model, y) for y in inside]).max()
        assert found <= bound[i] * (1 + 1e-9), f"{name}, radius {radius}"
    return 1


def test_local_bounds(nonsense):
    """Around three points, against Jacobians within the balls."""
    proved = [
        nonsense.during(_local_bound, name, radius)
        for name in ("relu", "tanh", "convolutional")
        for radius in (0.05, 1.0)
    ]
    assert sum(proved) > 3


def _linear_network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        layers.CholeskyLinear(4, 5), layers.CayleyLinear(5, 5), nn.Linear(5, 3)
    ).requires_grad_(False)


def _radii_of_a_linear_network(level: str) -> int:
    certified = 0
    for method in ("product", "liplt"):
        model = onelip.export(_linear_network().double())
        matrix = model[2].weight @ model[1].weight @ model[0].weight
        x = torch.rand(16, 4, dtype=torch.float64)
        try:
            found = onelip.certify(model, x, method=method, level=level)
        except OnelipError:
            continue
        logits = model(x)
        for i, y in enumerate(found.prediction):
            rivals = [j for j in range(3) if j != y]
            exact = min(
                float((logits[i, y] - logits[i, j]) / (matrix[y] - matrix[j]).norm())
                for j in rivals
            )
            assert float(found.radius[i]) <= exact * (1 + 1e-9)
        certified += int((found.radius > 0).sum())
    return certified


@pytest.mark.parametrize("level", ["real", "float"])
def test_radii_of_a_linear_network(nonsense, level):
    """The exact radius is the margin over the distance of two rows, minimised over the rivals."""
    assert nonsense.during(_radii_of_a_linear_network, level) > 16


def _radii_by_curvature(level: str) -> int:
    certified = 0
    angles = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)
    directions = torch.stack([angles.cos(), angles.sin()], 1)
    for seed in range(2):
        torch.manual_seed(seed)
        head = layers.MLPHead(2, 3, hidden=5).double()
        nn.init.normal_(head.inner.weight, std=2.0)
        model = onelip.export(nn.Sequential(head)).requires_grad_(False)
        x = torch.rand(12, 2, dtype=torch.float64)
        try:
            found = onelip.certify(model, x, method="curvature", level=level)
        except OnelipError:
            continue
        for i, y in enumerate(found.prediction):
            radius = float(found.radius[i])
            for share in (0.5, 0.9, 0.999):
                assert (model(x[i] + share * radius * directions).argmax(1) == y).all()
        certified += int((found.radius > 0).sum())
    return certified


@pytest.mark.parametrize("level", ["real", "float"])
def test_radii_by_curvature(nonsense, level):
    """Two features, so that every direction and distance can be tried."""
    assert nonsense.during(_radii_by_curvature, level) > 12


def _rounding(name: str) -> int:
    model, shape = NETWORKS[name]
    single = onelip.export(model).float()
    x = torch.randn(64, *shape)
    reach = float(x.double().flatten(1).norm(dim=1).max())
    charged = _or_refused(lambda: forward_error(single, shape, reach))
    if charged is None:
        return 0
    exact = single.double()(x.double())
    off = (single.float()(x).double() - exact).flatten(1).norm(dim=1).max()
    assert float(off) <= float(charged)
    return 1


def test_rounding_of_the_forward_pass(nonsense):
    """Level ``float``: what float32 makes of a network against what is charged for it."""
    charged = [nonsense.during(_rounding, n) for n in ("relu", "convolutional", "pooled")]
    assert sum(charged) > 1


def test_the_replacement_is_wrong():
    """A control: a bound that believed its factorisation would be too small."""
    matrix = torch.randn(40, 40, dtype=torch.float64)
    values = torch.linalg.svdvals(matrix)
    wrong = _off(values, 0.3)
    assert isinstance(wrong, Tensor)
    assert float((wrong / values - 1).abs().max()) > 0.2
    near = stretch(lambda x: x @ matrix.T, torch.randn(1, 40, dtype=torch.float64))
    assert float(near.norms) == pytest.approx(float(values[0]), rel=1e-3)
