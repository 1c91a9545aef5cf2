"""Test-time averages of networks, whose constants are proved to be those of one network."""

import itertools
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from onelip.errors import UsageError
from onelip.layers import Averaged, HorizontalFlip, Shift, UnitNormLinear
from onelip.method_names import AVERAGES


def averaged(
    network: nn.Module | Sequence[nn.Module], over: str | Iterable[nn.Module] = ()
) -> nn.Module:
    r"""Mean of a network over transforms of its input, or of several networks, as one network.

    Bound: that of the network; of several, the mean of theirs. In front of a linear head the mean
        of features is taken, which has the same logits: all pairs of logits keep their constants.
    Cost: in use, that of each network for each transform; in proof, nothing.

    Args:
        network: from inputs to logits, or several of them.
        over: ``"flip"`` (2 images), ``"shifts"`` by up to one pixel along both axes, zeros coming
            in (9), ``"wrapped-shifts"`` (9), ``"cross"``, one pixel along one axis (5), or several
            of them, ``"flip,shifts"`` (18); or modules with a bound, the identity among them if it
            shall be.

    Returns:
        A module that is exported, certified, saved and proved as any other network.

    Raises:
        UsageError: no networks, or no transform of that name.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
        >>> mean = averaged(net, over="flip").eval()
        >>> x = torch.rand(1, 1, 2, 2)
        >>> torch.allclose(mean(x), (net(x) + net(x.flip(3))) / 2)
        True
    """
    networks = [network] if isinstance(network, nn.Module) else list(network)
    transforms = _named(over) if isinstance(over, str) else list(over) or [nn.Identity()]
    if len(networks) == 1 and type(networks[0]) is nn.Sequential and len(networks[0]) > 1:
        *body, head = networks[0]
        if type(head) in (nn.Linear, UnitNormLinear):
            return nn.Sequential(Averaged([nn.Sequential(*body)], transforms), head)
    return Averaged(networks, transforms)


def _named(over: str) -> list[nn.Module]:
    """Transforms by name; of several names, one of each after the other."""
    names = over.split(",")
    unknown = [name for name in names if name not in AVERAGES]
    if unknown:
        raise UsageError(f"no average over {unknown[0]!r}: known are {', '.join(AVERAGES)}")
    chosen = itertools.product(*(TRANSFORMS[name]() for name in names))
    return [_in_turn([part for part in parts if type(part) is not nn.Identity]) for parts in chosen]


def _in_turn(parts: list[nn.Module]) -> nn.Module:
    if not parts:
        return nn.Identity()
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def _flip() -> list[nn.Module]:
    return [nn.Identity(), HorizontalFlip()]


def _shifts(*, wrap: bool = False, diagonal: bool = True) -> list[nn.Module]:
    steps = itertools.product((0, -1, 1), repeat=2)
    kept = (step for step in steps if diagonal or 0 in step)
    return [Shift(*step, wrap=wrap) if any(step) else nn.Identity() for step in kept]


TRANSFORMS: dict[str, Callable[[], list[nn.Module]]] = {
    "flip": _flip,
    "cross": lambda: _shifts(diagonal=False),
    "shifts": _shifts,
    "wrapped-shifts": lambda: _shifts(wrap=True),
}
"""Transforms by name, the identity first."""
