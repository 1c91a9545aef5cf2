"""Claim: an exported Convex Potential network runs like a plain network of the same shape."""

from typing import Any

import torch
from harness import alternate, save, summary
from torch import nn
from training_step import PlainConv, PlainLinear

from onelip import export
from onelip.layers import ConvexPotentialConv2d, ConvexPotentialLinear


def main() -> None:
    """Convolutional and dense networks."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    rows = [
        _row(
            "6 conv blocks, 45 channels, inner 5, 32 x 32",
            [ConvexPotentialConv2d(45, 5, image_size=32) for _ in range(6)],
            [PlainConv(45, 5) for _ in range(6)],
            torch.rand(64, 45, 32, 32),
            device,
        ),
        _row(
            "6 conv blocks, 32 channels, inner 32, 16 x 16",
            [ConvexPotentialConv2d(32, 32, image_size=16) for _ in range(6)],
            [PlainConv(32, 32) for _ in range(6)],
            torch.rand(64, 32, 16, 16),
            device,
        ),
        _row(
            "12 dense blocks, 784, inner 512",
            [ConvexPotentialLinear(784, 512) for _ in range(12)],
            [PlainLinear(784, 512) for _ in range(12)],
            torch.rand(256, 784),
            device,
        ),
    ]
    save(f"inference_{device}", rows)


def _row(
    what: str, layers: list[Any], plain: list[Any], x: torch.Tensor, device: str
) -> dict[str, Any]:
    x = x.to(device)
    models = {
        "plain": nn.Sequential(*plain).eval().to(device),
        "exported": export(nn.Sequential(*layers)).to(device),
        "as trained": nn.Sequential(*layers).eval().to(device),
    }

    def call(model: nn.Module) -> Any:
        def run() -> None:
            with torch.inference_mode():
                model(x)

        return run

    seconds = alternate({name: call(model) for name, model in models.items()}, rounds=15)
    return {"network": what, "batch": len(x), **summary(seconds, "plain")}


if __name__ == "__main__":
    main()
