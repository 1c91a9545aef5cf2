"""``certify`` proves each norm once, walks a few times, and remembers nothing afterwards."""

import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import layers
from onelip.certificates import radius_proof
from onelip.certificates.forward_error import forward_errors
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.norms import rounding, spectral

convolution = importlib.import_module("onelip.norms.convolutions")

Proofs = Counter[tuple[object, ...]]


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> Proofs:
    """How often the norm of each weight was proved, in each way."""
    made: Proofs = Counter()

    def counted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counting(numbers: Tensor, *arguments: Any) -> Tensor:
            way = str([a for a in arguments if not isinstance(a, Tensor)])
            made[(function.__name__, way, *numbers.shape, *numbers.flatten().tolist())] += 1
            return function(numbers, *arguments)

        return counting

    monkeypatch.setattr(spectral, "largest_norm", counted(spectral.largest_norm))
    monkeypatch.setattr(convolution, "_proved", counted(convolution._proved))
    return made


def dense_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()


def convolutional_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 2, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()


def exported_network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        layers.ConvexPotentialConv2d(1, 2, image_size=4),
        layers.SOCConv2d(1, 1, 3, image_size=4, terms=5),
        nn.Flatten(),
        layers.SandwichLinear(16, 8),
        layers.ConvexPotentialLinear(8, 6),
        layers.UnitNormLinear(8, 3),
    )
    exported = onelip.export(model)
    assert isinstance(exported, nn.Sequential)
    return exported


def head_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), layers.MLPHead(8, 3, hidden=6)).eval()


CASES = {  # and how many norms there are to prove
    "dense": (dense_network, "product", 3),
    "convolutional": (convolutional_network, "product", 3),
    "exported": (exported_network, "product", 7),
    "dense, LipLT": (dense_network, "liplt", 3),
    "convolutional, LipLT": (convolutional_network, "liplt", 5),  # sizes known, and not
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("build", "method", "count"), CASES.values(), ids=CASES)
def test_each_norm_is_proved_once(build, method, count, dtype, proofs):
    model, x = build().to(dtype), torch.rand(4, 1, 4, 4, dtype=dtype)
    proofs.clear()
    found = onelip.certify(model, x, method=method, level="float")
    assert found.radius.isfinite().all()
    assert set(proofs.values()) == {1}
    assert len(proofs) == count
    onelip.certify(model, x, method=method, level="float")
    assert set(proofs.values()) == {2}


def test_curvature_at_level_float(proofs):
    x = torch.rand(4, 1, 4, 4)
    model = onelip.export(head_network())
    found = onelip.certify(model, x, method="curvature", level="float")
    assert found.method == "curvature"
    assert set(proofs.values()) == {1}


@pytest.mark.parametrize("method", ["product", "liplt"])
@pytest.mark.parametrize("level", ["real", "float"])
def test_weights_that_change_between_two_calls_give_new_bounds(method, level):
    model, x = dense_network().double(), torch.rand(4, 1, 4, 4).double()
    bounds, errors = [], []
    for _ in range(3):
        bounds.append(float(onelip.certify(model, x, method=method, level=level).bound))
        errors.append(float(forward_errors(model, (1, 4, 4), 1.0)[-1]))
        model[3].weight.data.mul_(2)  # in place: the same module and the same tensor
    assert bounds[1:] == pytest.approx([2 * bounds[0], 4 * bounds[0]], rel=1e-9)
    assert errors[0] < errors[1] < errors[2]


def test_a_certificate_that_fails_leaves_nothing(proofs):
    model, x = dense_network(), torch.rand(4, 1, 4, 4)
    with pytest.raises(UsageError, match="out of range"):
        onelip.certify(model, x, torch.tensor([0, 1, 2, 7]))  # found out after the proofs
    assert set(proofs.values()) == {1}
    onelip.certify(model, x)
    assert set(proofs.values()) == {2}
    model[1].weight.data[0, 0] = torch.inf
    with pytest.raises(NonFiniteError):
        onelip.certify(model, x)


def test_best_proves_each_norm_once(proofs):
    onelip.bounds.Best(20).report(dense_network().double(), (16,))
    layers_of_the_model = {key: n for key, n in proofs.items() if key[1] == "[None]"}
    assert set(proofs.values()) == {1}, layers_of_the_model


# Walks through the model, and questions to the processor

GUARDED = [
    "onelip.lipschitz._bound",
    "onelip.certificates._certify",
    "onelip.bounds.layer_product",
    "onelip.certificates.forward_error",
    "onelip.reading._read",
]


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Models that were walked through."""
    walked: list[nn.Module] = []
    for name in GUARDED:
        module = importlib.import_module(name)

        def counting(model: nn.Module, guard: Any = module.refuse_hidden_behaviour) -> None:
            walked.append(model)
            guard(model)

        monkeypatch.setattr(module, "refuse_hidden_behaviour", counting)
    return walked


def nested(depth: int) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4))
    for _ in range(depth):
        model = nn.Sequential(model, nn.ReLU())
    return model.eval()


@pytest.mark.parametrize("depth", [1, 30])
def test_models_are_walked_a_fixed_number_of_times(depth, walks):
    model, x = nested(depth), torch.rand(2, 4)
    for query, count in (
        (lambda: onelip.lipschitz_bound(model), 1),
        (lambda: onelip.reading.read(model, (4,)), 1),
        (lambda: forward_errors(model, (4,), 1.0), 1),
        (lambda: onelip.certify(model, x), 2),
        (lambda: onelip.certify(model, x, level="float"), 3),
        (lambda: onelip.certify(model, x, method="liplt", level="float"), 3),
        (lambda: onelip.bounds.Best(0.1).report(model, (4,)), 1),
    ):
        walks.clear()
        query()
        assert walks == [model] * count


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_what_is_hidden_deep_inside_is_refused_by_every_query(depth):
    model, x = nested(depth), torch.rand(2, 4)
    inner = next(part for part in model.modules() if type(part) is nn.Linear)
    handle = inner.register_forward_hook(lambda module, inputs, output: 2 * output)
    for query in (
        lambda: onelip.lipschitz_bound(model),
        lambda: onelip.reading.read(model, (4,)),
        lambda: forward_errors(model, (4,), 1.0),
        lambda: radius_proof("product", model, (4,)),
        lambda: radius_proof("liplt", model, (4,)),
        lambda: onelip.certify(model, x),
        lambda: onelip.bounds.Best(0.1).report(model, (4,)),
    ):
        with pytest.raises(UnboundedModuleError, match="a forward hook"):
            query()
    handle.remove()
    head = nn.Sequential(model, layers.MLPHead(4, 3, hidden=5)).eval()
    head[1].inner.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(UnboundedModuleError, match="a forward hook"):
        radius_proof("curvature", head, (4,))


def test_one_question_whether_subnormal_numbers_are_kept(monkeypatch):
    asked: list[int] = []
    probe = rounding._probe
    monkeypatch.setattr(rounding, "_probe", lambda threads: asked.append(threads) or probe(threads))
    model, x = dense_network(), torch.rand(2, 1, 4, 4)
    chain = onelip.reading.read(model, (1, 4, 4))
    for query in (
        lambda: onelip.lipschitz_bound(model),
        lambda: onelip.certify(model, x, level="float"),
        lambda: onelip.certify(model, x, method="liplt", level="float"),
        lambda: onelip.bounds.LipLT().bound(chain),
        lambda: onelip.bounds.ECLipsE().bound(chain),
        lambda: onelip.export(exported_network()),
    ):
        asked.clear()
        query()
        assert len(asked) <= 2  # ``exported_network`` asks for itself
