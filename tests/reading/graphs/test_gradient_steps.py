"""Gradient steps in files have the constant that their layers prove; what only looks like one, not.

A Convex Potential network was 1.316 as a run and 12.14 as a ``.pt2`` file.
"""

import contextlib
import io
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import onelip
from onelip import layers
from onelip.bounds import LipLT, Product
from onelip.chains import Chain
from onelip.reading import load, read, read_program
from onelip.testing import jacobian_norm
from tests.reading.checks import traced

CONV, DENSE = (2, 4, 4), (4,)
NETWORKS = {
    "dense": (lambda: [layers.ConvexPotentialLinear(4, 6)], DENSE),
    "narrow": (lambda: [layers.ConvexPotentialLinear(4, 2)], DENSE),
    "tanh": (lambda: [layers.ConvexPotentialLinear(4, 6, activation=nn.Tanh())], DENSE),
    "elu": (lambda: [layers.ConvexPotentialLinear(4, 3, activation=nn.ELU(1.5))], DENSE),
    "prelu": (lambda: [layers.ConvexPotentialLinear(4, 3, activation=nn.PReLU())], DENSE),
    "relaxed": (lambda: [layers.ConvexPotentialLinear(4, 6, step=3.0)], DENSE),
    "zeros": (lambda: [layers.ConvexPotentialConv2d(2, 3, image_size=4)], CONV),
    "circular": (
        lambda: [layers.ConvexPotentialConv2d(2, 3, image_size=4, padding_mode="circular")],
        CONV,
    ),
    "5x5": (lambda: [layers.ConvexPotentialConv2d(2, 3, 5, image_size=4)], CONV),
    "1x1": (lambda: [layers.ConvexPotentialConv2d(2, 3, 1, image_size=4)], CONV),
    "sll": (lambda: [nn.Linear(4, 5), layers.SLLLinear(5, 7)], DENSE),
    "sll-conv": (lambda: [layers.SLLConv2d(2, 3, image_size=4)], CONV),
    "network": (
        lambda: [
            layers.Normalize([0.1, 0.2], [0.3, 0.2]),
            layers.ZeroPadChannels(3),
            *(layers.ConvexPotentialConv2d(3, 4, image_size=4) for _ in range(2)),
            layers.ScaledAvgPool2d(2),
            nn.Flatten(),
            layers.ConvexPotentialLinear(12, 6),
            layers.UnitNormLinear(12, 3),
        ],
        CONV,
    ),
}


def exported(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    build, shape = NETWORKS[name]
    return onelip.export(nn.Sequential(*build()).eval()), shape


def same_bounds(found: Chain, expected: Chain) -> None:
    x = torch.randn(3, *expected.inputs, dtype=torch.float64)
    assert torch.allclose(
        found.exact().forward(x), expected.exact().forward(x), rtol=1e-6, atol=1e-6
    )
    assert float(Product().bound(found)) == pytest.approx(
        float(Product().bound(expected)), rel=1e-6
    )
    assert float(LipLT().bound(found)) == pytest.approx(float(LipLT().bound(expected)), rel=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_has_the_bounds_of_the_network(name, tmp_path: Path):
    model, shape = exported(name)
    path = tmp_path / "network.pt2"
    torch.export.save(torch.export.export(model, (torch.zeros(1, *shape),)), path)
    same_bounds(load(path), read(model, shape))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_an_onnx_file_has_the_bounds_of_the_network(name, tmp_path: Path):
    model, shape = exported(name)
    path = tmp_path / "network.onnx"
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(model, (torch.zeros(1, *shape),), path, dynamo=False)
    if name == "circular":  # its padding is slices and concatenations there, which are not undone
        assert float(Product().bound(load(path))) >= float(Product().bound(read(model, shape)))
        return
    same_bounds(load(path), read(model, shape))


class Step(nn.Module):
    """``x - step V s(W x)``, written by hand."""

    def __init__(self, inner: nn.Module, outer: nn.Module, activation: nn.Module, step: float):
        super().__init__()
        self.inner, self.outer, self.activation, self.step = inner, outer, activation, step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.step * self.outer(self.activation(self.inner(x)))


def chain_of(module: nn.Module, shape: tuple[int, ...]) -> Chain:
    module = module.double().eval().requires_grad_(False)
    x = torch.zeros(1, *shape, dtype=torch.float64)
    return read_program(torch.export.export(module, (x,)))


def dense(step: float, activation: nn.Module | None = None) -> Step:
    inner, outer = nn.Linear(4, 6), nn.Linear(6, 4)
    outer.weight.data = inner.weight.data.T.clone()
    return Step(inner, outer, activation or nn.ReLU(), step)


@pytest.mark.parametrize("step", [0.5, 2.0, 5.0, -1.0])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.LeakyReLU(2.0)], ids=repr)
def test_steps_written_by_hand_are_bounded(step, activation):
    """Too long, backwards, and along functions that are not convex: from the same formula."""
    module = dense(step, activation)
    bound = float(Product().bound(chain_of(module, DENSE)))
    norm = float(torch.linalg.matrix_norm(module.inner.weight.double(), 2))
    assert bound <= (1 + abs(step) * norm**2 * 2) * (1 + 1e-9)
    for x in torch.randn(20, 4, dtype=torch.float64):
        assert float(jacobian_norm(module, x)) <= bound * (1 + 1e-9)


def _one_number_off(module: Step) -> None:
    module.outer.weight.data[1, 2] += 1e-6


def _twice(module: Step) -> None:
    module.outer.weight.data *= 2


def _other_padding(module: Step) -> None:
    module.outer.padding_mode = "circular"


def _strided(module: Step) -> None:
    module.inner.weight.data = module.inner.weight.data.flip(2)


def convolutional() -> Step:
    inner, outer = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)
    outer.weight.data = inner.weight.data.flip(2, 3).transpose(0, 1).clone()
    return Step(inner, outer, nn.ReLU(), 0.1)


@pytest.mark.parametrize(
    ("build", "shape", "change"),
    [
        (lambda: dense(0.5), DENSE, _one_number_off),
        (lambda: dense(0.5), DENSE, _twice),
        (convolutional, CONV, _strided),
        (convolutional, CONV, _other_padding),
    ],
    ids=["one number off", "twice the adjoint", "not mirrored", "another padding"],
)
def test_what_only_looks_like_a_step_keeps_the_sum_of_both_ways(build, shape, change):
    module = build()
    assert float(Product().bound(chain_of(module, shape))) == pytest.approx(1)
    change(module)
    assert float(Product().bound(chain_of(module, shape))) > 1.05


def test_both_ways_must_begin_alike():
    """``A x - W^T s(W B x)`` is no step, even if A and B have the same shape."""

    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.step = nn.Linear(4, 4), nn.Linear(4, 4), dense(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = self.step.activation(self.step.inner(self.second(x)))
            return self.first(x) - 0.5 * self.step.outer(inner)

    module = Apart()
    bound = float(Product().bound(chain_of(module, DENSE)))
    first = float(torch.linalg.matrix_norm(module.first.weight, 2))
    assert bound > first * 1.05
    for x in torch.randn(20, 4, dtype=torch.float64):
        assert float(jacobian_norm(module, x)) <= bound * (1 + 1e-9)


def test_factors_that_float32_rounds():
    """2.2 is 2.2000000477 where the network runs."""
    single = float(torch.tensor(2.2))
    for method in (Product().bound, LipLT().bound):
        assert float(method(traced(lambda x: 2.2 * x, dtype=torch.float32))) >= single
        step = traced(lambda x: x - 2.2 * F.relu(x), dtype=torch.float32)
        assert single - 1 <= float(method(step)) <= single - 1 + 1e-5
