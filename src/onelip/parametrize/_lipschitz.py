r"""Weights divided by their norm: estimated in training, proved in eval mode.

In training one step of power iteration goes with each change of the weight, as in spectral
normalisation (Miyato et al., 2018), on the map that the layer computes (Gouk et al., 2018): for a
convolution, its stride-1 phases on a torus. When the module goes to eval mode the norm of the
weight is proved once, for inputs of every size, and what ``forward`` then uses is the weight times
a fixed number.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from typing_extensions import override

from onelip.autocast import no_autocast
from onelip.errors import NonFiniteError, UsageError
from onelip.layers.constrained import checksum
from onelip.lipschitz.torch_modules import norm_of
from onelip.norms.axes import excess
from onelip.norms.convolutions import phase_kernels
from onelip.parametrize.kinds import axes, check

_WARM_UP = 20  # power iterations at the start
_GRID = 16  # points of the torus for each degree of the symbol: at most 2 % are between them
_POINTS = 4096  # of the torus at most
_CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)
_BACK = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def lipschitz(module: nn.Module, k: float = 1.0, *, n_power_iterations: int = 1) -> nn.Module:
    """Divide the weight of a linear layer such that its Lipschitz constant is k.

    It takes the place of ``torch.nn.utils.parametrizations.spectral_norm``, which of a convolution
    divides by the norm of the reshaped kernel.

    Bound: in eval mode at most ``k (1 + 1e-6)`` for weights in float32, whatever the size of the
    input; below k by what the proof leaves: 1e-8 for matrices, at most half a percent for
    convolutions. In training mode the constant is estimated from below, and nothing is proved.
    Cost: in training two products with the weight, or two convolutions of one image of 16 pixels
    for each tap and axis beside the first; at ``eval()`` one proof (``onelip.norms``); in eval mode
    one product with a number. ``onelip.export`` puts the result in place.

    Args:
        module: ``nn.Linear``, ``nn.Conv1d`` to ``nn.Conv3d``, or ``nn.ConvTranspose1d`` to
            ``nn.ConvTranspose3d``, with any arguments.
        k: the constant, above 0.
        n_power_iterations: for each change of the weight in training.

    Returns:
        The module. Weights that change in eval mode are divided by the old norm until
        ``module.parametrizations.weight[0].prove()``; ``lipschitz_bound`` says what they are.

    Raises:
        UsageError: another module, one that is parametrized, or k or a number of iterations that is
            not positive.

    Example:
        >>> import onelip
        >>> conv = lipschitz(nn.Conv2d(3, 8, 3, stride=2, padding=1)).eval()
        >>> bool(0.99 < onelip.lipschitz_bound(conv) < 1 + 1e-6)
        True
    """
    check(module)
    if not (0 < k < math.inf):
        raise UsageError(f"k must be positive and finite, got {k}")
    if n_power_iterations < 1:
        raise UsageError(f"n_power_iterations must be positive, got {n_power_iterations}")
    constraint = Lipschitz(module, k, n_power_iterations)
    return parametrize.register_parametrization(module, "weight", constraint)


class Lipschitz(nn.Module):
    """The parametrization that ``lipschitz`` registers."""

    right: Tensor
    """Direction that the power iteration has reached in the input, of length 1 in each group."""
    left: Tensor
    """Its image, of length 1 in each group."""
    known: Tensor
    """Checksum of the weight of the last power step."""
    factor: Tensor
    """What the weight is multiplied by in eval mode."""
    proved_for: Tensor
    """Checksum of the weight that it was proved for."""

    def __init__(self, module: nn.Module, k: float, n_power_iterations: int) -> None:
        super().__init__()
        self.k, self.n_power_iterations = k, n_power_iterations
        self._owner = (module,)  # in a tuple: no part of this one
        weight = module.weight
        assert isinstance(weight, Tensor)
        self._axes = [] if type(module) is nn.Linear else axes(module)
        self.groups: int = getattr(module, "groups", 1)
        kernel = self._kernel(weight.detach())
        degrees = [length - 1 for length in kernel.shape[2:]]
        most = int(_POINTS ** (1 / max(1, len(degrees)))) if degrees else 0
        grid = [max(d + 1, min(most, _GRID * d)) if d else 1 for d in degrees]
        shapes = (kernel.shape[1] * self.groups, *grid), (kernel.shape[0], *grid)
        self.register_buffer("right", weight.new_empty(1, *shapes[0]).normal_())
        self.register_buffer("left", weight.new_zeros(1, *shapes[1]))
        for name in ("known", "proved_for"):
            self.register_buffer(name, torch.tensor(-1, device=weight.device))
        factor = torch.tensor(1.0, dtype=torch.float64, device=weight.device)
        self.register_buffer("factor", factor)
        if weight.is_meta:
            return
        with torch.no_grad():
            self.left.copy_(self._unit(self._image(kernel, self.right)))
            self._step(kernel, _WARM_UP)

    @override
    def forward(self, weight: Tensor) -> Tensor:
        """Multiply the weight by k over its norm, estimated or proved."""
        if not self.training:
            return weight * self.factor.to(weight.dtype)
        with no_autocast(weight.device.type):
            kernel = self._kernel(weight)
            self._advance(weight, kernel)
            image = self._image(kernel, self.right.clone())  # it may move before backward
            lengths = self._lengths(image)
            self._keep(image, lengths)
            norm = lengths.amax().clamp_min(torch.finfo(weight.dtype).tiny)
            return weight * (self.k / (math.sqrt(excess(self._axes)) * norm))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Take a weight as it is; its length does not matter."""
        return weight

    @torch.no_grad()
    def prove(self) -> None:
        """Prove the norm of the weight as it is now, for eval mode.

        A weight that is not finite makes the weight in use NaN, which every bound refuses.

        Cost: one proof of ``onelip.norms``, or none if this weight was the last to be proved.
        """
        weight = self._weight()
        now = checksum(weight)
        if weight.is_meta or torch.equal(now, self.proved_for):
            return
        try:
            norm = float(norm_of(self._owner[0], weight))
        except NonFiniteError:
            norm = math.nan
        # rounded down: the number itself is rounded to the weight's type, and each product
        unit = torch.finfo(weight.dtype).eps
        self.factor.fill_(self.k / norm * (1 - 2 * unit) if norm else 1.0)
        self.proved_for.copy_(now)

    @override
    def train(self, mode: bool = True) -> Self:
        """Change the mode; from training to eval, with a proof."""
        proves = self.training and not mode
        super().train(mode)
        if proves:
            self.prove()
        return self

    @override
    def extra_repr(self) -> str:
        return f"k={self.k}, n_power_iterations={self.n_power_iterations}"

    @override
    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        """Load a state; in eval mode, prove it if it was saved without a proof of its weight."""
        super()._load_from_state_dict(*arguments, **named)
        if not self.training:
            self.prove()  # the weight has been loaded before: its list is the parent

    def _weight(self) -> Tensor:
        """The weight before it is divided."""
        module: Any = self._owner[0]
        registered = parametrize.is_parametrized(module, "weight")  # or about to be
        weight: Tensor = module.parametrizations.weight.original if registered else module.weight
        return weight

    def _kernel(self, weight: Tensor) -> Tensor:
        """A kernel of stride 1, or a matrix, whose norm for every size is that of the layer.

        Under stride 1 a dilation does not change the symbol's values.
        """
        if all(axis.phases == 1 for axis in self._axes):
            return weight
        split = phase_kernels(weight.unflatten(0, (self.groups, -1)), self._axes)
        return split.flatten(0, 1)

    @torch.no_grad()
    def _advance(self, weight: Tensor, kernel: Tensor) -> None:
        """Take the power steps of a training step, if the weight has changed."""
        new = checksum(weight)
        # always computed, and undone by a mask: a branch would wait for the device
        before, changed = self.right.clone(), new != self.known
        self.known.copy_(new)
        self._step(kernel, self.n_power_iterations)
        self.right.copy_(torch.where(changed, self.right, before))

    def _step(self, kernel: Tensor, count: int) -> None:
        """Move both directions closer to the leading singular vectors; zeros stay out."""
        for i in range(count):
            if i:
                image = self._image(kernel, self.right)
                self._keep(image, self._lengths(image))
            moved = self._unit(self._back(kernel, self.left))
            good = moved.isfinite().all() & moved.any()
            self.right.copy_(torch.where(good, moved, self.right))

    @torch.no_grad()
    def _keep(self, image: Tensor, lengths: Tensor) -> None:
        """Keep the direction of an image, group by group, where it has one."""
        groups = image.detach().view(self.groups, -1)
        unit = groups / lengths.detach()[:, None]
        good = unit.isfinite().all(1, keepdim=True)
        self.left.copy_(torch.where(good, unit, self.left.view(self.groups, -1)).view_as(image))

    def _lengths(self, image: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(image.view(self.groups, -1), dim=1)
        return lengths

    def _unit(self, image: Tensor) -> Tensor:
        tiny = torch.finfo(image.dtype).tiny
        lengths = self._lengths(image).clamp_min(tiny)
        unit: Tensor = image.view(self.groups, -1) / lengths[:, None]
        return unit.view_as(image)

    def _image(self, kernel: Tensor, x: Tensor) -> Tensor:
        """The matrix, or the convolution on a torus."""
        if kernel.ndim == 2:
            return F.linear(x, kernel)
        around = [n for length in reversed(kernel.shape[2:]) for n in (0, length - 1)]
        convolve: Any = _CONVOLVE[kernel.ndim - 3]
        image: Tensor = convolve(F.pad(x, around, mode="circular"), kernel, groups=self.groups)
        return image

    def _back(self, kernel: Tensor, y: Tensor) -> Tensor:
        """The adjoint of ``_image``: what is pushed over the far edge comes in on the near one."""
        if kernel.ndim == 2:
            return F.linear(y, kernel.mT)
        around = [n for length in reversed(kernel.shape[2:]) for n in (length - 1, 0)]
        cut = [length - 1 for length in kernel.shape[2:]]
        back: Any = _BACK[kernel.ndim - 3]
        padded = F.pad(y, around, mode="circular")
        image: Tensor = back(padded, kernel, padding=cut, groups=self.groups)
        return image
