"""The mean of networks over transforms of their input: as Lipschitz as its terms in the mean."""

import copy
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelip.chains.beside import averaged_chain, index_of
from onelip.chains.linear_layers import opaque
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.forward_error import ABOVE, Local, Run
from onelip.layers.composite import Composite, followed, read_alone
from onelip.layers.moving import MovedNumbers
from onelip.lipschitz import bound_of_part, finite
from onelip.norms.rounding import upward


class HorizontalFlip(MovedNumbers):
    """Mirror the last axis: left to right, for images.

    Bound: 1, an isometry.
    Shape: any, kept.
    Cost: a copy.

    Example:
        >>> HorizontalFlip()(torch.tensor([[1.0, 2.0]]))
        tensor([[2., 1.]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the mirror image."""
        return x.flip(-1)


class Shift(MovedNumbers):
    """Shift images by whole pixels; zeros come in, or the pixels that went out.

    Bound: 1: an isometry with ``wrap``, a projection and a shift without.
    Shape: ``(batch, channels, height, width)``, kept.
    Cost: a copy.

    Args:
        down: rows, negative for up.
        right: columns, negative for left.
        wrap: what leaves on one side comes in on the other.

    Raises:
        ValueError: in ``forward``, an input that is no batch of images.

    Example:
        >>> Shift(0, 1)(torch.tensor([[[[1.0, 2.0, 3.0]]]]))
        tensor([[[[0., 1., 2.]]]])
        >>> Shift(0, 1, wrap=True)(torch.tensor([[[[1.0, 2.0, 3.0]]]]))
        tensor([[[[3., 1., 2.]]]])
    """

    def __init__(self, down: int, right: int, *, wrap: bool = False) -> None:
        super().__init__()
        self.down, self.right, self.wrap = down, right, wrap

    def forward(self, x: Tensor) -> Tensor:
        """Return the shifted images."""
        if x.ndim != 4:
            raise ValueError(f"shifts images (batch, channels, height, width), not {x.ndim} axes")
        down, right = self.down, self.right
        if self.wrap:
            return x.roll((down, right), (2, 3))
        height, width = x.shape[2:]
        if abs(down) >= height or abs(right) >= width:
            return torch.zeros_like(x)
        kept = x[:, :, max(-down, 0) : height - max(down, 0)]
        kept = kept[..., max(-right, 0) : width - max(right, 0)]
        return F.pad(kept, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))

    def extra_repr(self) -> str:
        """Arguments as in the constructor."""
        return f"{self.down}, {self.right}, wrap={self.wrap}"


class Averaged(Composite):
    r"""Mean of networks over transforms: :math:`\frac{1}{MN} \sum_{m, n} f_m(T_n x)`.

    A mean that is taken when a network is used, over flips of an image or over several networks,
    costs a certificate nothing. In front of a linear head the constants of all pairs of logits are
    those of one network: ``onelip.models.averaged`` takes the head apart.

    Bound: the mean of the constants of the networks, times that of the transforms'. Certificates
        and ``lipschitz_bound`` take the mean of what a method proves of each network, for each pair
        of logits.
    Shape: what the transforms take, to what the networks return. In eval mode if the networks are.
    Cost: that of each network for each transform.

    Args:
        networks: modules with a bound, from inputs to outputs of one shape.
        transforms: modules with a bound, as ``HorizontalFlip``; the identity alone by default.

    Raises:
        UsageError: no networks.

    Example:
        >>> net = Averaged([nn.Linear(2, 1, bias=False)], [nn.Identity(), HorizontalFlip()])
        >>> _ = nn.init.constant_(net.networks[0].weight, 1.0)
        >>> net(torch.tensor([[1.0, 2.0]])).item()
        3.0
    """

    same_in_float64 = True

    def __init__(
        self, networks: Iterable[nn.Module], transforms: Iterable[nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.transforms = nn.ModuleList([nn.Identity()] if transforms is None else transforms)
        if not len(self.networks) or not len(self.transforms):
            raise UsageError("a mean of no networks, or over no transforms: give one or more")
        parts = [part for part in self.networks.modules() if part is not self.networks]
        if not any(part.training for part in parts if type(part) is not nn.Sequential):
            self.eval()  # a slice of an nn.Sequential is a new one, in training mode

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean."""
        total: Tensor | None = None
        for transform in self.transforms:
            image = transform(x.clone())  # networks may work in place
            for place, network in enumerate(self.networks):
                last = place == len(self.networks) - 1
                y: Tensor = network(image if last else image.clone())
                if total is not None and y.shape != total.shape:
                    raise ValueError(f"a mean of shapes {tuple(total.shape)} and {tuple(y.shape)}")
                total = y if total is None else total + y
        assert total is not None
        return total / self.terms

    @property
    def terms(self) -> int:
        """Number of terms of the mean."""
        return len(self.networks) * len(self.transforms)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        return upward(self.factor() * mean_of([bound_of_part(part) for part in self.networks]), 1)

    def factor(self) -> Tensor:
        """Mean of the constants of the transforms, which are 1 for isometries."""
        return mean_of([bound_of_part(part) for part in self.transforms])

    def with_parts(self, convert: Callable[[nn.Module], nn.Module]) -> "Averaged":
        """Return the mean of converted networks over converted transforms."""
        return Averaged(map(convert, self.networks), map(convert, self.transforms))

    def to_chain(self, value: Value) -> Value:
        """Read networks that are alike side by side, for which the spread and the mean cancel.

        Where they are not, or do more than records of the chain can do on several inputs at once,
        the constant is all that is known.
        """
        chains = [read_alone(network, value.shape).chain() for network in self.networks]
        parts = [read_alone(part, value.shape).chain() for part in self.transforms]
        moves = [index_of(part.last) for part in parts if not part.blocks]
        taken = [move for move in moves if move is not None]
        if len(taken) == len(parts):
            chain = averaged_chain(chains, taken, value.point.like)
            if chain is not None:
                return value.through(chain)
        fixed = copy.deepcopy(self).eval() if self.training else self
        return opaque(fixed, float(finite(self.lipschitz_bound(), "Averaged")), value)

    def forward_error(self, run: Run) -> Local:
        """Mean of what each network rounds, and the sum and the quotient of the mean."""
        ends = []
        for transform in self.transforms:
            image = followed(transform, run.x, run)
            for network in self.networks:
                ends.append(followed(network, image, run))
        count = len(ends)
        run.arithmetic.check(sum(end.reach for end in ends))  # the sum before the quotient
        offset = sum(end.offset for end in ends) / count * ABOVE
        within = sum(end.error for end in ends) / count * ABOVE
        size = sum(end.reach for end in ends) / count * ABOVE
        return Local(offset, (within + run.rounding(count + 1, size)) * ABOVE)


def mean_of(bounds: list[Tensor]) -> Tensor:
    """Mean of bounds, rounded upwards; of one alone, itself."""
    if len(bounds) == 1:
        return bounds[0]
    return upward(torch.stack(bounds).sum(0) / len(bounds), len(bounds) + 1)
