"""Small networks with every kind of record, as bundles."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from onelip import layers, prove

Network = tuple[Callable[[], nn.Module], tuple[int, ...]]


class Residual(nn.Module):
    """A class with a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block with a way around."""
        x = x + 0.1 * self.second(torch.relu(self.first(x)))
        return self.head(x.flatten(1))


class Extremes(nn.Module):
    """Maxima, minima and lengths along axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of an image, one number for each channel."""
        x = torch.linalg.vector_norm(x.amax(2) - 0.5, dim=2)
        return x.unflatten(1, (-1, 2)).amin(2)


def _sequence(*parts: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*parts)


def _networks() -> dict[str, Network]:
    torch.manual_seed(0)
    image = (2, 4, 4)
    return {
        "dense": (
            _sequence(
                nn.Linear(5, 6), layers.MaxMin(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)
            ),
            (5,),
        ),
        "multipliers": (
            _sequence(
                nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.LeakyReLU(-0.3), nn.Linear(6, 3)
            ),
            (4,),
        ),
        "smooth": (
            _sequence(
                *(nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)),
                *(nn.Sigmoid(), nn.Linear(4, 4), nn.ELU(), nn.Linear(4, 4), nn.SiLU()),
                layers.ConvexPotentialLinear(4, 6, activation=nn.Tanh()),
                nn.Linear(4, 3),
            ),
            (5,),
        ),
        "head": (
            _sequence(layers.CholeskyLinear(5, 4), layers.MaxMin(), layers.MLPHead(4, 3, hidden=6)),
            (5,),
        ),
        "orthogonal": (
            _sequence(
                layers.CholeskyLinear(6, 6), layers.GroupSort(3), layers.UnitNormLinear(6, 4)
            ),
            (6,),
        ),
        "steps": (
            _sequence(
                layers.Normalize([0.5, 0.4], [0.3, 0.2]),
                layers.ConvexPotentialConv2d(2, 3, 3, image_size=4),
                layers.ConvexPotentialConv2d(2, 3, 3, image_size=4, padding_mode="circular"),
                nn.Flatten(),
                layers.ConvexPotentialLinear(32, 10),
                nn.Linear(32, 3),
            ),
            image,
        ),
        "convolutions": (
            _sequence(
                nn.Conv2d(2, 4, 3, stride=2, padding=1),
                nn.LeakyReLU(-0.5),
                nn.Conv2d(4, 4, 2, groups=2, padding=1, padding_mode="circular"),
                nn.PReLU(4),
                nn.MaxPool2d(2, 1),
                layers.ScaledAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(4, 3),
            ),
            image,
        ),
        "skew": (
            _sequence(
                layers.SOCConv2d(2, 4, 3, image_size=4),
                layers.MaxMin(),
                nn.Flatten(),
                nn.Linear(64, 3),
            ),
            image,
        ),
        "transposed": (
            _sequence(nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1), layers.Abs()),
            (2, 2, 2),
        ),
        "class": (Residual, image),
    }


def _further() -> dict[str, Network]:
    torch.manual_seed(0)
    return {
        "fourier": (
            _sequence(
                layers.CayleyConv2d(2, 3, 4, image_size=(4, 6), stride=2),
                layers.Abs(),
                layers.LOTConv2d(3, 2, 2, image_size=(2, 3), iterations=2),
                nn.Flatten(),
                nn.Linear(12, 3),
            ),
            (2, 4, 6),
        ),
        "gated": (
            _sequence(
                *(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 5), nn.GELU(approximate="tanh")),
                *(nn.Linear(5, 5), nn.Mish(), nn.Linear(5, 5), nn.Softsign()),
                *(nn.Linear(5, 5), nn.SELU(), nn.Linear(5, 5), nn.CELU(0.3)),
                *(nn.Linear(5, 5), nn.ELU(-2.0), nn.Linear(5, 5), nn.Softplus(beta=3)),
                layers.ConvexPotentialLinear(5, 6, activation=nn.ELU(1.5)),
                nn.LogSigmoid(),
                nn.Linear(5, 3),
            ),
            (5,),
        ),
        "pool": (
            _sequence(
                *(nn.Conv2d(2, 2, 1), nn.MaxPool2d(3, 2, padding=1, dilation=2, ceil_mode=True)),
                *(layers.ScaledL2NormPool2d(2, 1), nn.MaxPool2d(2, ceil_mode=True)),
                nn.Flatten(),
                nn.Linear(2, 3),
            ),
            (2, 7, 6),
        ),
        "extremes": (
            _sequence(nn.Conv2d(2, 6, 2), Extremes(), nn.Linear(3, 3)),
            (2, 4, 4),
        ),
        "plane": (
            _sequence(
                *(nn.Conv2d(2, 8, 2), layers.Householder(8), nn.Conv2d(8, 8, 1)),
                *(layers.Householder(8, order=3), layers.ProjectionPool2d(8)),
                *(nn.Flatten(), nn.Linear(16, 6), layers.CurvePool2d(6, 3), nn.Linear(3, 8)),
                *(layers.CurvePool2d(8, 1), nn.Linear(4, 3)),
            ),
            (2, 3, 3),
        ),
        "piecewise": (
            _sequence(
                *(nn.Linear(5, 6), layers.NActivation(6), nn.Linear(6, 5), nn.Hardtanh(-0.3, 0.2)),
                *(nn.Linear(5, 5), nn.Hardswish(), nn.Linear(5, 5), nn.Softshrink(0.1)),
                layers.ConvexPotentialLinear(5, 6, activation=nn.ReLU6()),
                nn.Linear(5, 4),
                nn.Hardsigmoid(),
                nn.Linear(4, 3),
            ),
            (5,),
        ),
    }


NETWORKS = _networks() | _further()


def write(name: str, folder: Path, samples: int = 3) -> dict:
    """Prove a network by name."""
    build, shape = NETWORKS[name]
    torch.manual_seed(1)
    model = build().eval()
    method = "lipsdp" if name == "multipliers" else "product"
    return prove(model, folder, torch.rand(samples, *shape), about=name, method=method)
