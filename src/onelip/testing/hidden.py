"""Networks with a counter-example that gradients do not show, to try bounds and certificates on.

Attacks that find nothing say nothing about a certificate that is too large. Here a planted input
has another prediction, by construction: the margin falls along one direction v, but only after a
dead zone, in which the gradient has no part of v. In d dimensions a random step of length r has a
part of about ``r / sqrt(d)`` along v, less than the zone is wide. Along v the margin falls about as
fast as the product of norms allows, so a bound that is a little too small certifies too much.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onelip import layers

_SIDE, _DECOYS = 16, 48
_ZONE, _MARGIN = 0.22, 0.78  # along v, for a slope of 1: at 0.22 + 0.78 the prediction flips
_STEEP = 0.6  # singular values of the decoys, those of v being 1
_SHARP = 100.0  # of softplus: it is a ramp where that many times its argument is large
_PAST = 1 + 1e-6  # how far the planted input is beyond the flip


@dataclass(frozen=True)
class HiddenCounterExample:
    """A model in float64, an input ``(1, 1, 16, 16)``, and one near it with another prediction."""

    name: str
    model: nn.Sequential
    x: Tensor
    planted: Tensor

    @property
    def distance(self) -> float:
        """How far the planted input is, in Euclidean length."""
        return float((self.planted - self.x).norm())


@dataclass(frozen=True)
class _Directions:
    """Orthonormal directions, and the hidden layer that they make around x."""

    x: Tensor
    hidden: Tensor  # v
    decoys: Tensor

    def rows(self, away: bool, asleep: bool) -> tuple[Tensor, Tensor]:
        """Weight and bias of a ramp along v after the dead zone, and of the decoys."""
        others = self.decoys
        if away:  # downhill by the decoys is backwards along v
            others = torch.cat([0.75**0.5 * others[:1] - 0.5 * self.hidden, others[1:]])
        weight = torch.cat([self.hidden[None], _STEEP * others])
        bias = -weight @ self.x.flatten()
        bias[0] -= _ZONE
        bias[1:] += -2.0 if asleep else 0.0
        bias[1] += 0.0 if asleep else 2.0  # one is always awake
        return weight, bias


def hidden_counter_examples(seeds: Sequence[int] = (0, 1)) -> Iterator[HiddenCounterExample]:
    """Networks of each kind: dense, deep, sorting, pooling, convolutions, a bump, flat, smooth.

    Cost: milliseconds each.
    """
    for name, build in _KINDS.items():
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            count = _SIDE**2, _DECOYS + 1
            drawn = torch.randn(count, generator=generator, dtype=torch.float64)
            axes = torch.linalg.qr(drawn).Q.T
            shape = 1, 1, _SIDE, _SIDE
            x = 0.4 + 0.2 * torch.rand(shape, generator=generator, dtype=torch.float64)
            found = _Directions(x, axes[0], axes[1:])
            model = build(found).double().eval().requires_grad_(False)
            yield _planted(f"{name} {seed}", model, found)


def _planted(name: str, model: nn.Sequential, found: _Directions) -> HiddenCounterExample:
    """The first point along v, up to a thousandth part, with another prediction."""
    own = model(found.x).argmax()
    for t in torch.arange(_ZONE, 1.2, 1e-3, dtype=torch.float64):
        planted = found.x + t * _PAST * found.hidden.view_as(found.x)
        if model(planted).argmax() != own:
            return HiddenCounterExample(name, model, found.x, planted)
    raise AssertionError(f"{name}: no other prediction along the hidden direction")


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with these numbers."""
    made = nn.Linear(weight.shape[1], weight.shape[0]).double().requires_grad_(False)
    made.weight.copy_(weight)
    made.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return made


def _head(found: _Directions, body: nn.Module, ramp: Sequence[float], width: int) -> nn.Linear:
    """Three logits: the first ahead by the margin, less the ramp, and a little of the decoys."""
    difference = torch.full((width,), 0.02 * max(map(abs, ramp)), dtype=torch.float64)
    difference[1::2] *= -1
    difference[: len(ramp)] = torch.tensor(ramp, dtype=torch.float64)
    weight = torch.stack([difference / 2, -difference / 2, 0 * difference])
    logits = weight @ body(found.x)[0]
    ahead = torch.tensor([_MARGIN / 2, -_MARGIN / 2, -2.0], dtype=torch.float64)
    return _linear(weight, ahead - logits)


def _closed(
    found: _Directions, *parts: nn.Module, ramp: Sequence[float] = (-1.0,)
) -> nn.Sequential:
    """A body with a head."""
    body = nn.Sequential(*parts).eval()
    return nn.Sequential(*parts, _head(found, body, ramp, body(found.x).shape[1]))


def _ramp(found: _Directions, *, away: bool = False, asleep: bool = False) -> nn.Sequential:
    rows = found.rows(away, asleep)
    return _closed(found, nn.Flatten(), _linear(*rows), nn.ReLU())


def _deep(found: _Directions) -> nn.Sequential:
    """An orthogonal layer before, whose neurons are all awake in the unit cube."""
    size = found.x.numel()
    generator = torch.Generator().manual_seed(9)
    turn = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    awake = torch.full((size,), float(size) ** 0.5, dtype=torch.float64)
    weight, bias = found.rows(False, False)
    weight = weight @ turn.T
    rows = _linear(weight, bias - weight @ awake)
    return _closed(found, nn.Flatten(), _linear(turn, awake), nn.ReLU(), rows, nn.ReLU())


def _sort(found: _Directions) -> nn.Sequential:
    """Each ramp is the larger of a number and 0."""
    weight, bias = found.rows(False, False)
    pairs = torch.stack([weight, 0 * weight], 1).flatten(0, 1)
    zeros = torch.stack([bias, 0 * bias], 1).flatten()
    parts = nn.Flatten(), _linear(pairs, zeros), layers.MaxMin()
    largest = int(layers.MaxMin()(torch.tensor([[0.0, 1.0]])).argmax())
    return _closed(found, *parts, ramp=(-1.0, 0.0) if largest == 0 else (0.0, -1.0))


def _pool(found: _Directions) -> nn.Sequential:
    """The same by a pool over two pixels."""
    weight, bias = found.rows(False, False)
    pairs = torch.stack([weight, 0 * weight], 1).flatten(0, 1)
    zeros = torch.stack([bias, 0 * bias], 1).flatten()
    image = nn.Unflatten(1, (len(weight), 1, 2))
    return _closed(
        found, nn.Flatten(), _linear(pairs, zeros), image, nn.MaxPool2d((1, 2)), nn.Flatten()
    )


def _convolution(found: _Directions) -> nn.Sequential:
    """An orthogonal convolution before."""
    first = nn.Conv2d(1, 4, 2, stride=2, bias=False).double().requires_grad_(False)
    signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    first.weight.copy_(torch.tensor(signs, dtype=torch.float64).view(4, 1, 2, 2) / 2)
    weight, bias = found.rows(False, False)
    turned = first(weight.view(-1, *found.x.shape[1:])).flatten(1)
    return _closed(found, first, nn.Flatten(), _linear(turned, bias), nn.ReLU())


def _bump(found: _Directions) -> nn.Sequential:
    """Up and down again: the other prediction is a sheet of a twentieth, far along v."""
    weight, bias = found.rows(False, False)
    width = 0.25
    rows = torch.cat([weight[:1]] * 3 + [weight[1:]])
    ends = torch.cat([bias[:1] - 0.3 - k * width for k in range(3)] + [bias[1:]])
    return _closed(found, nn.Flatten(), _linear(rows, ends), nn.ReLU(), ramp=(-3.75, 7.5, -3.75))


def _smooth(found: _Directions) -> nn.Sequential:
    """Softplus instead of ReLU, so sharp that nothing is seen of it at x."""
    weight, bias = found.rows(False, False)
    parts = nn.Flatten(), _linear(_SHARP * weight, _SHARP * bias), nn.Softplus()
    return _closed(found, *parts, ramp=(-1 / _SHARP,))


_KINDS: dict[str, Callable[[_Directions], nn.Sequential]] = {
    "ramp": _ramp,
    "away": lambda found: _ramp(found, away=True),
    "flat": lambda found: _ramp(found, asleep=True),
    "deep": _deep,
    "sort": _sort,
    "pool": _pool,
    "convolution": _convolution,
    "bump": _bump,
    "smooth": _smooth,
}
