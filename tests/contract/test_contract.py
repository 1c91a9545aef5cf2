"""Every layer against the contract, and layers that break it against the tests."""

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip.lipschitz import RECORDS, LipschitzModule
from onelip.testing import check_layer, check_stretch
from tests.cases import CASES, LAYERS, Case

ONE = torch.ones((), dtype=torch.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_contract(case: Case):
    check_layer(case.build(), case.input_shape)


def test_every_public_layer_has_a_row():
    built = {type(case.build()).__name__ for case in LAYERS}
    public = [getattr(onelip.layers, name) for name in onelip.layers.__all__]
    assert built == {kind.__name__ for kind in public if isinstance(kind, type)}


def test_ids_are_unique():
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids))


def test_every_rule_that_is_not_an_isometry_has_a_row():
    covered = {type(m) for case in CASES for m in case.build().modules()}
    trivial = {nn.Identity, nn.Unflatten, nn.PixelUnshuffle, nn.ChannelShuffle, nn.BatchNorm3d}
    dropout = {nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout}
    scalar = {kind for kind in RECORDS if kind in onelip.activations.ACTIVATIONS}
    assert set(RECORDS) - covered - trivial - dropout - scalar == set()


class _Broken(LipschitzModule):
    """Claims 1, also for the forward that a subclass writes."""

    def __init_subclass__(cls):
        if "lipschitz_bound" not in vars(cls):
            cls.lipschitz_bound = _Broken.lipschitz_bound

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, x: Tensor) -> Tensor:
        return x

    def lipschitz_bound(self) -> Tensor:
        return ONE.clone()


class Stretches(_Broken):
    def forward(self, x):
        return 1.01 * x


class StretchesSomewhere(_Broken):
    """By 1.02 only where the first input is close to a multiple of 2 pi."""

    def forward(self, x):
        return x + 0.02 * x[:, :1].sin()


class StretchesFarAway(_Broken):
    """Only beyond 8, and by a millionth."""

    def forward(self, x):
        return x + 1e-6 * torch.relu(x - 8)


class StretchesInOneDirection(_Broken):
    def forward(self, x):
        return x + 1e-3 * x.sum(1, keepdim=True)


class Writes(_Broken):
    def __init__(self):
        super().__init__()
        self.register_buffer("queries", torch.zeros(()))

    def lipschitz_bound(self):
        self.queries += 1
        return ONE.clone()


class Drifts(_Broken):
    """Another answer each time, kept out of the state."""

    queries = 0

    def lipschitz_bound(self):
        self.queries += 1
        return ONE + self.queries


class Caches(_Broken):
    """The first norm for ever."""

    known = None

    def forward(self, x):
        return x @ self.weight.T

    def lipschitz_bound(self):
        if self.known is None:
            self.known = onelip.norms.dense(self.weight)
        return self.known


class PromisesByConstruction(_Broken):
    """Orthogonal at the start, and never measured."""

    def forward(self, x):
        return x @ self.weight.T


class DependsOnMode(_Broken):
    def lipschitz_bound(self):
        return ONE * (2 if self.training else 1)


class Float32(_Broken):
    def lipschitz_bound(self):
        return torch.ones(())


class NotScalar(_Broken):
    def lipschitz_bound(self):
        return torch.ones(1, dtype=torch.float64)


class HasState(_Broken):
    """A factor that no state dict carries."""

    def __init__(self):
        super().__init__()
        self.register_buffer("factor", torch.tensor(0.5), persistent=False)

    def forward(self, x):
        return self.factor * x


class MixesBatch(_Broken):
    def forward(self, x):
        return x - 0.5 * x.mean(0, keepdim=True)


class WrongGradient(_Broken):
    def forward(self, x):
        return x.detach() + 0.5 * (x - x.detach())


class ExportsWorse(_Broken):
    def forward(self, x):
        return 0.5 * x

    def lipschitz_bound(self):
        return 1.02 * ONE

    def export(self):
        return Stretches().double().eval().requires_grad_(False)


class ExportsAnother(_Broken):
    """Another function, and no smaller bound for it."""

    def export(self):
        return nn.Sequential(Moves()).double().eval().requires_grad_(False)


class Moves(_Broken):
    def forward(self, x):
        return x.flip(1)


CONTROLS = {
    Stretches: "a Jacobian stretches by 1.01",
    StretchesSomewhere: "stretches by 1.0",
    StretchesFarAway: "stretches by 1.0000",
    StretchesInOneDirection: "stretches by 1.003",
    Writes: "asking for the bound changed the state",
    Drifts: "asked twice",
    Caches: "with random weights",
    PromisesByConstruction: "with random weights",
    DependsOnMode: "2.0 after train()",
    Float32: "0-d, float64",
    NotScalar: "0-d, float64",
    HasState: "state dict: other outputs",
    MixesBatch: "another output in a batch",
    WrongGradient: "wrong gradient",
    ExportsWorse: "a Jacobian after export stretches by 1.01",
    ExportsAnother: "export changed the outputs, and the bound from 1.0 to 1.0",
}


@pytest.mark.parametrize("kind", CONTROLS, ids=lambda kind: kind.__name__)
def test_negative_control(kind: type[_Broken]):
    with pytest.raises(AssertionError, match=CONTROLS[kind].replace("()", r"\(\)")):
        check_layer(kind(), (3,))


def test_the_base_of_the_controls_is_sound():
    check_layer(_Broken(), (3,))


def test_stretch_is_found_by_pairs_where_gradients_are_hidden():
    """A staircase has slope 0 nearly everywhere and stretches without limit."""

    class Stairs(_Broken):
        def forward(self, x):
            return 5 * x.round()

    with pytest.raises(AssertionError, match="a pair stretches"):
        check_stretch(Stairs(), (3,))
