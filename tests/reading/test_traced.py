"""Modules of any class: read through a trace of their forward, layers inside by their rules."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

import onelip
from onelip import bounds, layers
from onelip.errors import OnelipError, UnboundedModuleError, UsageError
from onelip.reading import Traced, read, readable
from onelip.testing import jacobian_norm


class Net(nn.Module):
    """Functional calls, a skip connection, a loop, a layer of onelip and one that occurs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList(
            layers.ConvexPotentialConv2d(4, 3, image_size=6) for _ in range(2)
        )
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.head = nn.Linear(36, 3)

    def forward(self, x):
        h = F.relu(self.stem(x))
        for block in self.blocks:
            h = block(h)
        h = h + self.scale * F.relu(self.norm(self.blocks[0](h)))
        return self.head(torch.flatten(F.max_pool2d(h, 2), 1))


SHAPE = (1, 6, 6)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().double().eval()


def test_a_class_is_read_as_the_sequence_of_its_layers():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    net = Plain().double().eval()
    twin = nn.Sequential(net.first, nn.ReLU(), net.last)
    for method in (bounds.Product(), bounds.LipLT(), bounds.LipSDP()):
        ours = onelip.lipschitz_bound(net, (4,), method=method)
        assert float(ours) == pytest.approx(float(method.bound(twin, (4,))), rel=1e-9)


def test_the_chain_computes_what_the_class_does_and_bounds_it(net):
    chain = read(net, SHAPE).exact()
    x = torch.randn(20, *SHAPE, dtype=torch.float64)
    assert torch.allclose(chain.forward(x), net(x), rtol=1e-9, atol=1e-12)
    seen = max(float(jacobian_norm(net, one)) for one in x)
    for method in ("product", "liplt"):
        bound = float(onelip.lipschitz_bound(net, SHAPE, method=method))
        assert seen <= bound <= 20 * seen
    names = [block.name for block in chain.blocks]
    assert "blocks.1 (ConvexPotentialConv2d)" in names  # by its own rule


def test_a_layer_inside_keeps_its_own_proof():
    class Wrapper(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x)

    for layer in (
        onelip.export(layers.ConvexPotentialLinear(6, 4)),
        layers.SandwichLinear(6, 6),
        layers.Householder(6),
        layers.MaxMin(),
    ):
        bound = float(onelip.lipschitz_bound(Wrapper(layer).eval(), (6,)))
        assert bound == pytest.approx(float(onelip.lipschitz_bound(layer)), rel=1e-12)


def test_what_traces_may_be_there(net):
    """Hooks, pruning masks, parametrizations and patched methods are part of what is traced."""

    changed = copy.deepcopy(net)
    prune.l1_unstructured(changed.stem, "weight", 0.5)
    parametrizations.weight_norm(changed.head)
    changed.norm.register_forward_hook(lambda _module, _inputs, output: 3 * output)
    changed.eval()
    x = torch.randn(5, *SHAPE, dtype=torch.float64)
    for model in (changed, onelip.export(changed)):
        chain = read(model, SHAPE).exact()
        assert torch.allclose(chain.forward(x), model(x), rtol=1e-9, atol=1e-12)


def test_numbers_that_a_layer_shares_with_its_input():
    """Views and changes in place inside a forward reach whoever else uses the numbers."""

    class InPlace(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.act = layer, nn.ReLU(inplace=True)

        def forward(self, x):
            x = 1 * x
            h = self.layer(x)
            return h + 2 * self.act(h) + x

    @onelip.lipschitz.rule(Doubled)
    def _(_):
        return 2.0

    try:
        x = torch.randn(9, 6, dtype=torch.float64)
        for layer in (layers.MaxMin(), nn.Identity(), nn.Flatten(), Doubled()):
            net = InPlace(layer).double().eval()
            chain = read(net, (6,)).exact()
            assert torch.allclose(chain.forward(x), net(x)), layer
    finally:
        del onelip.lipschitz.RECORDS[Doubled]


class Doubled(nn.Module):
    """Changes its input in place, which an operator must not do."""

    def forward(self, x):
        return x.mul_(2)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(()))


def of(forward):
    return type("OfAUser", (Small,), {"forward": forward})().eval()


def branches(self, x):
    if x.sum() > 0:
        return self.layer(x)
    return x


def loops(self, x):
    while x.norm() > 1:
        x = x / 2
    return x


def by_size(self, x):
    return self.layer(2 * x if x.shape[0] > 3 else x)


def in_a_region(self, x):
    with torch.no_grad():
        first = x.view(1, -1)[:, :4]
    return self.layer(x) + first


def counts(self, x):
    self.count += 1
    return self.layer(x)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (branches, r"line \d+, if x.sum\(\) > 0:: what it does next depends on the numbers"),
        (loops, r"line \d+, while x.norm\(\) > 1:: what it does next depends on the numbers"),
        (by_size, "depends on the size of the batch"),
        (counts, "changes its buffers"),
        (lambda _, x: x - x.mean(0), "mixes the samples"),
        (lambda _, x: x.view(1, -1)[:, :4], "mixes the samples"),
        (lambda _, x: x @ (x.T @ x), "moves the batch"),
        (in_a_region, "mixes the samples"),
        (lambda _, x: x.T.relu().T, "moves the batch to another axis"),
        (lambda _, x: x.flip(0), "batch"),
        (lambda _, x: x.sort(0)[0], "batch|sorts"),
        (lambda _, x: x.roll(1, 0), "roll"),
        (lambda _, x: x.cumsum(0), "cumsum"),
        (lambda _, x: x * x.shape[0], "size of the batch is used as a number"),
        (lambda _, x: x / (2 * x.shape[0]), "size of the batch is used as a number"),
        (lambda _, x: x * x.shape[0] ** 0.5, "size of the batch is used as a number"),
        (lambda _, x: x * torch.full((1,), x.shape[0]), "size of the batch is used as a number"),
        (lambda _, x: x + torch.randn_like(x), "randn_like"),
        (lambda _, x: F.dropout(x), "random"),
        (lambda self, x: self.nothing(x), "no attribute 'nothing'"),
        (lambda _, x: (x, x), "one output"),
        (lambda _, x: x * x, "mul"),
        (lambda _, x: F.scaled_dot_product_attention(x, x, x), "no global Lipschitz constant"),
    ],
)
def test_refusals_are_one_line(forward, message, capfd):
    with pytest.raises(OnelipError, match=message) as caught:
        onelip.lipschitz_bound(of(forward), (4,))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_class_without_a_shape_says_what_it_needs():
    with pytest.raises(UnboundedModuleError, match="give the shape of one input"):
        onelip.lipschitz_bound(of(lambda self, x: self.layer(x)))


def test_training_mode_is_refused_by_name(net):
    training = copy.deepcopy(net)
    training.norm.train()
    with pytest.raises(UsageError, match="norm is in training mode"):
        onelip.lipschitz_bound(training, SHAPE)


def test_certify_runs_what_was_traced(net):
    x = torch.rand(12, *SHAPE, dtype=torch.float64)
    radii = {}
    for method in ("product", "liplt"):
        certificate = onelip.certify(net, x, method=method)
        assert (certificate.prediction == net(x).argmax(1)).all()
        radii[method] = certificate.radius
    assert (radii["product"] <= radii["liplt"] * (1 + 1e-9)).all()
    for wrapped in (
        torch.optim.swa_utils.AveragedModel(net).eval(),
        nn.DataParallel(net),
        torch.compile(net, backend="eager"),
    ):
        assert torch.equal(onelip.certify(wrapped, x).radius, radii["product"])


def test_certify_runs_an_exported_program(net):
    x = torch.rand(5, *SHAPE, dtype=torch.float64)
    expected = onelip.certify(net, x, method="liplt").radius
    dynamic = ({0: torch.export.Dim("batch")},)
    exported = onelip.export(net)  # operators only: the layers of onelip are taken apart
    by_name = onelip.certify(exported, x, method="liplt").radius
    for program in (
        torch.export.export(exported, (x,), dynamic_shapes=dynamic),
        torch.export.export(exported, (x[:1],)),
    ):
        certificate = onelip.certify(program, x, method="liplt")
        assert (certificate.prediction == exported(x).argmax(1)).all()
        assert torch.allclose(certificate.radius, by_name, rtol=1e-6)
    assert (by_name >= expected * (1 - 1e-6)).all()


def test_certify_refuses_a_model_that_answers_otherwise():
    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return self.layer(x) * self.calls

    with pytest.raises(UsageError, match="answers otherwise than the trace"):
        onelip.certify(of(forward), torch.rand(3, 4))


def test_a_query_changes_nothing(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    attributes = {name: set(vars(part)) for name, part in net.named_modules()}
    onelip.certify(net, torch.rand(3, *SHAPE, dtype=torch.float64))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert {name: set(vars(part)) for name, part in net.named_modules()} == attributes
    assert net.head.weight.requires_grad


def test_export_keeps_the_forward_and_exports_the_layers(net):
    exported = onelip.export(net)
    assert type(exported) is Net
    assert not any(isinstance(p, layers.ConvexPotentialConv2d) for p in exported.modules())
    twice = [float(onelip.lipschitz_bound(block)) for block in exported.blocks]
    assert twice == [1.0, 1.0]
    assert not any(parameter.requires_grad for parameter in exported.parameters())
    again = onelip.lipschitz_bound(exported, SHAPE)
    assert float(again) <= float(onelip.lipschitz_bound(net, SHAPE)) * (1 + 1e-6)


def test_export_refuses_a_hook_on_a_layer_that_it_replaces(net):
    hooked = copy.deepcopy(net)
    hooked.blocks[1].register_forward_hook(lambda _module, _inputs, output: 2 * output)
    with pytest.raises(UnboundedModuleError, match="forward hook"):
        onelip.export(hooked)


def test_known_modules_are_not_traced(net):
    known = nn.Sequential(nn.Linear(4, 4), layers.MaxMin())
    assert readable(known, (4,)) is known
    assert isinstance(readable(nn.Sequential(net, nn.ReLU()).eval(), SHAPE), Traced)


def test_certify_runs_a_file(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)).eval()
    x = torch.rand(6, 3, 2, 2)
    expected = onelip.certify(model, x, method="liplt")
    for suffix in (".pt2", ".onnx"):
        path = tmp_path / f"net{suffix}"
        onelip.save(model, path, (3, 2, 2))
        for source in (path, str(path)):
            found = onelip.certify(source, x, method="liplt")
            assert torch.equal(found.prediction, expected.prediction)
            assert torch.allclose(found.radius, expected.radius, rtol=1e-4)
    with pytest.raises(UsageError, match="does not exist"):
        onelip.certify(tmp_path / "no.onnx", x)
    with pytest.raises(UsageError, match=r"no \.pt2 or \.onnx file"):
        onelip.certify("net.h5", x)
    with pytest.raises(UnboundedModuleError, match="rounding of Traced"):
        onelip.certify(tmp_path / "net.onnx", x, level="float")
    with pytest.raises(UsageError, match="float64, weights float32"):
        onelip.certify(tmp_path / "net.onnx", x.double())


def test_certify_refuses_a_reading_that_computes_something_else(net, monkeypatch):
    """A wrong rule of an operator shows, before its bound is believed."""
    from onelip.reading.aten.operators import OPERATORS

    monkeypatch.setitem(OPERATORS, "relu.default", lambda value: value)
    with pytest.raises(UsageError, match="something else than was read"):
        onelip.certify(net, torch.rand(3, *SHAPE, dtype=torch.float64))


def test_a_class_is_saved_and_proved_again(net, tmp_path):
    """What the file proves is what the export proves, and both answer alike."""
    exported, x = onelip.export(net.float()), torch.rand(4, *SHAPE)
    expected = onelip.certify(exported, x)
    for suffix in (".pt2", ".onnx"):
        path = tmp_path / f"net{suffix}"
        bound = float(onelip.save(net, path, SHAPE))
        assert bound == pytest.approx(float(onelip.lipschitz_bound(exported, SHAPE)), rel=1e-6)
        assert torch.allclose(onelip.certify(path, x).radius, expected.radius, rtol=1e-3)
    net.double()


@pytest.mark.parametrize("form", ["class", "file"])
def test_a_network_after_a_linear_layer_counts_the_norm_of_that(form, tmp_path):
    torch.manual_seed(0)
    steps = [layers.ConvexPotentialLinear(6, 4) for _ in range(2)]
    net = onelip.export(nn.Sequential(*steps, nn.Linear(6, 2)))
    if form == "class":
        part = readable(Wrapped(net).eval(), (6,))
    else:
        onelip.save(net, tmp_path / "net.pt2", (6,))
        part = onelip.load(tmp_path / "net.pt2")
    assert isinstance(part, Traced)
    first = nn.Linear(6, 6, bias=False)
    first.weight.data = 10 * torch.eye(6)
    whole = nn.Sequential(first, part).eval().requires_grad_(False)
    bound = float(onelip.lipschitz_bound(whole, (6,), method=bounds.Product(any_size=False)))
    alone = float(onelip.lipschitz_bound(part, (6,), method=bounds.Product(any_size=False)))
    assert bound == pytest.approx(10 * alone, rel=1e-6)
    twin = copy.deepcopy(nn.Sequential(first, net)).double()
    slopes = [float(jacobian_norm(twin, x)) for x in torch.randn(64, 6).double()]
    assert max(slopes) <= bound
    assert max(slopes) > alone


class Wrapped(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)
