"""Convolutions of volumes: linear maps of a chain, as modules, operators and files."""

import io

import pytest
import torch
from torch import nn

from onelip.bounds import LipLT, Product
from onelip.lipschitz import lipschitz_bound
from onelip.reading import read, read_program
from tests.oracles import matrix_of, sigma_max

SHAPE = (2, 4, 5, 3)
SETTINGS = {
    "plain": {},
    "padded": {"padding": 1},
    "same": {"padding": "same"},
    "strided": {"stride": 2, "padding": (0, 1, 2)},
    "dilated": {"dilation": (1, 2, 2), "padding": 2},
    "groups": {"groups": 2, "padding": 1},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kernel", [2, (1, 2, 3)], ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_one_layer_is_its_matrix(name, kernel):
    """Each is exact on volumes of a size, where the module's own bound holds for all sizes."""
    model = nn.Conv3d(2, 4, kernel, **SETTINGS[name]).double().eval().requires_grad_(False)
    exact, x = sigma_max(matrix_of(model, SHAPE)), torch.randn(3, *SHAPE).double()
    program = torch.export.export(model, (x[:1],))
    for chain in (read(model, SHAPE), read_program(program), decomposed(program)):
        assert torch.allclose(chain.exact().forward(x), model(x))
        bound = float(Product().bound(chain))
        assert exact <= bound <= exact * (1 + 1e-6)
    assert bound <= float(lipschitz_bound(model)) * (1 + 1e-9)


def decomposed(program):
    """The program in core operators, which know one convolution only, from a file."""
    file = io.BytesIO()
    torch.export.save(program.run_decompositions(), file)
    file.seek(0)
    return read_program(torch.export.load(file))


def test_what_wraps_or_reflects_has_the_bound_of_every_size():
    for mode in ("circular", "reflect", "replicate"):
        model = nn.Conv3d(2, 3, 3, padding=1, padding_mode=mode).double().eval()
        chain, x = read(model, SHAPE), torch.randn(2, *SHAPE).double()
        assert torch.allclose(chain.forward(x), model(x))
        assert float(Product().bound(chain)) == pytest.approx(float(lipschitz_bound(model)))


def test_networks_of_volumes_are_multiplied_out():
    """LipLT sees the products of layers, which an opaque layer hid."""
    parts = [nn.Conv3d(1, 2, 2), nn.LeakyReLU(0.9), nn.Conv3d(2, 1, 2), nn.Flatten()]
    model = nn.Sequential(*parts).double().eval()
    chain = read(model, (1, 4, 3, 3))
    assert float(LipLT().bound(chain)) < 0.95 * float(Product().bound(chain))
    x = torch.randn(5, 1, 4, 3, 3).double()
    jacobians = torch.func.vmap(torch.func.jacrev(model))(x[:, None])
    largest = torch.linalg.matrix_norm(jacobians.flatten(3).flatten(1, 2), 2).max()
    assert float(largest) <= float(LipLT().bound(chain))
