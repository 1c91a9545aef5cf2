"""What every chain that was read is put to: it is the network, and its product is a bound."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from onelip.chains import Chain, LinearMap, Opaque
from onelip.reading import read_program
from tests.oracles import materialised, sigma_max


def norm(linear: LinearMap | None) -> float:
    """From the matrix; 1 for a map that is left out."""
    return 1.0 if linear is None else sigma_max(materialised(linear, linear.inputs))


def naive(chain: Chain) -> float:
    """The product of the bounds of the blocks, each from the matrices of its maps."""
    bound = norm(chain.last)
    for block in chain.blocks:
        branch = norm(block.inner) * block.nonlinearity.constant * norm(block.outer)
        whole = branch + (0.0 if block.skip is None else norm(block.skip))
        bound *= whole if block.constant is None else min(whole, block.constant)
    return bound


def steepest(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...], points: int = 4
) -> float:
    """The largest norm of a Jacobian at some random points, near 0 and far from it."""
    largest = 0.0
    for scale in torch.logspace(-1, 1, points).tolist():
        x = scale * torch.randn(1, *shape, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(function, x)
        largest = max(largest, sigma_max(jacobian.reshape(-1, x.numel())))
    return largest


def check(
    chain: Chain, model: Callable[[Tensor], Tensor], shape: tuple[int, ...], slack: float = 1e-10
) -> None:
    """In float64: the same function, of the same shapes, no steeper than its product."""
    assert chain.inputs == shape
    exact = chain.exact()
    x = torch.randn(5, *shape, dtype=torch.float64)
    expected = model(x)
    assert chain.outputs == expected.shape[1:]
    torch.testing.assert_close(exact.forward(x), expected, rtol=1e-10, atol=1e-10)
    assert naive(exact) >= steepest(model, shape) * (1 - slack)


def opaque(chain: Chain) -> list[str]:
    """The modules of which only a bound is known."""
    found = [block.nonlinearity for block in chain.blocks]
    return [type(phi.module).__name__ for phi in found if isinstance(phi, Opaque)]


class Of(nn.Module):
    """A function of the input and of some modules, as a module."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def traced(
    function: Callable[..., Tensor],
    *parts: nn.Module,
    shape: tuple[int, ...] = (4,),
    dtype: torch.dtype = torch.float64,
) -> Chain:
    """Read a function from its exported program, and compare the values."""
    module = Of(function, *parts).to(dtype).eval()
    chain = read_program(torch.export.export(module, (torch.zeros(1, *shape, dtype=dtype),)))
    x = torch.randn(5, *shape, dtype=dtype)
    assert torch.allclose(chain.exact().forward(x.double()).to(dtype), module(x), atol=1e-5)
    return chain
