"""Every entry of every activation's record, against the activation itself."""

import math

import pytest
import torch
from torch import nn

from onelip.activations import ACTIVATIONS, primitive
from onelip.forward_error import Arithmetic, Computed
from onelip.layers import Abs
from onelip.lipschitz import lipschitz_bound, through

KINDS = list(ACTIVATIONS)
INPUTS = {
    "normal": torch.randn(4000, generator=torch.Generator().manual_seed(0)),
    "small": 1e-3 * torch.randn(4000, generator=torch.Generator().manual_seed(1)),
    "large": 60 * torch.randn(4000, generator=torch.Generator().manual_seed(2)),
    "kinks": torch.cat([torch.linspace(-7, 7, 2801), torch.tensor([-1e-30, 1e-30, 0.0, -0.0])]),
    "tiny": torch.tensor([1e-38, -1e-38, 3e-42, -3e-42]),
    "huge": torch.tensor([1e4, -1e4, 3e5, -3e5]),
}


def of_all(kind: type[nn.Module]) -> list[nn.Module]:
    """The activation with its own settings, and with others."""
    others = {
        nn.PReLU: [nn.PReLU(init=0.3)],
        nn.LeakyReLU: [nn.LeakyReLU(0.3), nn.LeakyReLU(2.0)],
        nn.ELU: [nn.ELU(0.3), nn.ELU(2.5)],
        nn.CELU: [nn.CELU(0.3), nn.CELU(2.5)],
        nn.GELU: [nn.GELU(approximate="tanh")],
        nn.Hardtanh: [nn.Hardtanh(-0.3, 0.1), nn.Hardtanh(0.5, 2.0), nn.Hardtanh(-math.inf, 1.0)],
        nn.Softplus: [nn.Softplus(beta=0.3), nn.Softplus(beta=4.0)],
        nn.Softshrink: [nn.Softshrink(0.1), nn.Softshrink(0.0)],
    }
    return [kind(), *others.get(kind, [])]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_rounding_in_single_precision_is_above_its_bound(kind):
    arithmetic = Arithmetic.of(torch.float32)
    for module in of_all(kind):
        for name, x in INPUTS.items():
            with torch.no_grad():
                single, wide = module(x[None].clone()), module.double()(x[None].double())
            module.float()
            size = float(x.double().norm()) * (1 + 1e-9)
            found = through(module, Computed(tuple(x.shape), size), arithmetic)
            off = float((single.double() - wide).norm())
            assert off <= found.error, f"{module} on {name}: {off:.3g} > {found.error:.3g}"
            start = float(module(torch.zeros(1, len(x))).detach().norm())
            assert start <= found.offset * (1 + 1e-6) + 1e-30, f"{module} at 0"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_rule_that_charged_nothing_would_be_seen(kind):
    """A negative control: what computes anything is off by more than a 4000th of the bound."""
    exact = (nn.Identity, nn.ReLU, nn.ReLU6, nn.Hardtanh, Abs)
    x, shares = INPUTS["normal"], []
    for module in of_all(kind):
        with torch.no_grad():
            single = module(x[None].clone()).double()
            off = float((single - module.double()(x[None].double())).norm())
        start = Computed((len(x),), float(x.norm()))
        found = through(module.float(), start, Arithmetic.of(torch.float32))
        shares.append(off / found.error if found.error else 0.0)
    assert max(shares) > 1 / 4000 or kind in exact


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_primitive_has_the_activation_as_its_slope(kind):
    known = ACTIVATIONS[kind]
    if not (known.homogeneous or known.primitive):
        pytest.skip("no closed form")
    x = torch.linspace(-5.03, 5.07, 1001, dtype=torch.float64).requires_grad_()
    for module in of_all(kind):
        if isinstance(module, nn.GELU) and module.approximate != "none":
            continue
        module.double()
        (slope,) = torch.autograd.grad(primitive(module, x).sum(), x)
        torch.testing.assert_close(slope, module(x[None])[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_homogeneous_is_what_scales(kind):
    module, x = kind().double(), torch.randn(1, 200, dtype=torch.float64)
    scales = all(torch.allclose(module(c * x), c * module(x)) for c in (0.0, 0.5, 7.0))
    assert ACTIVATIONS[kind].homogeneous == scales
    assert float(lipschitz_bound(module.eval())) > 0
