"""Layers of one's own in whole networks: what a default of an abstract base says, and of whom."""

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip.bounds import ECLipsE, LipLT, LipSDP, Product
from onelip.certificates.forward_error import forward_error
from onelip.chains import Opaque
from onelip.errors import UnboundedModuleError
from onelip.layers.constrained import ConstrainedConv2d, ConstrainedLinear
from onelip.lipschitz import LipschitzModule
from onelip.reading import read


class Halved(ConstrainedLinear):
    """A layer as ``docs/add-a-layer.md`` has it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=True)
        self.raw = nn.Parameter(torch.randn(out_features, in_features))
        nn.init.normal_(self.bias)

    def compute_weight(self) -> Tensor:
        return self.raw / 2


class HalvedConv(ConstrainedConv2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding_mode="zeros")
        self.raw = nn.Parameter(torch.randn(channels, channels, 3, 3))

    def compute_weight(self) -> Tensor:
        return self.raw / 2


def twins(*layers: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """A network of our own layers, and one of torch's with the same weights."""
    ours = nn.Sequential(*layers).eval()
    return ours, nn.Sequential(*(onelip.export(layer) for layer in layers)).eval()


@pytest.mark.parametrize("method", [Product(), LipLT(), ECLipsE(), LipSDP()], ids=lambda m: m.name)
def test_a_layer_that_only_computes_a_weight_is_as_tight_as_torchs(method):
    ours, plain = twins(Halved(6, 12), nn.ReLU(), Halved(12, 4))
    bound = float(method.bound(read(ours, (6,))))
    assert bound == pytest.approx(float(method.bound(read(plain, (6,)))), rel=1e-6)
    layer_by_layer = float(onelip.lipschitz_bound(ours))
    assert bound < 0.9 * layer_by_layer or method.name == "product"
    plain_error = float(forward_error(plain, (6,), 1.0))
    assert float(forward_error(onelip.export(ours), (6,), 1.0)) == pytest.approx(plain_error)


def test_a_convolution_likewise():
    ours, plain = twins(HalvedConv(2), nn.ReLU(), HalvedConv(2))
    bounds = [float(LipLT().bound(read(model, (2, 5, 5)))) for model in (ours, plain)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-6)
    assert bounds[0] < 0.95 * float(Product(any_size=False).bound(ours, (2, 5, 5)))


class Turned(Halved):
    """Another forward, and a bound for it, but no word on the rest."""

    lipschitz_bound = ConstrainedLinear.lipschitz_bound

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(-1)


class SpokenFor(Turned):
    lipschitz_bound = ConstrainedLinear.lipschitz_bound
    to_chain = LipschitzModule.to_chain


class Shuffled(ConstrainedLinear):
    """The base's reading does not know of this forward."""

    compute_weight = Halved.compute_weight
    lipschitz_bound = ConstrainedLinear.lipschitz_bound

    def __init__(self) -> None:
        super().__init__(3, 3, bias=False)
        self.raw = nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(-1)


@pytest.mark.parametrize("build", [lambda: Turned(3, 3), Shuffled], ids=["final", "forward"])
def test_a_default_is_refused_for_another_forward(build):
    layer = build()
    assert float(onelip.lipschitz_bound(layer)) > 0
    with pytest.raises(UnboundedModuleError, match="inherits to_chain from ConstrainedLinear"):
        read(nn.Sequential(layer), (3,))


def test_a_layer_may_say_that_only_its_bound_is_known():
    layer = SpokenFor(3, 3).eval()
    chain = read(nn.Sequential(layer), (3,))
    assert isinstance(chain.blocks[0].nonlinearity, Opaque)
    x = torch.randn(5, 3)
    assert torch.allclose(chain.forward(x), layer(x))
    assert float(Product().bound(chain)) == pytest.approx(float(onelip.lipschitz_bound(layer)))


def test_level_float_is_refused_where_nothing_is_said():
    with pytest.raises(UnboundedModuleError, match="rounding of SpokenFor: use level='real'"):
        forward_error(nn.Sequential(SpokenFor(3, 3).eval()), (3,), 1.0)
