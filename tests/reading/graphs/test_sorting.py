"""Maxima, minima and sorting in files: the constant is that of sorting, 1."""

import contextlib
import io
from pathlib import Path

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.bounds import ECLipsE, LipLT, Product
from onelip.errors import UnboundedModuleError
from onelip.layers import GroupSort, MaxMin
from onelip.reading import load, read, read_program
from onelip.testing import jacobian_norm
from tests.reading.checks import traced

ACTIVATIONS = {
    "max-min": (MaxMin(), (4, 3, 3)),
    "max-min-dense": (MaxMin(), (6,)),
    "group-sort": (GroupSort(3), (6, 2)),
    "group-sort-all": (GroupSort(5), (5,)),
    "channel-max": (layers.ChannelMaxPool(), (4, 2, 2)),
}


def dense(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 6), activation, nn.Linear(6, 3))


def file_of(model: nn.Module, shape: tuple[int, ...], kind: str, folder: Path) -> Path:
    path, x = folder / f"network.{kind}", torch.zeros(1, *shape)
    if kind == "pt2":
        torch.export.save(torch.export.export(model, (x,)), path)
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(model, (x,), path, dynamo=False)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
@pytest.mark.parametrize(("activation", "shape"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activations_in_files(activation, shape, kind, tmp_path: Path):
    if kind == "onnx" and isinstance(activation, GroupSort):
        pytest.skip("TopK of ONNX is not read")
    model = nn.Sequential(activation).eval()
    chain = load(file_of(model, shape, kind, tmp_path))
    x = torch.randn(7, *shape, dtype=torch.float64)
    assert torch.equal(chain.exact().forward(x), model(x))
    assert float(Product().bound(chain)) == pytest.approx(1, abs=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_networks_have_the_bounds_of_the_run(kind, tmp_path: Path):
    for model, shape in (
        (dense(MaxMin()), (4,)),
        (
            nn.Sequential(
                layers.BCOPConv2d(2, 4, 3, padding_mode="zeros"),
                MaxMin(),
                layers.InvertibleDownsampling(2),
                layers.AOCConv2d(16, 8, 1),
                MaxMin(),
                nn.Flatten(),
                layers.UnitNormLinear(32, 3),
            ),
            (2, 4, 4),
        ),
    ):
        exported = onelip.export(model.eval())
        found, expected = load(file_of(exported, shape, kind, tmp_path)), read(exported, shape)
        x = torch.randn(5, *shape, dtype=torch.float64)
        assert torch.allclose(
            found.exact().forward(x), expected.exact().forward(x), rtol=1e-5, atol=1e-5
        )
        for method in (Product(), LipLT(), ECLipsE(fast=True)):
            if isinstance(method, ECLipsE) and len(shape) > 1:
                continue
            assert float(method.bound(found)) == pytest.approx(
                float(method.bound(expected)), rel=1e-6
            )


class ByHand(nn.Module):
    """Other maxima and minima than those of ``MaxMin``."""

    def __init__(self, which: str) -> None:
        super().__init__()
        self.which, self.linear = which, nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        a, b = y.chunk(2, 1)
        if self.which == "halves":
            return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], 1)
        if self.which == "itself":
            return torch.maximum(y, y.flip(1))
        if self.which == "input":
            return torch.maximum(x, y) + torch.minimum(y, x)
        if self.which == "split":
            return torch.maximum(*torch.split(y, [2, 2], 1))
        if self.which == "twice":
            return torch.cat([torch.maximum(a, b), torch.maximum(a, b)], 1)
        return y.sort(dim=1, descending=True).values


@pytest.mark.parametrize("which", ["halves", "itself", "input", "split", "twice", "descending"])
def test_written_by_hand(which):
    """The chain computes the same, and its bound holds against Jacobians at random points."""
    torch.manual_seed(1)
    module = ByHand(which).double().eval().requires_grad_(False)
    x = torch.randn(30, 4, dtype=torch.float64)
    chain = read_program(torch.export.export(module, (x[:1],)))
    assert torch.allclose(chain.exact().forward(x), module(x), atol=1e-12)
    bound = min(float(Product().bound(chain)), float(LipLT().bound(chain)))
    assert max(float(jacobian_norm(module, point)) for point in x) <= bound * (1 + 1e-9)
    if which in ("halves", "descending", "split"):
        norm = float(torch.linalg.matrix_norm(module.linear.weight, 2))
        assert bound <= norm * (1 + 1e-7)


def test_what_is_not_known_says_so():
    class Places(nn.Module):
        def forward(self, x):
            return x.sort(dim=1).indices.to(x.dtype)

    program = torch.export.export(Places().eval(), (torch.zeros(1, 4),))
    with pytest.raises(Exception, match=r"onelip|node|input"):
        read_program(program)


def test_numbers_without_an_order():
    with pytest.raises(UnboundedModuleError, match="sorted=False"):
        traced(lambda x: torch.topk(x, 3, dim=1, sorted=False)[0])
    for largest in (True, False):
        found = traced(lambda x, largest=largest: torch.topk(x, 2, 1, largest)[0])
        assert float(Product().bound(found)) == pytest.approx(1)
    with pytest.raises(UnboundedModuleError, match="within each input"):
        traced(lambda x: torch.linalg.vector_norm(x, dim=[]))
