r"""
A residual network that is inverted with a proved error
=======================================================

Layers x + g(x) with Lip(g) <= L < 1 are bijections. Seven of them carry two moons to a Gaussian, so
that ``log p(x) = log N(F(x)) + sum of log |det(I + g')|`` is the density of the moons, and F^-1
draws new ones.

**Theorem** (Banach; Behrmann et al. 2019). ``x <- y - g(x)`` converges to the inverse of y, and
every x whose residual is small is close to it::

    |x - inverse(y)|  <=  |x + g(x) - y| / (1 - L).

*As computed*: with g off by at most e, the residual is off by at most e and the rounding of two
sums, so what remains when the iteration stands still is rounding / (1 - L). The inverse of a layer
has the constant 1 / (1 - L), by which errors of later layers grow on their way back. Determinants
are exact, 2 x 2; they are positive, between (1 - L)^2 and (1 + L)^2.

.. image:: /figures/invertible.png

Run: ``python examples/plot_invertible.py`` (45 seconds on one core).
"""

# sphinx_gallery_thumbnail_path = "figures/invertible.png"
import math
from typing import Any

import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

import onelip
from onelip.certificates.forward_error import forward_error
from onelip.layers import CholeskyLinear, Rescale, computed_once

CONTRACTION, REACH = 0.9, 32.0  # L that is aimed at; no point on the way is longer than REACH


def branch(width: int, factor: float) -> nn.Sequential:
    """Build g: smooth, and with a constant of ``factor``."""
    return nn.Sequential(
        CholeskyLinear(2, width),
        nn.ELU(),
        CholeskyLinear(width, width),
        nn.ELU(),
        CholeskyLinear(width, 2),
        Rescale(factor, trained=False),
    )


def with_determinant(g: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x + g(x)`` and ``log det (I + g'(x))``, exactly, from both rows of g'."""
    moved = g(x)
    rows = [torch.autograd.grad(moved[:, i].sum(), x, create_graph=True)[0] for i in range(2)]
    det = (1 + rows[0][:, 0]) * (1 + rows[1][:, 1]) - rows[0][:, 1] * rows[1][:, 0]
    return x + moved, det.log()


def density(branches: list[nn.Module], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(x), and the log-determinants of all layers, ``(layers, batch)``."""
    x, dets = x.detach().requires_grad_(), []
    for g in branches:
        x, det = with_determinant(g, x)
        dets.append(det)
    logs = torch.stack(dets)
    return logs.sum(0) - x.square().sum(1) / 2 - math.log(2 * math.pi), logs


def trained(branches: nn.ModuleList, points: Tensor, steps: int) -> list[nn.Module]:
    """Maximise the likelihood; return exported branches in float64."""
    optimizer = torch.optim.Adam(branches.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        with computed_once(branches):
            loss = -density(list(branches), points[torch.randint(len(points), (256,))])[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return [onelip.export(g.eval()).double() for g in branches]


class Inverse:
    """Inverse of ``x + g(x)`` by iteration, with its proved error."""

    def __init__(self, g: nn.Module, iterations: int = 1000) -> None:
        self.g, self.iterations = g, iterations
        self.constant = float(onelip.lipschitz_bound(g)) * (1 + 1e-15)
        # one evaluation of g, a sum and a difference of numbers up to 3 REACH
        self.rounding = float(forward_error(g, (2,), REACH)) + 2.0**-50 * 3 * REACH

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, and a bound of its distance to the exact inverse of y."""
        x = y
        for _ in range(self.iterations):
            x, before = y - self.g(x), x
            if torch.equal(x, before):
                break
        assert float(torch.cat([x, y]).norm(dim=1).max()) <= REACH
        residual = (x + self.g(x) - y).norm(dim=1)
        return x, (residual + self.rounding) / (1 - self.constant) * (1 + 1e-12)


@torch.no_grad()
def run(layers: int = 7, width: int = 64, steps: int = 1500, grid: int = 400) -> dict[str, Any]:
    """Train, invert, check; return the figures."""
    torch.manual_seed(0)
    moons, _ = make_moons(6000, noise=0.08, random_state=0)
    points = torch.tensor((moons - moons.mean(0)) / moons.std(0))
    branches = nn.ModuleList(branch(width, CONTRACTION) for _ in range(layers))
    with torch.enable_grad():
        exact = trained(branches, points[:5000].float(), steps)
        held_out, dets = density(exact, points[5000:])
    inverses = [Inverse(g) for g in exact]
    largest = max(inverse.constant for inverse in inverses)
    assert largest < 1

    x = points[5000:]
    y = x
    for g in exact:
        y = y + g(y)
    back, bound = y, torch.zeros(len(y), dtype=torch.float64)
    for inverse in reversed(inverses):  # exact layers would not have led from x to y: rounding
        back, own = inverse(back)
        bound = own + (bound + inverse.rounding) / (1 - inverse.constant)
    error = (back - x).norm(dim=1)
    assert (error <= bound).all(), "farther from the inverse than proved"
    low, high = 2 * math.log(1 - largest), 2 * math.log(1 + largest)
    assert ((dets >= low - 1e-9) & (dets <= high + 1e-9)).all(), "a determinant is out of range"

    ticks = torch.linspace(-5, 5, grid, dtype=torch.float64)
    plane = torch.cartesian_prod(ticks, ticks)
    with torch.enable_grad():
        image = torch.cat([density(exact, part)[0].detach() for part in plane.split(20_000)]).exp()
    mass = float(image.sum() * (ticks[1] - ticks[0]) ** 2)  # 1, if determinants and F are right
    samples = torch.randn(2000, 2, dtype=torch.float64)
    for inverse in reversed(inverses):
        samples, _ = inverse(samples)

    steep = torch.tensor([[0.0, -1.2], [1.2, 0.0]], dtype=torch.float64)  # invertible as well, but
    wrong = target = x + x @ steep  # with a constant of 1.2 the iteration runs away
    for _ in range(100):
        wrong = target - wrong @ steep
    return {
        "constant": largest,
        "log-likelihood": float(held_out.mean()),
        "gaussian": -math.log(2 * math.pi) - float(x.square().sum(1).mean()) / 2,
        "error": float(error.max()),
        "bound": float(bound.max()),
        "log-determinant": (float(dets.min()), float(dets.max())),
        "mass": mass,
        "steep error": float((wrong - x).norm(dim=1).median()),
        "density": image.view(grid, grid),
        "samples": samples,
    }


def draw(found: dict[str, Any]) -> None:
    """Draw the density and new points."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 4))
    axes[0].imshow(found["density"].T, origin="lower", extent=(-5, 5, -5, 5), cmap="magma")
    axes[0].set_title(f"density, mass {found['mass']:.5f}", fontsize=10)
    axes[1].scatter(*found["samples"].T, s=2)
    axes[1].set_title("inverses of Gaussian points", fontsize=10)
    for axis in axes:
        axis.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
    figure.tight_layout()


if __name__ == "__main__":
    results = run()
    low, high = results["log-determinant"]
    rows = {
        "largest constant of a branch, proved": f"{results['constant']:.7f}",
        "there and back, error": f"{results['error']:.1e}, proved {results['bound']:.1e}",
        "with a branch of constant 1.2": f"{results['steep error']:.1e} after 100 iterations",
        "log-determinants of layers": f"{low:.2f} to {high:.2f}",
        "integral of the density": f"{results['mass']:.6f}",
        "log-likelihood on held-out points": f"{results['log-likelihood']:.3f}",
        "that of a Gaussian": f"{results['gaussian']:.3f}",
    }
    for title, value in rows.items():
        print(f"{title:38}  {value}")
    draw(results)
