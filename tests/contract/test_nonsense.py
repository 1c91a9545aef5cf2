"""No proof believes a factorisation: with wrong ones, bounds hold or are refused.

Each function of torch that factors, solves or finds eigenvalues is replaced, one at a time, by one
whose answers are off, entry by entry, by up to 0.1 % or 30 %. Layers that use it compute other
weights then; their bounds are held against the Jacobians of what they compute.
"""

import itertools
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
from tests.cases import LAYERS

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
WRONG = [(name, size) for name in FUNCTIONS for size in (1e-3, 0.3)]
IDS = [f"{name}-{size}" for name, size in WRONG]


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


@pytest.fixture(params=WRONG, ids=IDS)
def nonsense(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One function is wrong; what is returned grows with each question."""
    name, size = request.param
    right: Callable[..., object] = torch.linalg if name.startswith("linalg.") else torch
    right = getattr(right, name.removeprefix("linalg."))
    asked: list[int] = []

    def wrong(*arguments: object, **options: object) -> object:
        asked.append(1)
        return _off(right(*arguments, **options), size)

    monkeypatch.setattr(f"torch.{name}", wrong)
    return asked


def _or_refused(query: Callable[[], Tensor]) -> Tensor | None:
    try:
        return query()
    except OnelipError:
        return None


def test_layers_and_their_exports(nonsense):
    """Unexported, the weight in use is itself computed from nonsense."""
    bounded = 0
    for case in LAYERS:
        torch.manual_seed(0)
        layer = case.build().double().eval().requires_grad_(False)
        for module in (layer, onelip.export(layer)):
            bound = _or_refused(lambda module=module: onelip.lipschitz_bound(module))
            if bound is None:
                continue
            bounded += 1
            for x in inputs(case.input_shape, 2):
                found = jacobian_norm(module, x)
                assert found <= bound * (1 + 1e-9), f"{case.id}, {type(module).__name__}"
    assert bounded > 1.9 * len(LAYERS)  # nothing is won by refusing


# Whole networks


def _dense(*widths: int, activation: type[nn.Module]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for columns, rows in itertools.pairwise(widths):
        parts += [nn.Linear(columns, rows), activation()]
    return nn.Sequential(*parts[:-1])


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
        "relu": (_dense(3, 7, 6, 3, activation=nn.ReLU), (3,)),
        "tanh": (_dense(3, 7, 6, 3, activation=nn.Tanh), (3,)),
        "max-min": (_dense(3, 8, 6, 3, activation=MaxMin), (3,)),
        "convolutional": (convolutional, image),
        "pooled": (pooled, (2, 4, 4)),
    }
    return {name: (m.double().eval().requires_grad_(False), s) for name, (m, s) in networks.items()}


NETWORKS = _networks()
REFERENCES = {  # by right factorisations
    name: float(lower_estimate(read(model, shape), seconds=0))
    for name, (model, shape) in NETWORKS.items()
}
METHODS: dict[str, Callable[[Chain], Tensor]] = {
    "product": bounds.Product().bound,
    "liplt": bounds.LipLT().bound,
    "liplt-sll": bounds.LipLT(refinement="sll").bound,
    "eclipse-fast": bounds.ECLipsE(fast=True).bound,
    "eclipse": bounds.ECLipsE().bound,
    "lipsdp-layer": bounds.LipSDP("layer").bound,
    "lipsdp": bounds.LipSDP(seconds=5).bound,
}


def test_every_method_on_whole_networks(nonsense, monkeypatch):
    proved = 0
    for written_out in (2048, 10):  # and through Gram matrices
        monkeypatch.setattr("onelip.bounds.products.costs.WRITTEN_OUT", written_out)
        for name, (model, shape) in NETWORKS.items():
            chain = read(model, shape)
            for method, prove in METHODS.items():
                if written_out == 10 and "liplt" not in method and method != "product":
                    continue
                bound = _or_refused(lambda prove=prove, chain=chain: prove(chain))
                if bound is not None:
                    proved += 1
                    assert float(bound) >= REFERENCES[name], f"{name}, {method}"
    assert proved > 30


def test_local_bounds(nonsense):
    """Around three points, against Jacobians within the balls."""
    for name in ("relu", "tanh", "convolutional"):
        model, shape = NETWORKS[name]
        chain = read(model, shape)
        points = inputs(shape, 3)
        for radius in (0.05, 1.0):
            bound = _or_refused(lambda c=chain, x=points, r=radius: bounds.Local().around(c, x, r))
            if bound is None:
                continue
            for i, x in enumerate(points):
                steps = torch.randn(64, *shape, dtype=torch.float64)
                lengths = steps.flatten(1).norm(dim=1).view(-1, *(1,) * len(shape))
                inside = x + radius * steps / lengths * torch.rand_like(lengths)
                found = torch.stack([jacobian_norm(model, y) for y in inside]).max()
                assert found <= bound[i] * (1 + 1e-9), f"{name}, radius {radius}"


def _linear_network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        layers.CholeskyLinear(4, 5), layers.CayleyLinear(5, 5), nn.Linear(5, 3)
    ).requires_grad_(False)


@pytest.mark.parametrize("level", ["real", "float"])
def test_radii_of_a_linear_network(nonsense, level):
    """The exact radius is the margin over the distance of two rows, minimised over the rivals."""
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
    assert certified > 16


@pytest.mark.parametrize("level", ["real", "float"])
def test_radii_by_curvature(nonsense, level):
    """Two features, so that every direction and distance can be tried."""
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
    assert certified > 12


def test_rounding_of_the_forward_pass(nonsense):
    """Level ``float``: what float32 makes of a network against what is charged for it."""
    for name in ("relu", "convolutional", "pooled"):
        model, shape = NETWORKS[name]
        single = onelip.export(model).float()
        x = torch.randn(64, *shape)
        reach = float(x.double().flatten(1).norm(dim=1).max())
        charged = _or_refused(lambda m=single, s=shape, r=reach: forward_error(m, s, r))
        if charged is not None:
            exact = single.double()(x.double())
            off = (single.float()(x).double() - exact).flatten(1).norm(dim=1).max()
            assert float(off) <= float(charged)


def test_the_replacement_is_wrong():
    """A control: a bound that believed its factorisation would be too small."""
    matrix = torch.randn(40, 40, dtype=torch.float64)
    values = torch.linalg.svdvals(matrix)
    wrong = _off(values, 0.3)
    assert isinstance(wrong, Tensor)
    assert float((wrong / values - 1).abs().max()) > 0.2
    near = stretch(lambda x: x @ matrix.T, torch.randn(1, 40, dtype=torch.float64))
    assert float(near.norms) == pytest.approx(float(values[0]), rel=1e-3)
