"""Values, and ways through a network that meet."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelip.chains import Chain, Dense, Elementwise, Opaque
from onelip.chains.linear_layers import dense, reshaped, shifted
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.lipschitz.torch_modules import elementwise
from onelip.reading.graphs.branches import Ways, added
from tests.reading.checks import check, norm, opaque, traced

Step = Callable[[Value], Value]


class Net:
    """Layers that are read and computed side by side."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.steps: list[tuple[str, tuple]] = []

    def draw(self, most: int) -> int:
        return int(torch.randint(most, (), generator=self.generator))

    def matrix(self, rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, dtype=torch.float64, generator=self.generator)


def _random_graph(seed: int) -> tuple[Chain, Callable[[Tensor], Tensor]]:
    """Linear maps, activations, sums and shifts of results drawn from all earlier ones."""
    net = Net(seed)
    like = torch.empty((), dtype=torch.float64)
    values = [Value.entering((3,), like)]
    functions: list[Callable[[Tensor], Tensor]] = [lambda x: x]
    modules = (nn.ReLU(), nn.Tanh(), nn.LeakyReLU(-0.5))
    for _ in range(4 + net.draw(8)):
        i, j = net.draw(len(values)), net.draw(len(values))
        kind = net.draw(4)
        if kind == 0:
            weight, bias = net.matrix(3, 3), net.matrix(1, 3)[0]
            values.append(dense(values[i], weight, bias))
            functions.append(lambda x, f=functions[i], w=weight, b=bias: f(x) @ w.T + b)
        elif kind == 1:
            module = modules[net.draw(3)]
            values.append(elementwise(module, values[i]))
            functions.append(lambda x, f=functions[i], m=module: m(f(x)))
        elif kind == 2:
            values.append(added(values[i], values[j]))
            functions.append(lambda x, f=functions[i], g=functions[j]: f(x) + g(x))
        else:
            shift = net.matrix(1, 3)[0]
            values.append(shifted(values[i], shift))
            functions.append(lambda x, f=functions[i], s=shift: f(x) + s)
    return values[-1].chain(), functions[-1]


def test_random_graphs(each) -> None:
    for seed in each(range(300)):
        chain, function = _random_graph(seed)
        check(chain, function, (3,))


@pytest.fixture
def x() -> Value:
    return Value.entering((3,), torch.empty((), dtype=torch.float64))


def _layers(seed: int, count: int) -> list[nn.Linear]:
    torch.manual_seed(seed)
    return [nn.Linear(3, 3).double() for _ in range(count)]


def _put(value: Value, layer: nn.Linear) -> Value:
    return dense(value, layer.weight, layer.bias)


def test_one_hidden_layer_is_a_block(x: Value) -> None:
    first, second, third = _layers(0, 3)
    branch = _put(elementwise(nn.ReLU(), _put(x, first)), second)
    chain = added(_put(x, third), branch).chain()
    check(chain, lambda y: third(y) + second(first(y).relu()), (3,))
    (block,) = chain.blocks
    assert isinstance(block.skip, Dense)
    assert isinstance(block.outer, Dense)
    assert isinstance(block.nonlinearity, Elementwise)
    assert block.skip.weight is third.weight


def test_activation_behind_the_sum(x: Value) -> None:
    first, second = _layers(1, 2)
    branch = _put(elementwise(nn.ReLU(), _put(x, first)), second)
    chain = elementwise(nn.ReLU(), added(branch, x)).chain()
    check(chain, lambda y: (y + second(first(y).relu())).relu(), (3,))
    assert [block.skip is None for block in chain.blocks] == [False, True]
    assert opaque(chain) == []


def test_more_hidden_layers_are_one_of_which_the_bound_is_known(x: Value) -> None:
    first, second, third, fourth = _layers(2, 4)
    hidden = elementwise(nn.ReLU(), _put(elementwise(nn.Tanh(), _put(x, first)), second))
    branch = _put(elementwise(nn.ReLU(), _put(hidden, third)), fourth)
    chain = added(x, branch).chain()
    check(chain, lambda y: y + fourth(third(second(first(y).tanh()).relu()).relu()), (3,))
    (block,) = chain.blocks
    assert isinstance(block.nonlinearity, Opaque)
    assert isinstance(block.inner, Dense)
    assert isinstance(block.outer, Dense)
    expected = norm(Dense(second.weight).exact()) * norm(Dense(third.weight).exact())
    assert block.nonlinearity.constant == pytest.approx(expected, rel=1e-9)
    assert block.nonlinearity.constant >= expected * (1 - 1e-14)


def test_blocks_within_a_block(x: Value) -> None:
    first, second, third, fourth = _layers(3, 4)
    inside = added(x, _put(elementwise(nn.ReLU(), _put(x, first)), second))
    chain = added(x, _put(inside, third)).chain()
    check(chain, lambda y: y + third(y + second(first(y).relu())), (3,))
    assert len(chain.blocks) == 1
    outside = added(x, _put(elementwise(nn.ReLU(), inside), fourth)).chain()
    check(outside, lambda y: y + fourth((y + second(first(y).relu())).relu()), (3,))
    assert opaque(outside) == ["Ways"]


def test_two_ways_with_nonlinearities(x: Value) -> None:
    first, second, third, fourth = _layers(4, 4)
    left = _put(elementwise(nn.ReLU(), _put(x, first)), second)
    right = _put(elementwise(nn.Tanh(), _put(x, third)), fourth)
    chain = elementwise(nn.ReLU(), added(left, right)).chain()
    check(chain, lambda y: (second(first(y).relu()) + fourth(third(y).tanh())).relu(), (3,))
    expected = sum(
        norm(Dense(a.weight).exact()) * norm(Dense(b.weight).exact())
        for a, b in ((first, second), (third, fourth))
    )
    assert chain.blocks[0].nonlinearity.constant == pytest.approx(expected, rel=1e-9)


def test_two_maps_of_one_hidden_layer_are_one_map(x: Value) -> None:
    first, second, third = _layers(5, 3)
    hidden = elementwise(nn.ReLU(), _put(x, first))
    chain = added(_put(hidden, second), _put(hidden, third)).chain()
    check(chain, lambda y: second(first(y).relu()) + third(first(y).relu()), (3,))
    assert chain.plain


def test_branches_compute_in_the_dtype_of_their_input(x: Value) -> None:
    first, second = _layers(6, 2)
    way = elementwise(nn.ReLU(), _put(elementwise(nn.ReLU(), _put(x, first)), second)).chain()
    ways = Ways(way)
    y = torch.randn(2, 3, requires_grad=True)
    assert ways(y).dtype == torch.float32
    ways(y).sum().backward()
    assert y.grad is not None


def test_a_thousand_layers(x: Value) -> None:
    value = x
    for _ in range(2000):
        value = elementwise(nn.ReLU(), value)
    assert len(added(value, x).chain().blocks) == 1


def test_shapes_that_differ(x: Value) -> None:
    with pytest.raises(UsageError, match=r"\(3,\) and \(1, 3\)"):
        added(x, reshaped(x, (1, 3)))


def test_shifts_go_into_the_layer_in_front(x: Value) -> None:
    (layer,) = _layers(7, 1)
    value = shifted(dense(x, layer.weight, None), torch.ones(3).double())
    (linear,) = value.maps
    assert isinstance(linear, Dense)
    assert torch.equal(linear.bias, torch.ones(3))


def test_a_bias_is_added_once():
    """The skip of a block around a transposed convolution that has one."""
    up = nn.ConvTranspose2d(2, 2, 3, padding=1)
    traced(lambda x, up: up(x + F.relu(x)) + x, up, shape=(2, 4, 4))
