"""Claim: LipLT in the training step costs a few per cent, hardly more than a product of norms.

The networks of CRM's Table 1 in three training steps: cross-entropy alone; CRM with the constants
of all pairs from LipLT, one power step each, differentiated; CRM with those of the product of
norms. All norms of LipLT travel through the network in one batch, so their number, which is
quadratic in the depth, shows as a few more samples.
"""

from collections.abc import Iterator
from typing import Any

import torch
from harness import alternate, save, summary
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.estimates import LipLTEstimate, ProductEstimate
from onelip.losses import CRM
from onelip.models import c4f3, c6f2, c8f2
from onelip.reading import read

NETWORKS = {
    "4C3F, MNIST": (c4f3, (1, 28, 28), 10, (128, 512)),
    "6C2F, CIFAR-10": (c6f2, (3, 32, 32), 10, (128, 512)),
    "8C2F, Tiny-ImageNet": (c8f2, (3, 64, 64), 200, (32,)),
}


def main() -> None:
    """Every network at every batch size."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    save(f"liplt_step_{device}", rows(device))


def rows(device: str) -> Iterator[dict[str, Any]]:
    """A row at a time."""
    for name, (build, shape, classes, sizes) in NETWORKS.items():
        for batch in sizes:
            torch.manual_seed(0)
            x = torch.rand(batch, *shape, device=device)
            labels = torch.randint(classes, (batch,), device=device)
            steps = {
                kind: _step(build(shape, classes).to(device), kind, x, labels)
                for kind in ("plain", "LipLT", "product of norms")
            }
            seconds = alternate(steps, rounds=7, warm_up=1)
            yield {"network": name, "batch": batch, **summary(seconds, "plain")}


def _step(model: nn.Module, kind: str, x: Tensor, labels: Tensor) -> Any:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    shape, loss = tuple(x.shape[1:]), CRM()
    estimates = {"LipLT": LipLTEstimate, "product of norms": ProductEstimate}
    estimate = estimates[kind](read(model, shape)) if kind in estimates else None

    def step() -> None:
        optimizer.zero_grad()
        logits = model(x)
        if estimate is None:
            value = F.cross_entropy(logits, labels)
        else:
            value = loss(logits, labels, estimate(read(model, shape)))
        value.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
