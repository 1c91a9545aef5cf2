"""The absolute value, which keeps the norm of gradients (Anil, Lucas, Grosse, ICML 2019)."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.activations import ACTIVATIONS, Activation, Pieces
from onelip.chains import Elementwise
from onelip.chains.linear_layers import expect
from onelip.chains.value import Value
from onelip.custom_gradients import forward_mode
from onelip.errors import keep_old_names
from onelip.forward_error import Local, Run
from onelip.forward_error import moved as no_error
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule


class Abs(LipschitzModule):
    """``|x|``, elementwise; torch has the function and no module.

    Bound: 1, attained; the Jacobian is diagonal with entries 1 and -1, except at 0.
    Shape: any to the same.
    Cost: one elementwise operation.

    Example:
        >>> Abs()(torch.tensor([-2.0, 3.0]))
        tensor([2., 3.])

    Reference: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.
    """

    same_in_float64 = True

    def forward(self, x: Tensor) -> Tensor:
        """Return ``|x|``."""
        return x.abs()

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as an activation with slopes between -1 and 1."""
        return value.activated(Elementwise.of(self))

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)


ACTIVATIONS[Abs] = Activation(
    slopes=lambda _: (-1.0, 1.0),
    pieces=lambda _: Pieces((0.0,), (-1.0, 1.0)),
    homogeneous=True,
    roundings=0,
    forward_error=no_error,
    aten="abs",
    onnx=("Abs", {}),
)


class HalfAbs(LipschitzModule):
    r"""``|x|`` on the first half of the channels, the others as they are.

    As expressive as ``MaxMin`` after an orthogonal layer and in front of another one:
    ``(max, min)(a, b)`` is a rotation by 45 degrees, the absolute value of one of the two, and the
    rotation back, and orthogonal layers learn rotations. It is much faster, above all in
    channels-last memory format and 16 bits, where neighbouring channels have to be taken apart.

    Bound: 1, attained; the Jacobian is diagonal with entries 1 and -1, except at 0.
    Shape: ``(batch, channels, ...)`` to the same; of an odd number the smaller half.
    Cost: a copy of the input; exported to ``nn.PReLU``, with slopes -1 and 1.

    Args:
        channels: of the input.
        **factory: ``device`` and ``dtype`` of the exported module.

    Raises:
        ValueError: no channel; in ``forward``, another number of channels.

    Example:
        >>> HalfAbs(2)(torch.tensor([[-1.0, -2.0]]))
        tensor([[ 1., -2.]])

    Reference: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019; for a
    part of the channels, Hu et al., "LipNeXt", 2025.
    """

    same_in_float64 = True

    def __init__(self, channels: int, **factory: Unpack[FactoryOptions]) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        self.channels = channels
        placed = torch.empty(0, **factory)
        self.register_buffer("_placed", placed, persistent=False)  # of what ``export`` returns

    def forward(self, x: Tensor) -> Tensor:
        """Return ``|x|`` on the first half of the channels."""
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(f"expected (batch, {self.channels}, ...), got {tuple(x.shape)}")
        if forward_mode() or torch.compiler.is_compiling():
            first, second = x.tensor_split([self.channels // 2], 1)
            return torch.cat((first.abs(), second), 1)
        y: Tensor = _HalfAbs.apply(x)  # type: ignore[no-untyped-call]
        return y

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def export(self) -> nn.PReLU:
        """Return the same function as a module of torch."""
        like = self.get_buffer("_placed")
        module = nn.PReLU(self.channels, device=like.device, dtype=like.dtype).requires_grad_(False)
        module.weight.fill_(1)[: self.channels // 2] = -1
        return module

    def to_chain(self, value: Value) -> Value:
        """Read the layer as an activation with slopes between -1 and 1 in the first half."""
        expect(value, f"({self.channels}, ...)", value.shape[0] == self.channels)
        high = torch.ones(value.shape, dtype=torch.float64)
        low = high.clone()
        low[: self.channels // 2] = -1
        return value.activated(Elementwise(self, low, high))

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)

    @override
    def extra_repr(self) -> str:
        return str(self.channels)


class _HalfAbs(torch.autograd.Function):
    """The absolute value of half of the channels, in place in a copy of all of them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Copy, and drop the signs of the first half."""
        y = x.clone()
        y[:, : x.shape[1] // 2].abs_()
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        """Save the input, whose signs the gradient takes."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Multiply the first half by the signs; 0 at 0, as torch has it."""
        (x,) = ctx.saved_tensors
        half = x.shape[1] // 2
        first, second = gradients[0].tensor_split([half], 1)
        if torch.is_grad_enabled():  # asked for a second derivative
            return torch.cat((first * x[:, :half].sign(), second), 1)
        gradient = gradients[0].clone()
        gradient[:, :half].mul_(x[:, :half].sign())
        return gradient


keep_old_names(__name__, {"Absolute": "onelip.layers.Abs"})
