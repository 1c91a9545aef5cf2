r"""
A distance field that a ray never oversteps
===========================================

Sphere tracing draws the surface {f = 0} of a field f: a ray advances by f(x) / L until f is small.
A network trained as a distance field is drawn as it is if its constant L is *proved*; where it is
steeper than somebody believed, rays pass through the surface.

**Theorem.** If f has the Lipschitz constant L, then ``|f(x)| <= L dist(x, {f = 0})``. So no ray
crosses the surface by steps of at most f(x) / L. *As computed*: with values off by at most e and
positions by at most p, steps of ``(computed f(x) - e) / L - p`` are short enough, and rays end
where the computed f falls below a tolerance that is larger than ``e + L p``.

.. image:: /figures/distance-field.png

Run: ``python examples/plot_distance_field.py`` (30 seconds on one core).
"""

# sphinx_gallery_thumbnail_path = "figures/distance-field.png"
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

import onelip
from onelip.certificates.forward_error import forward_error
from onelip.layers import CholeskyLinear, MaxMin, computed_once

CUBE, FAR, TOLERANCE = 1.2, 4.0, 1e-3  # sides from -CUBE to CUBE; the end of a ray; where it hits
POSITION = 1e-14  # more than the rounding of o + t v, for |o|, t <= 4 and |v| <= 1


def distance(x: Tensor) -> Tensor:
    """Signed distance to a ring with a ball in it, negative inside."""
    ring = torch.hypot(torch.hypot(x[:, 0], x[:, 1]) - 0.75, x[:, 2]) - 0.2
    ball = x.norm(dim=1) - 0.28
    return torch.minimum(ring, ball)


def fields(width: int) -> dict[str, nn.Sequential]:
    """Return a field of constant 1, and a plain one."""
    sizes = list(itertools.pairwise((3, width, width, width, 1)))
    dense = [[CholeskyLinear(*size), MaxMin()] for size in sizes]
    plain = [[nn.Linear(*size), nn.ReLU()] for size in sizes]
    return {
        "proved": nn.Sequential(*list(itertools.chain(*dense))[:-1]),
        "plain": nn.Sequential(*list(itertools.chain(*plain))[:-1]),
    }


def trained(field: nn.Sequential, steps: int) -> nn.Module:
    """Fit the distance on random points, in float64 in the end."""
    optimizer = torch.optim.Adam(field.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x = CUBE * (2 * torch.rand(1024, 3) - 1)
        with computed_once(field):
            error, near = field(x).squeeze(1) - distance(x), distance(x).abs() < 0.1
            loss = (error.square() * (1 + 9 * near)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return onelip.export(field.eval()).double()


def camera(side: int) -> tuple[Tensor, Tensor]:
    """Return the origin and the unit directions of ``side^2`` rays."""
    eye = torch.tensor([0.9, -1.9, 1.2], dtype=torch.float64)
    forward = -eye / eye.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0, 1]).double())
    right = right / right.norm()
    up = torch.linalg.cross(right, forward)
    at = torch.linspace(-0.5, 0.5, side, dtype=torch.float64)
    rays = forward + at[None, :, None] * right - at[:, None, None] * up
    return eye, (rays / (rays.norm(dim=-1, keepdim=True) * (1 + 1e-15))).flatten(0, 1)


def traced(
    field: nn.Module, eye: Tensor, rays: Tensor, constant: float, e: float
) -> tuple[Tensor, Tensor, int]:
    """Return where each ray ends, whether it hit, and the number of steps."""
    t = torch.zeros(len(rays), dtype=torch.float64)
    hit, moving, steps = torch.zeros_like(t).bool(), torch.ones_like(t).bool(), 0
    while moving.any():
        f = field(eye + t[moving, None] * rays[moving]).squeeze(1)
        near = f <= TOLERANCE
        hit[moving] = near
        t[moving] += torch.where(near, 0, ((f - e) / constant - POSITION) * (1 - 1e-12))
        moving, steps = ~hit & (t < FAR), steps + 1
    return t, hit, steps


def crossings(field: nn.Module, eye: Tensor, rays: Tensor, t: Tensor, points: int) -> Tensor:
    """Smallest value of the field on the way of each ray, at evenly spaced points."""
    lowest = torch.full_like(t, math.inf)
    for share in torch.linspace(0, 1, points).double():
        lowest = torch.minimum(lowest, field(eye + share * t[:, None] * rays).squeeze(1))
    return lowest


def distances(field: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """Values of the field at random points, and distances to points where its sign is another."""
    x, z = CUBE * (2 * torch.rand(2, count, 3).double() - 1)
    f = field(x).squeeze(1)
    other = f * field(z).squeeze(1) < 0
    f, x, z, start = f[other], x[other], z[other], x[other]
    for _ in range(50):  # bisection: z keeps the other sign
        middle = (x + z) / 2
        same = (field(middle).squeeze(1) * f > 0)[:, None]
        x, z = torch.where(same, middle, x), torch.where(same, z, middle)
    return f, (z - start).norm(dim=1)


@torch.no_grad()
def run(steps: int = 2500, width: int = 64, side: int = 96, points: int = 200) -> dict[str, Any]:
    """Train, trace, check; return the figures of both fields."""
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    eye, rays = camera(side)
    for name, field in fields(width).items():
        with torch.enable_grad():
            network = trained(field, steps)
        proved = float(onelip.lipschitz_bound(network))
        e = float(forward_error(network, (3,), math.sqrt(3) * FAR))
        # the plain field is taken for a distance, as is common: nobody knows better
        constant = proved if name == "proved" else 1.0
        t, hit, evaluations = traced(network, eye, rays, constant, e if name == "proved" else 0)
        lowest = crossings(network, eye, rays, t, points)
        f, apart = distances(network, 20 * side**2)
        if name == "proved":
            assert e + constant * POSITION < TOLERANCE / 2
            assert (lowest >= -e).all(), "a ray crossed the surface"
            assert (f.abs() <= constant * (apart + POSITION) + e).all(), "the field is too steep"
        surface = CUBE * (2 * torch.rand(50 * side**2, 3).double() - 1)
        surface = surface[distance(surface).abs() < 1e-2]
        found[name] = {
            "constant": proved,
            "error": float((network(surface).squeeze(1) - distance(surface)).abs().mean()),
            "crossed": int((lowest < -1e-9).sum()),
            "deepest": max(0.0, -float(lowest.min())),
            "steepest": float((f.abs() / apart).max()),
            "evaluations": evaluations,
            "picture": picture(network, eye + t[:, None] * rays, hit).view(side, side),
        }
    return found


def picture(field: nn.Module, x: Tensor, hit: Tensor) -> Tensor:
    """Shade each point that was hit by the direction of the surface."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (normal,) = torch.autograd.grad(field(x).sum(), x)
    light = torch.tensor([0.6, -0.4, 0.7]).double()
    shade = 0.55 + 0.45 * nn.functional.normalize(normal, dim=1) @ light
    return torch.where(hit, shade.clamp(0.05, 1), math.nan)


def draw(found: dict[str, Any]) -> None:
    """Draw what the rays see."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 4))
    for axis, (name, of) in zip(axes, found.items(), strict=True):
        axis.imshow(of["picture"], cmap="bone", vmin=-0.1, vmax=1)
        axis.set_title(f"{name}: {of['crossed']} rays crossed the surface", fontsize=10)
        axis.axis("off")
    figure.tight_layout()


if __name__ == "__main__":
    results = run()
    print("field    L          steepest found  rays that crossed  deepest   mean error at surface")
    for name, of in results.items():
        print(
            f"{name:8} {of['constant']:<10.8g} {of['steepest']:8.4f}        {of['crossed']:6} of "
            f"{of['picture'].numel()}     {of['deepest']:.1e}   {of['error']:.4f}"
        )
    draw(results)
