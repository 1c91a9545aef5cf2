r"""
A plug-and-play denoiser that must converge
===========================================

Half of the pixels of a digit are missing, the others are noisy. Plug-and-play restores the image by
a denoiser D that knows nothing of the task: ``x <- P D(x - t grad g(x))``, where
``g(x) = |M(x - y)|^2 / 2`` compares the pixels that are known and P clips to [0, 1].

**Theorem** (Baillon and Haddad 1977; Combettes and Yamada 2015). A gradient step
``x - h W^T phi(W x + b)`` is a-averaged for ``a = h s |W|^2 / 2 < 1``, s the steepest slope of phi:
the mean ``(1 - a) x + a N(x)`` with some nonexpansive N. For a chain T of averaged maps let C be
the sum of ``a / (1 - a)``. If T has a fixed point x*, the steps of ``x <- T(x)`` never grow, and::

    |x_(k+1) - x_k|^2  <=  C |x_0 - x*|^2 / (k + 1).

T has one, since it maps the cube [0, 1]^64 to itself (Brouwer). A Convex Potential layer at its
full step ``2 / (s |W|^2)`` has a = 1: it is nonexpansive, and the theorem says nothing. Half of the
step is ``(x + layer(x)) / 2``, and has a = 1/2. The norm of every W is proved, and so is C.

.. image:: /figures/denoiser.png

Run: ``python examples/plot_denoiser.py`` (35 seconds on one core).
"""

# sphinx_gallery_thumbnail_path = "figures/denoiser.png"
import math
from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import onelip
from onelip.certificates.forward_error import forward_error
from onelip.layers import ConvexPotentialLinear, GradientStep, computed_once

PIXELS, STRETCH = 64, 8.0  # the diagonal of the cube [0, 1]^64
NOISE_IN_TRAINING, NOISE, KNOWN = 0.3, 0.1, 0.5


class Step(nn.Module):
    """``x + rate (layer(x) - x)``: the layer for rate 1, its half step for 1/2."""

    def __init__(self, hidden: int, rate: float) -> None:
        super().__init__()
        self.layer, self.rate = ConvexPotentialLinear(PIXELS, hidden), rate

    def forward(self, x: Tensor) -> Tensor:
        """Move a part of the way of the layer."""
        return torch.lerp(x, self.layer(x), self.rate)

    def export(self) -> GradientStep:
        """Return ``x - rate h W^T phi(W x + b)`` with the proved step h inside W and b."""
        exported = self.layer.export()  # its own step is inside W and b
        exported.step = torch.tensor(self.rate)
        return exported


class Free(nn.Module):
    """``x - V relu(W x + b)`` without any constraint."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(PIXELS, hidden), nn.Linear(hidden, PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        """Residual block."""
        outer: Tensor = self.outer(self.inner(x).relu())
        return x - outer


@torch.enable_grad()
def trained(model: nn.Module, images: Tensor, epochs: int) -> nn.Module:
    """Train to remove noise of a level that varies."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for x in images[torch.randperm(len(images))].split(100):
            noise = NOISE_IN_TRAINING * torch.rand(len(x), 1) * torch.randn_like(x)
            with computed_once(model):
                loss = (model(x + noise) - x).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def proved_chain(denoiser: list[GradientStep], t: float) -> float:
    """C of ``P D(x - t grad g(x))``, proved: infinite if a part is not averaged."""
    averaged = [t / 2, 1 / 2]  # grad g is 1-Lipschitz; a projection is 1/2-averaged
    for part in denoiser:
        norm = float(onelip.norms.dense(part.inner.weight))
        assert part.step is not None
        averaged.append(
            float(part.step) * norm**2 / 2 * (1 + 1e-12)
        )  # phi is ReLU; room for rounding
    return sum(a / (1 - a) if a < 0.99 else math.inf for a in averaged) * (1 + 1e-12)


def iterated(denoiser: nn.Module, y: Tensor, mask: Tensor, t: float) -> Callable[[Tensor], Tensor]:
    """Return T: a gradient step towards the known pixels, the denoiser, a projection."""
    return lambda x: denoiser(x - t * mask * (x - y)).clamp(0, 1)


def steps_of(iteration: Callable[[Tensor], Tensor], x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Iterate; return the images, and the length of every step, ``(steps, images)``."""
    lengths = []
    for _ in range(steps):
        moved = iteration(x)
        lengths.append((moved - x).norm(dim=1))
        x = moved
    return x, torch.stack(lengths)


def check(iteration: Callable[[Tensor], Tensor], lengths: Tensor, chain: float, e: float) -> None:
    """Assert the theorem; each application of T is off by at most e."""
    k = torch.arange(len(lengths), dtype=torch.float64)[:, None]
    assert (lengths[1:] <= lengths[:-1] + 2 * e).all(), "a step grew"
    assert (lengths <= STRETCH * (chain / (k + 1)).sqrt() + (2 * k + 1) * e).all(), "too long"
    x, z = torch.rand(2, *lengths.shape[1:], PIXELS, dtype=torch.float64)  # and what it rests on
    for near in (1, 1e-2, 1e-4):
        z = x + near * (z - x)
        moved = iteration(x) - iteration(z)
        left = moved.square().sum(1) + (x - z - moved).square().sum(1) / chain
        assert (left <= (x - z).square().sum(1) + 32 * e * (x - z).norm(dim=1)).all(), (
            "not averaged"
        )


@torch.no_grad()
def run(
    epochs: int = 40, depth: int = 8, hidden: int = 256, steps: int = 1000, t: float = 0.5
) -> dict[str, dict[str, Any]]:
    """Train, restore, check; return the figures of each denoiser."""
    torch.manual_seed(0)
    images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    train, clean = images[:1347], images[1347:].double()
    mask = (torch.rand_like(clean) < KNOWN).double()
    y = (mask * (clean + NOISE * torch.randn_like(clean))).clamp(0, 1)
    denoisers: dict[
        str, list[nn.Module]
    ] = {  # the last is x -> 1 - x, a photographic negative: a full step on |x - 1/2|^2 / 2
        "half step": [Step(hidden, 0.5) for _ in range(depth)],
        "full step": [Step(hidden, 1) for _ in range(depth)],
        "unconstrained": [Free(hidden) for _ in range(depth)],
        "full step, negative": [
            GradientStep(torch.eye(64), torch.full((64,), -0.5), nn.Identity(), torch.tensor(2.0))
        ],
    }
    found: dict[str, dict[str, Any]] = {}
    for name, blocks in denoisers.items():
        if len(blocks) > 1:
            trained(nn.Sequential(*blocks), train, epochs)
        parts = [part.export() if isinstance(part, Step) else part for part in blocks]
        denoiser = nn.Sequential(*parts).double().eval()
        steps_in = [part for part in denoiser if isinstance(part, GradientStep)]
        chain = proved_chain(steps_in, t) if len(steps_in) == len(denoiser) else math.inf
        iteration = iterated(denoiser, y, mask, t)
        x, lengths = steps_of(iteration, y, steps)
        if chain < math.inf:  # clipping rounds nothing; the step on g rounds 3 times
            error = float(forward_error(denoiser, (PIXELS,), 2 * STRETCH)) + 2.0**-50 * STRETCH
            check(iteration, lengths, chain, error)
        found[name] = {
            "constant": float(onelip.lipschitz_bound(denoiser, (PIXELS,))),
            "chain": chain,
            "psnr": -10 * math.log10(float((x - clean).square().mean())),
            "longest": {k: float(lengths[k - 1].max()) for k in (1, 10, steps // 10, steps)},
            "proved": STRETCH * math.sqrt(chain / steps),
            "grew": int((lengths[1:] > lengths[:-1] + 1e-9).any(0).sum()),
            "moving": int((lengths[-1] > 1e-3).sum()),
            "lengths": lengths.amax(1),
            "images": x,
        }
    found["half step"] |= {"clean": clean, "masked": y}
    return found


def draw(found: dict[str, dict[str, Any]]) -> None:
    """Draw the longest step over all images, and some images."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=[1.2, 1])
    for name, of in found.items():
        left.loglog(range(1, len(of["lengths"]) + 1), of["lengths"].clamp(min=1e-17), label=name)
    half = found["half step"]
    proved = [STRETCH * math.sqrt(half["chain"] / k) for k in range(1, len(half["lengths"]) + 1)]
    left.loglog(range(1, len(proved) + 1), proved, "k--", label="proved, half step")
    left.set(xlabel="iteration", ylabel="longest step of 450 images", ylim=(1e-16, 1e2))
    left.legend(fontsize=8)
    rows = [half[key][:8].view(8, 8, 8) for key in ("masked", "images", "clean")]
    padded = [torch.cat([nn.functional.pad(x, (1, 1, 1, 1)) for x in row], 1) for row in rows]
    right.imshow(torch.cat(padded), cmap="gray_r", vmin=0, vmax=1)
    right.set(xticks=[], yticks=[4.5, 14.5, 24.5], yticklabels=["given", "restored", "true"])
    figure.tight_layout()


if __name__ == "__main__":
    results = run()
    print("denoiser              |D| <=         C   PSNR   longest step after 1, 10, 100, 1000")
    for name, of in results.items():
        steps = "  ".join(f"{length:.1e}" for length in of["longest"].values())
        print(f"{name:20} {of['constant']:7.6g} {of['chain']:9.3f} {of['psnr']:6.2f}   {steps}")
        print(f"{'':20} steps grew on {of['grew']} of 450 images, {of['moving']} still move")
    print(f"proved for the half step after 1000: {results['half step']['proved']:.2f}")
    draw(results)
