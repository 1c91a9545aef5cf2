"""Critics: shapes, constants, borders, and the network of BCOP's Table 4."""

import pytest
import torch
from torch import nn

import onelip
from onelip.errors import UsageError
from onelip.models import dcgan_critic, dense_critic
from onelip.models.families import CONVOLUTIONS


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 13, 10)])
def test_critics_of_every_family_have_one_output_and_a_constant(convolution, shape):
    critic = dcgan_critic(shape, (4, 6), convolution=convolution)
    assert critic(torch.rand(2, *shape)).shape == (2, 1)
    assert float(onelip.lipschitz_bound(onelip.export(critic))) < 1.5


def test_orthogonal_critics_have_gradients_of_length_one():
    torch.manual_seed(0)
    critic = dcgan_critic((1, 16, 16), (4, 8)).double()
    x = torch.rand(4, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x)
    assert gradient.flatten(1).norm(dim=1) == pytest.approx(torch.ones(4).double(), abs=1e-6)


def test_borders_are_at_both_sides():
    critic = dcgan_critic((1, 28, 28))
    assert isinstance(critic[0], nn.ZeroPad2d)
    assert critic[0].padding == (2, 2, 2, 2)
    assert dcgan_critic((1, 7, 8), (4, 4))[0].padding == (0, 0, 0, 1)


def test_the_critic_of_table_4():
    critic = dcgan_critic((3, 64, 64), (64, 128, 256, 512), convolution="rko")
    assert critic[-1].in_features == 8192


def test_images_that_vanish_are_refused():
    with pytest.raises(UsageError, match="leave nothing of 4 x 9"):
        dcgan_critic((1, 4, 9), (4, 4, 4))


def test_dense_critics_without_hidden_layers_are_linear():
    critic = dense_critic(5, ())
    x = torch.rand(3, 5)
    assert critic(2 * x).allclose(2 * critic(x) - critic(torch.zeros(1, 5)), atol=1e-5)


def test_unknown_families_are_refused():
    with pytest.raises(UsageError, match="no linear 'x'"):
        dense_critic(5, linear="x")
