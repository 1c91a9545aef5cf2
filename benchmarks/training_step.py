"""Claim: training a Convex Potential network costs little more than training a plain one.

Networks of the same shape: plain, ours as our training loop runs it (power steps of equal layers
batched) and as any other loop does, and Algorithm 1 written down naively.
The plain network has the same two maps in every block, ``x - V relu(W x + b)``, with V and W free.
The naive one computes Algorithm 1 as printed: the transposed convolution for the adjoint, three
separate convolutions and no reuse for the step, gradients through the iteration.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from harness import alternate, save, summary
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.layers import ConvexPotentialConv2d, ConvexPotentialLinear, computed_once


class PlainConv(nn.Module):
    """``x - V relu(W x + b)``."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, hidden, 3, padding=1)
        self.outer = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        step: Tensor = self.outer(F.relu(self.inner(x)))
        return x - step


class PlainLinear(nn.Module):
    """``x - V relu(W x + b)``."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(features, hidden)
        self.outer = nn.Linear(hidden, features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        step: Tensor = self.outer(F.relu(self.inner(x)))
        return x - step


class NaiveConv(nn.Module):
    """Algorithm 1 of the paper, one line of code for each of its lines."""

    u: Tensor

    def __init__(self, channels: int, hidden: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(hidden))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.register_buffer("u", torch.randn(1, channels, size, size))

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        v = F.conv2d(self.u, self.weight, padding=1)
        v = v / v.norm()
        u = F.conv_transpose2d(v, self.weight, padding=1)
        u = u / u.norm()
        h: Tensor = 2 / (F.conv2d(u, self.weight, padding=1) * v).sum().square()
        self.u = u.detach()
        hidden = F.relu(F.conv2d(x, self.weight, self.bias, padding=1))
        return x - h * F.conv_transpose2d(hidden, self.weight, padding=1)


class NaiveLinear(nn.Module):
    """The same, dense."""

    u: Tensor

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden, features))
        self.bias = nn.Parameter(torch.zeros(hidden))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.register_buffer("u", torch.randn(features))

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        v = self.weight @ self.u
        v = v / v.norm()
        u = self.weight.t() @ v
        u = u / u.norm()
        h: Tensor = 2 / ((self.weight @ u) * v).sum().square()
        self.u = u.detach()
        return x - h * F.linear(F.relu(F.linear(x, self.weight, self.bias)), self.weight.t())


@dataclass(frozen=True)
class Shape:
    """Of a network: convolutional blocks, 4 x 4 pooling, dense blocks."""

    name: str
    batch: int
    channels: int
    hidden: int
    size: int
    conv: int
    linear: int = 0
    features: int = 0


CPU = (
    Shape("6 conv blocks, 45 channels, inner 5, 32 x 32", 64, 45, 5, 32, 6),
    Shape("6 conv blocks, 32 channels, inner 32, 16 x 16", 64, 32, 32, 16, 6),
    Shape("12 dense blocks, 784, inner 512", 256, 16, 16, 7, 0, 12, 512),
)
GPU = (
    *(replace(shape, batch=256) for shape in CPU),
    Shape("CPL-S", 256, 45, 5, 32, 20, 7, 2048),
)


def main() -> None:
    """Networks of convolutional blocks, of dense blocks, and the shape of CPL-S on a GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [_row(shape, device) for shape in (GPU if device == "cuda" else CPU)]
    save(f"training_step_{device}", rows)


def _row(shape: Shape, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.rand(shape.batch, shape.channels, shape.size, shape.size, device=device)
    labels = torch.randint(10, (shape.batch,), device=device)
    steps = {name: _step(_model(name, shape).to(device), x, labels, name) for name in KINDS}
    return {"network": shape.name, "batch": shape.batch, **summary(alternate(steps), "plain")}


KINDS = ("plain", "onelip", "onelip, layer by layer", "naive")


def _model(kind: str, shape: Shape) -> nn.Module:
    side = shape.size // 4 if shape.conv else shape.size
    flat = shape.channels * side**2
    blocks: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
        "plain": (
            lambda: PlainConv(shape.channels, shape.hidden),
            lambda: PlainLinear(flat, shape.features),
        ),
        "onelip": (
            lambda: ConvexPotentialConv2d(shape.channels, shape.hidden, image_size=shape.size),
            lambda: ConvexPotentialLinear(flat, shape.features),
        ),
        "naive": (
            lambda: NaiveConv(shape.channels, shape.hidden, shape.size),
            lambda: NaiveLinear(flat, shape.features),
        ),
    }
    convolution, dense = blocks[kind.split(",", maxsplit=1)[0]]
    pool = [nn.AvgPool2d(4, divisor_override=4)] if shape.conv else []
    parts = [convolution() for _ in range(shape.conv)] + pool + [nn.Flatten()]
    return nn.Sequential(*parts, *(dense() for _ in range(shape.linear))).train()


def _step(model: nn.Module, x: Tensor, labels: Tensor, kind: str) -> Any:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    together = computed_once if kind == "onelip" else contextlib.nullcontext

    def step() -> None:
        optimizer.zero_grad()
        with together(model):
            logits = model(x)[:, :10]
        F.multi_margin_loss(logits, labels, margin=0.7).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
