"""What an abstract base proves holds for classes that override nothing the proof rests on.

A class derived from ``ConstrainedLinear`` that overrode ``forward`` (twice the result) had the
bound 1.0, certified radii, and an export that computed another function.
"""

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import flows
from onelip.errors import UnboundedModuleError
from onelip.layers.constrained import ConstrainedConv2d, ConstrainedLayer, ConstrainedLinear
from onelip.layers.convex_potential import ConvexPotential
from onelip.layers.fourier_layer import FourierConv2d
from onelip.layers.orthogonal import OrthogonalLayer, cholesky_qr, tall
from onelip.layers.skew_exponential import SkewExponential
from onelip.layers.sll import SLL
from onelip.reading import read
from onelip.testing import check_layer


class Plain(ConstrainedLinear):
    """A layer as ``docs/add-a-layer.md`` asks for."""

    def __init__(self, features: int = 3) -> None:
        super().__init__(features, features, bias=True)
        self.raw = nn.Parameter(torch.eye(features))

    def compute_weight(self) -> Tensor:
        return 0.5 * self.raw

    def extra_repr(self) -> str:
        return "plain"


class PlainConv(ConstrainedConv2d):
    def __init__(self) -> None:
        super().__init__(2, 2, 3, image_size=4)
        self.raw = nn.Parameter(torch.randn(2, 2, 3, 3) / 5)

    def compute_weight(self) -> Tensor:
        return self.raw.view_as(self.raw)


class PlainFourier(FourierConv2d):
    def __init__(self) -> None:
        super().__init__(2, 2, 3, image_size=4, stride=1, bias=True)
        self.raw_weight = nn.Parameter(torch.randn(2, 2, 3, 3) / 5)

    def blocks(self, symbols: Tensor) -> Tensor:
        return symbols / 2


class PlainOrthogonal(OrthogonalLayer, ConstrainedLinear):
    def __init__(self) -> None:
        super().__init__(3, 3, bias=False)
        self.raw, self.orthogonalise = tall(3, 3), cholesky_qr

    def free_matrices(self) -> list[Tensor]:
        return [self.raw]

    def assemble(self, matrices: list[Tensor]) -> Tensor:
        return matrices[0][0]


class PlainSkew(SkewExponential):
    def __init__(self) -> None:
        super().__init__(2, 2, 3, stride=1, padding_mode="zeros", image_size=(4, 4), terms=5)
        self.bias = None
        self.raw = nn.Parameter(torch.randn(2, 2, 3, 3) / 10)

    def kernel(self) -> Tensor:
        return self.raw - self.raw.flip(2, 3).transpose(0, 1)


class PlainPotential(ConvexPotential):
    def __init__(self) -> None:
        super().__init__(torch.empty(4, 3), torch.empty(3), None, None)


class PlainSLL(SLL):
    def __init__(self) -> None:
        super().__init__(torch.empty(4, 3), None)

    def absolute_gram(self) -> Tensor:
        return (self.weight @ self.weight.T).abs()


class PlainRational(flows.rational.RationalStep):
    def __init__(self) -> None:
        super().__init__(flows.SkewLinear(3))

    def of_blocks(self, blocks: Tensor) -> Tensor:
        return blocks / 4


DENSE, IMAGE = (3,), (2, 4, 4)
BASES = {
    Plain: DENSE,
    PlainConv: IMAGE,
    PlainFourier: IMAGE,
    PlainOrthogonal: DENSE,
    PlainPotential: DENSE,
    PlainRational: DENSE,
    PlainSLL: DENSE,
}


@pytest.mark.parametrize("kind", [*BASES, PlainSkew], ids=lambda kind: kind.__name__)
def test_filling_in_what_is_abstract_is_enough(kind):
    shape = BASES.get(kind, IMAGE)
    if kind is PlainSkew:  # which has no default export of its own
        assert float(onelip.lipschitz_bound(kind())) <= 1
    else:
        check_layer(kind(), shape)


def overriding(kind: type[nn.Module], name: str) -> nn.Module:
    """A layer like ``kind()``, of a class that overrides one more thing of its base, by itself."""
    base = next(b for b in kind.__mro__[1:] if name in vars(b))
    own = getattr(base, name)
    body = {key: vars(kind)[key] for key in vars(kind) if key not in ("__dict__", "__weakref__")}
    body[name] = own
    other = type("Other", kind.__bases__, body)
    module = other.__new__(other)
    vars(module).update(vars(kind()))
    return module


NAMES = [
    (Plain, "forward"),
    (Plain, "weight"),
    (Plain, "__call__"),
    (Plain, "_call_impl"),
    (Plain, "fixed_weight"),
    (Plain, "__getattr__"),
    (Plain, "double"),
    (PlainConv, "forward"),
    (PlainConv, "convolve"),
    (PlainConv, "group_channels"),
    (PlainFourier, "forward"),
    (PlainFourier, "compute_weight"),
    (PlainOrthogonal, "forward"),
    (PlainSkew, "forward"),
    (PlainSkew, "channels"),
    (PlainPotential, "forward"),
    (PlainPotential, "inner"),
    (PlainPotential, "adjoint"),
    (PlainPotential, "step"),
    (PlainPotential, "norm_bound"),
    (PlainSLL, "forward"),
    (PlainSLL, "rows"),
    (PlainRational, "forward"),
]


@pytest.mark.parametrize(
    ("kind", "name"), NAMES, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_whatever_a_default_rests_on_is_refused(kind, name):
    module = overriding(kind, name).eval()
    shape = BASES.get(kind, IMAGE)
    x = torch.rand(2, *shape)
    inherits = f"inherits lipschitz_bound from .* which knows nothing of Other.{name}: write"
    with pytest.raises(UnboundedModuleError, match=inherits):
        onelip.lipschitz_bound(module)
    with pytest.raises(UnboundedModuleError, match=inherits):
        read(module, shape)
    with pytest.raises(UnboundedModuleError, match="inherits"):
        onelip.certify(nn.Sequential(module, nn.Flatten()).eval(), x)
    if kind is not PlainSkew:
        with pytest.raises(UnboundedModuleError, match="inherits export"):
            onelip.export(module)


class Gain:
    def __call__(self, *arguments, **options):
        return 10 * super().__call__(*arguments, **options)


class GainModule(nn.Module):
    def __call__(self, *arguments, **options):
        return 10 * super().__call__(*arguments, **options)


class Half(ConstrainedLayer):
    @property
    def weight(self) -> Tensor:
        return 2 * super().weight


MIXINS = {
    "in front": (Gain, ConstrainedLinear),
    "after the owner": (ConstrainedLinear, GainModule),
    "another layer after the owner": (ConstrainedLinear, Half),
}


@pytest.mark.parametrize("bases", MIXINS.values(), ids=MIXINS)
def test_a_mixin_on_either_side_of_the_owner_is_refused(bases):
    """After it, ten times the radius was certified: a class there is no base of the owner's."""
    body = {name: vars(Plain)[name] for name in ("compute_weight", "extra_repr")}
    other = type("Other", bases, body)
    module = other.__new__(other)
    vars(module).update(vars(Plain()))
    for query in (onelip.lipschitz_bound, onelip.export):
        with pytest.raises(UnboundedModuleError, match="knows nothing of"):
            query(module.eval())


def test_data_that_becomes_behaviour_is_refused():
    body = {"_compiled_call_impl": lambda self, x: 2 * self.forward(x)}
    other = type("Other", (ConstrainedLinear,), body | {"compute_weight": Plain.compute_weight})
    module = other.__new__(other)
    vars(module).update(vars(Plain()))
    with pytest.raises(UnboundedModuleError, match="_compiled_call_impl"):
        onelip.lipschitz_bound(module.eval())


class Log:
    def log(self) -> str:
        return "no layer, and nothing that a proof rests on"


class Helped(Log, Plain):
    tag = "data"

    def __init__(self) -> None:
        super().__init__()

    def compute_weight(self) -> Tensor:
        return Plain.compute_weight(self)


class LoggedLinear(Log, ConstrainedLinear):
    def __init__(self) -> None:
        super().__init__(3, 3, bias=True)
        self.raw = nn.Parameter(torch.eye(3))

    def compute_weight(self) -> Tensor:
        return self.raw.view_as(self.raw)

    def _load_from_state_dict(self, *arguments) -> None:
        super()._load_from_state_dict(*arguments)


def test_helpers_that_no_proof_rests_on_are_welcome():
    check_layer(LoggedLinear(), DENSE)
    with pytest.raises(UnboundedModuleError, match="which speaks for Plain only"):
        onelip.lipschitz_bound(Helped())  # derived from a layer, which is final


class Adopting(Plain):
    """Twice the function, and a claim that the proof holds nevertheless."""

    lipschitz_bound = ConstrainedLinear.lipschitz_bound
    export = ConstrainedLinear.export

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Logging(Plain):
    """The same function, and some counting."""

    lipschitz_bound = ConstrainedLinear.lipschitz_bound
    export = ConstrainedLinear.export
    to_chain = ConstrainedLinear.to_chain

    def forward(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x)


def test_a_default_may_be_adopted_and_check_layer_attacks_the_claim():
    check_layer(Logging(), DENSE)
    with pytest.raises(AssertionError, match="stretches by"):
        check_layer(Adopting(), DENSE)


class ExportsHalf(ConstrainedLinear):
    """A proof of its own, and an export of another function that is no shorter."""

    def __init__(self) -> None:
        super().__init__(3, 3, bias=False)
        self.raw = nn.Parameter(torch.eye(3))

    def compute_weight(self) -> Tensor:
        return self.raw.view_as(self.raw)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.raw.T.flip(0)

    def lipschitz_bound(self) -> Tensor:
        return onelip.norms.dense(self.raw)

    export = ConstrainedLinear.export


def test_check_layer_compares_forward_and_export():
    with pytest.raises(AssertionError, match="export changed the outputs"):
        check_layer(ExportsHalf(), DENSE)
