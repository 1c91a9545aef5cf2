"""Input scaling as a layer, so that it is part of the proof."""

from collections.abc import Sequence

import torch
from torch import Tensor

from onelip.chains.linear_layers import divided, expect, shifted
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import Local, Run, repeated
from onelip.lipschitz import LipschitzModule
from onelip.norms.rounding import exact, quotient, upward


class Normalize(LipschitzModule):
    """``(x - mean) / std`` per channel.

    With this layer inside the model, radii are in the units of its input: pixels in [0, 1].

    Bound: ``1 / min(|std|)``. (``1 / max`` and leaving the scaling out are well-known mistakes.)
    Shape: ``(batch, channels, ...)`` to the same.
    Cost: elementwise.

    Args:
        mean: one number per channel.
        std: one number per channel, not 0.
        device: of both, as in torch.
        dtype: of both, as in torch.

    Raises:
        ValueError: a std of 0, or lengths that differ; in ``forward``, another number of channels,
            which broadcasting would repeat.

    Example:
        >>> import onelip
        >>> onelip.lipschitz_bound(Normalize([0.5, 0.5], [0.5, 0.25]))
        tensor(4., dtype=torch.float64)
    """

    same_in_float64 = True

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        device: torch.types.Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(std):
            raise ValueError(f"one mean and one std other than 0 per channel: got {mean}, {std}")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        self.register_buffer("mean", torch.tensor(mean, device=device, dtype=dtype))
        self.register_buffer("std", torch.tensor(std, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(x - mean) / std``."""
        if x.ndim < 2 or x.shape[1] != len(self.mean):
            raise ValueError(f"{len(self.mean)} channels are normalised, got {tuple(x.shape)}")
        shape = (-1,) + (1,) * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        if self.mean.shape != self.std.shape or self.std.ndim != 1:
            raise UnboundedModuleError("Normalize has a mean and a std of different shapes")
        return quotient(1, float(exact(self.std).abs().min()))

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a shift and a diagonal map."""
        self.lipschitz_bound()  # refuses a std that has no quotient
        channels = len(self.mean)
        expect(value, f"({channels}, ...)", value.shape[0] == channels)
        shape = (-1, *(1,) * (len(value.shape) - 1))
        return divided(shifted(value, -self.mean.view(shape)), self.std.view(shape))

    def forward_error(self, run: Run) -> Local:
        """Rounding of a difference and a quotient."""
        mean, std = exact(self.mean).abs().cpu(), exact(self.std).abs().cpu()
        offset = repeated(upward(mean / std, 1), run)
        run.arithmetic.check(2 * (run.x.reach + repeated(mean, run)))
        lost = run.lipschitz * run.rounding(1, 0.0)  # underflow of the difference, divided by std
        return Local(offset, run.rounding(4, run.lipschitz * run.x.reach + offset) + lost)
