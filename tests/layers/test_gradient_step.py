"""Gradient steps of plain modules."""

import pytest
import torch
from torch import nn

import onelip
from onelip import layers, norms
from onelip.bounds import LipLT, Product
from onelip.errors import UnboundedModuleError
from onelip.layers.gradient_step import GradientStep, norm_bound_once_rounded
from onelip.reading import read
from tests.oracles import matrix_of, sampled, sigma_max


def test_room_for_taps_that_are_all_rounded_upwards():
    """A kernel of 81 equal taps: each is off by the same, and the norm by 81 times that."""
    kernel = torch.full((1, 1, 9, 9), 1 + 2**-24 + 2**-40, dtype=torch.float64)
    rounded = kernel.float()
    assert (rounded > kernel).all()
    room = norm_bound_once_rounded(kernel, (10, 10), "circular", torch.float32)
    norm = norms.convolution(rounded, image_size=(10, 10), padding=4, padding_mode="circular")
    assert float(norm) <= float(room) <= float(norm) * (1 + 1e-6)


def test_the_identity_between_two_maps_is_a_block_of_its_own(each):
    """Not the block of the activation before, which may have maps of the same shape."""
    same = nn.Identity()
    steps = [
        layers.ConvexPotentialLinear(3, 3, activation=same),
        layers.SLLLinear(3, 3, activation=same),
        layers.SandwichLinear(3, 3, activation=same),
        layers.GradientStep(torch.randn(3, 3), torch.randn(3), same, torch.tensor(0.1)),
    ]
    for step in each(steps):
        network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), step).double().eval()
        for model in (network, nn.Sequential(step)):
            chain, x = read(model, (3,)), torch.randn(5, 3, dtype=torch.float64)
            torch.testing.assert_close(chain.forward(x), model(x))
            for method in (Product(any_size=False), LipLT()):
                assert sampled(chain) <= float(method.bound(chain.exact()))
        bound = float(Product(any_size=False).bound(read(step, (3,)).exact()))
        assert sigma_max(matrix_of(step, (3,))) <= bound * (1 + 1e-14)


def test_reflected_pixels_have_no_adjoint_that_is_a_convolution():
    """Their norm is known, but ``outer`` would not be the adjoint that the proof rests on."""
    layer = GradientStep(
        torch.randn(2, 2, 3, 3), torch.zeros(2), nn.ReLU(), None, padding_mode="reflect"
    )
    assert norms.conv2d(layer.inner.weight, padding=1, padding_mode="reflect").isfinite()
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        onelip.lipschitz_bound(layer)
