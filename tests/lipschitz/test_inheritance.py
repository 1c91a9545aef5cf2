"""A class does not inherit a proof that was written for another."""

import pytest
from torch import nn

import onelip
from onelip import lipschitz_bound
from onelip.errors import UnboundedModuleError
from onelip.lipschitz import LipschitzModule


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_the_contract_is_abstract():
    with pytest.raises(TypeError, match="lipschitz_bound"):
        LipschitzModule()


def test_a_forward_written_later_does_not_inherit_a_proof():
    class Doubled(onelip.layers.MaxMin):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(UnboundedModuleError, match="inherits lipschitz_bound from MaxMin"):
        lipschitz_bound(Doubled())


@pytest.mark.parametrize("name", ["inner", "adjoint", "step", "norm_bound", "forward"])
def test_a_layer_is_final(name):
    kind = onelip.layers.ConvexPotentialLinear
    derived = type("Derived", (kind,), {name: lambda self, *a: 5 * getattr(kind, name)(self, *a)})
    layer = derived(4, 4) if name != "step" else derived(4, 4, step=1.0)
    with pytest.raises(UnboundedModuleError, match="Derived inherits lipschitz_bound"):
        lipschitz_bound(layer.eval())
