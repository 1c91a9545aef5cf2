"""Layers recognised by building them again: the same numbers, and no other, have their proof."""

import io

import pytest
import torch
from torch import nn

import onelip
from onelip.bounds import LipLT, Product
from onelip.chains import Repeat
from onelip.chains.linear_layers import taking
from onelip.errors import OnelipError
from onelip.layers import CurvePool2d, FixedFourierConv2d, Householder, ProjectionPool2d
from onelip.reading import read, read_program
from onelip.testing import jacobian_norm
from tests.cases import LAYERS, Case

LOOSER = ("Averaged", "Sandwich", "Concatenated", "Split")
"""Read as several maps, one by one; LipSDP finds what a Sandwich knows."""
UNREAD = ("LipschitzExtension", "MeanSquareResidual")
"""Distances to points, and a root of squares."""


def saved(model: nn.Module, shape, *, dynamic: bool):
    """The program, written and read again."""
    batch = torch.export.Dim("batch")
    x = torch.zeros(2 if dynamic else 1, *shape)
    shapes = ({0: batch},) if dynamic else None
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=shapes), file)
    file.seek(0)
    return torch.export.load(file)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.id)
def test_every_layer_from_a_program_file(case: Case):
    """The same function at batches of 1 and 3, the same product of norms, the same LipLT."""
    torch.manual_seed(0)
    model = onelip.export(case.build().eval())
    program = saved(model, case.input_shape, dynamic=True)
    for count in (1, 3):
        x = torch.randn(count, *case.input_shape)
        assert torch.equal(program.module()(x), model(x))
    if case.id.startswith(UNREAD):
        with pytest.raises(OnelipError):
            read_program(program)
        return
    own, found = read(model, case.input_shape), read_program(program)
    x = torch.randn(2, *case.input_shape, dtype=torch.float64)
    assert torch.allclose(found.exact().forward(x), own.exact().forward(x), rtol=1e-9, atol=1e-9)
    if not case.id.startswith(LOOSER):
        # a file may be tighter; a series is written out with the rounding of its steps
        slack = 1 + (1e-4 if "SOC" in case.id else 1e-6)
        assert float(Product().bound(found)) <= float(Product().bound(own)) * slack
        assert float(LipLT().bound(found)) <= float(LipLT().bound(own)) * slack


RECOGNISED = {
    "householder": (lambda: Householder(4, order=2), (4, 2, 2)),
    "curve": (lambda: CurvePool2d(4), (4, 2, 2)),
    "projection": (lambda: ProjectionPool2d(4), (4, 2, 2)),
    "fourier": (
        lambda: FixedFourierConv2d(
            torch.randn(4, 3, 2, 3, dtype=torch.cfloat), torch.ones(2), image_size=4
        ),
        (3, 4, 4),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("build", "shape"), RECOGNISED.values(), ids=RECOGNISED)
def test_in_a_network_twice(build, shape, dynamic):
    torch.manual_seed(0)
    layer = build().eval()
    channels = layer(torch.zeros(1, *shape)).shape[1]
    back = nn.Conv2d(channels, shape[0], 1)
    model = onelip.export(nn.Sequential(nn.Conv2d(2, shape[0], 1), layer, back, build().eval()))
    shape = (2, *shape[1:])
    own = float(Product().bound(read(model, shape)))
    assert float(
        Product().bound(read_program(saved(model, shape, dynamic=dynamic)))
    ) == pytest.approx(own)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RECOGNISED)
def test_an_impostor_is_not_believed(name):
    """The same class name, the same numbers, one operator more: no proof of the layer's is used."""
    build, shape = RECOGNISED[name]
    torch.manual_seed(0)
    layer = build().eval()
    kind = type(layer)
    impostor = type(
        kind.__name__, (kind,), {"forward": lambda self, x: kind.forward(self, 1.5 * x) * 2}
    )
    impostor.__module__ = kind.__module__
    layer.__class__ = impostor
    program = saved(nn.Sequential(layer).eval(), shape, dynamic=False)
    with pytest.raises(onelip.errors.OnelipError):
        read_program(program)


@pytest.mark.filterwarnings("ignore")
def test_another_number_in_the_graph_is_seen():
    """What the layer computes from its angles is a constant of the file here, and changed."""
    layer = Householder(2, order=2).eval()
    program = torch.export.export(nn.Sequential(layer), (torch.zeros(1, 2),))
    for node in program.graph.nodes:
        if str(node.target) == "aten.mul.Tensor" and node.args[1] == 2:
            node.args = (node.args[0], 3)
    with pytest.raises(onelip.errors.OnelipError):
        read_program(program)


@pytest.mark.filterwarnings("ignore")
def test_a_layer_whose_inside_is_used_elsewhere():
    """A number of the layer's own that leaves it keeps the nodes apart."""

    class Leaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.fold = Householder(2)

        def forward(self, x):
            return self.fold(x) + self.fold(x)

    model = Leaks().eval().requires_grad_(False)
    chain = read_program(torch.export.export(model, (torch.zeros(1, 2),)))
    x = torch.randn(20, 2, dtype=torch.float64)
    assert torch.allclose(chain.exact().forward(x), model.double()(x))
    assert float(Product().bound(chain)) >= max(float(jacobian_norm(model, point)) for point in x)


def test_repeated_numbers():
    index = torch.tensor([0, 2, 2, -1, 1, 2])
    linear = taking((3,), (6,), index)
    assert isinstance(linear, Repeat)
    matrix = linear(torch.eye(3, dtype=torch.float64)).T
    assert torch.equal(linear.adjoint(torch.eye(6, dtype=torch.float64)), matrix)
    assert float(linear.norm()) == pytest.approx(3**0.5)
    assert float(linear.norm()) >= float(torch.linalg.matrix_norm(matrix, 2))


class Steps(nn.Module):
    """``x - step v relu(v.x)`` written on halves, as a Householder reflection is."""

    def __init__(self, step: float, back: float = 1.0):
        super().__init__()
        self.step, self.back = step, back
        angles = torch.tensor([0.3, 1.1])
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x):
        a, b = x.chunk(2, 1)
        twice = self.step * (self.sin * a - self.cos * b).clamp(max=0)
        return torch.cat([a - self.sin * twice, b + self.back * self.cos * twice], 1)


@pytest.mark.parametrize(
    ("step", "back", "tight"),
    [(2.0, 1.0, True), (1.0, 1.0, True), (4.0, 1.0, True), (2.0, 1.5, False), (2.0, -1.0, False)],
)
def test_reflections_on_halves(step, back, tight):
    torch.manual_seed(0)
    model = Steps(step, back).double().eval()
    chain = read_program(torch.export.export(model, (torch.zeros(1, 4).double(),)))
    x = torch.randn(200, 4, dtype=torch.float64)
    assert torch.allclose(chain.exact().forward(x), model(x), atol=1e-12)
    bound = float(Product().bound(chain))
    assert bound >= max(float(jacobian_norm(model, point)) for point in x) * (1 - 1e-9)
    if tight:
        assert bound == pytest.approx(max(1.0, step - 1), rel=1e-6)
    else:
        assert bound > 2
