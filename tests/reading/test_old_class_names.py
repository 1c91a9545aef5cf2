"""Program files name the classes of layers: those written under an old name are still read."""

import pytest
import torch
from torch import nn

import onelip
from onelip.bounds import Product
from onelip.errors import UnboundedModuleError
from onelip.layers import Householder
from onelip.reading import read, read_program


def renamed(program: torch.export.ExportedProgram, old: str) -> torch.export.ExportedProgram:
    """The program as it was traced when the layer had the old name."""
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        node.meta["nn_module_stack"] = {
            key: (path, str(kind).replace("Householder", old))
            for key, (path, kind) in stack.items()
        }
    return program


@pytest.fixture
def model():
    torch.manual_seed(0)
    return onelip.export(nn.Sequential(nn.Linear(4, 4), Householder(4, order=2)).eval())


def traced(model: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(model, (torch.zeros(1, 4),))


@pytest.mark.parametrize("name", ["Householder", "HouseHolder"])
def test_householder(model, name):
    found = read_program(renamed(traced(model), name))
    assert float(Product().bound(found)) == pytest.approx(float(Product().bound(read(model, (4,)))))


def test_another_name_is_no_hint(model):
    with pytest.raises(UnboundedModuleError, match="atan2"):
        read_program(renamed(traced(model), "Fold"))
