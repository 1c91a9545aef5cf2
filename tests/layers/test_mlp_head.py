"""The head with one hidden layer: what it computes, refuses and exports."""

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import UnboundedModuleError
from onelip.models import cpl_digits, lip_convnet, mnist_dense, simple_convnet
from onelip.reading import read


def test_it_is_two_linear_layers_and_softplus():
    torch.manual_seed(0)
    head = layers.MLPHead(4, 3, hidden=6).double()
    x = torch.randn(5, 4).double()
    hidden = torch.log1p(torch.exp(x @ head.inner.weight.T + head.inner.bias))
    torch.testing.assert_close(head(x), hidden @ head.outer.weight.T + head.outer.bias)
    assert layers.MLPHead(8, 2).inner.out_features == 4096


def test_it_is_exported_to_torch_modules():
    head = layers.MLPHead(4, 3, hidden=6, activation=nn.Tanh())
    plain = onelip.export(nn.Sequential(head))
    assert [type(part) for part in plain[0]] == [nn.Linear, nn.Tanh, nn.Linear]
    x = torch.randn(5, 4)
    assert torch.equal(plain(x), head(x))


def test_activations_with_a_kink_are_refused():
    with pytest.raises(UnboundedModuleError, match="second derivative of ReLU"):
        layers.MLPHead(4, 3, activation=nn.ReLU())


def test_it_is_read_as_a_block():
    torch.manual_seed(0)
    head = layers.MLPHead(4, 3, hidden=6)
    chain = read(nn.Sequential(nn.Flatten(), head), (1, 2, 2))
    assert len(chain.blocks) == 1
    assert float(onelip.bounds.LipLT().bound(chain)) < float(onelip.lipschitz_bound(head))
    x = torch.randn(5, 1, 2, 2)
    torch.testing.assert_close(chain.forward(x), head(x.flatten(1)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: mnist_dense((1, 28, 28), 10, features=(32,), head="mlp", hidden=16),
        lambda: cpl_digits((1, 8, 8), 10, head="mlp", hidden=16),
        lambda: lip_convnet((3, 32, 32), 10, channels=2, head="mlp", hidden=16),
        lambda: simple_convnet((3, 32, 32), 10, depth=1, width=4, head="mlp", hidden=16),
    ],
)
def test_networks_end_in_it(build):
    head = build()[-1]
    assert type(head) is layers.MLPHead
    assert head.inner.out_features == 16


def test_networks_end_in_any_matrix():
    assert type(cpl_digits((1, 8, 8), 10, head="linear")[-1]) is nn.Linear


def test_parts_are_called_in_their_order_whatever_was_assigned_last():
    torch.manual_seed(0)
    head = layers.MLPHead(4, 4, hidden=4)
    del head.activation
    head.activation = nn.Tanh()
    head.outer = head.inner
    x = torch.randn(5, 4)
    exported = onelip.export(head)
    torch.testing.assert_close(exported(x), head(x))
    assert len(exported) == 3
    torch.testing.assert_close(read(nn.Sequential(head), (4,)).forward(x), head(x))


def test_a_part_that_is_no_linear_layer_of_torch_is_refused():
    class Ten(nn.Linear):
        def forward(self, x):
            return 10 * super().forward(x)

    head = layers.MLPHead(4, 3, hidden=8)
    head.inner = Ten(4, 8)
    with pytest.raises(UnboundedModuleError, match="Ten"):
        onelip.lipschitz_bound(head)
