"""Claim: bounds are tight, and orthogonal families are orthogonal.

Every family as a layer of 16 channels, 3 x 3, on 8 x 8 images, at its start and after 100 Adam
steps that fit random targets: the proved bound, and the singular values of the map written out as a
matrix (of the Jacobian at one input, where an activation is inside).
"""

from collections.abc import Iterator
from typing import Any

import torch
from harness import save
from torch import Tensor, nn

from onelip import export, lipschitz_bound
from onelip.models import families

_CHANNELS, _SIDE, _STEPS = 16, 8, 100


def main() -> None:
    """All families."""
    torch.set_num_threads(1)
    save("tightness", _rows())


def _rows() -> Iterator[dict[str, Any]]:
    for family in families.CONVOLUTIONS:
        torch.manual_seed(0)
        size = (_SIDE, _SIDE)
        layer = nn.Sequential(
            *families.convolution(family, _CHANNELS, _CHANNELS, 3, image_size=size)
        )
        yield {"family": family, "when": "start", **_measured(layer)}
        _fit(layer)
        yield {"family": family, "when": f"after {_STEPS} steps", **_measured(layer)}


def _fit(layer: nn.Module) -> None:
    x, y = torch.randn(2, 64, _CHANNELS, _SIDE, _SIDE)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        (layer.train()(x) - y).square().mean().backward()
        optimizer.step()


def _measured(layer: nn.Module) -> dict[str, Any]:
    exported = export(layer.eval())
    x = torch.randn(_CHANNELS, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).double()
    bound = float(lipschitz_bound(exported))
    exported.double()

    def flat(v: Tensor) -> Tensor:
        y: Tensor = exported(v[None])
        return y.flatten()

    jacobian: Tensor = torch.autograd.functional.jacobian(flat, x)
    values = torch.linalg.svdvals(jacobian.reshape(len(jacobian), -1))
    names = ("largest", "median", "smallest")
    found = (values.max(), values.median(), values.min())
    return {
        "proved_bound": bound,
        **{name: round(float(value), 9) for name, value in zip(names, found, strict=True)},
    }


if __name__ == "__main__":
    main()
