r"""
Prediction sets that keep their promise under attack
====================================================

Split conformal prediction returns a set of digits that holds the true one with probability
1 - alpha, whatever the classifier, as long as nobody tampers with the images. A proved constant
keeps that promise under attack, by a shift of one number.

**Theorem** (Vovk et al. 2005; Massena et al. 2025 for Lipschitz scores). Let the score s(x, y) have
the constant K in x, and let q be the ``ceil((n + 1) (1 - alpha))``-th smallest of the scores of n
calibration images. For an exchangeable image x with label y::

    P( s(x', y) <= q + K eps for all x' with |x' - x| <= eps )  >=  1 - alpha.

Here s is the largest other logit minus that of y, and K = L times the largest distance of two rows
of the head. *As computed*, two scores differ by at most 4 e more, e the rounding of the logits.

Image by image, a digit that is in the plain set without attack is in the larger one under every
attack; that is asserted. Averaged over all splits into calibration and test images, coverage is at
least 1 - alpha for *these* images, not only in expectation; the mean over 2000 random splits is
held against that, less four standard errors.

.. image:: /figures/conformal.png

Run: ``python examples/plot_conformal.py`` (12 seconds on one core).
"""

# sphinx_gallery_thumbnail_path = "figures/conformal.png"
import math
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip.attacks import APGD
from onelip.certificates.forward_error import forward_error
from onelip.layers import ConvexPotentialLinear, UnitNormLinear, computed_once

PIXELS, CLASSES, TRAIN = 64, 10, 797


def network(depth: int) -> nn.Sequential:
    """Build a network of constant 1 in front of a head with rows of length 1."""
    layers = (ConvexPotentialLinear(PIXELS, 128) for _ in range(depth))
    return nn.Sequential(*layers, UnitNormLinear(PIXELS, CLASSES))


def trained(model: nn.Sequential, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """Train with a margin; return the exported network in float64."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            with computed_once(model):
                logits = model(x[rows]) - 0.7 * F.one_hot(y[rows], CLASSES)
            loss = F.cross_entropy(logits / 0.2, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return onelip.export(model.eval()).double()


def scores(logits: Tensor) -> Tensor:
    """Largest other logit minus that of each class, ``(batch, classes)``."""
    first, second = logits.topk(2, dim=1).values.unbind(1)
    top = logits == first[:, None]
    return torch.where(top, second[:, None], first[:, None]) - logits


def quantile(calibration: Tensor, alpha: float) -> Tensor:
    """The ``ceil((n + 1) (1 - alpha))``-th smallest score along the last axis."""
    count = calibration.shape[-1]
    rank = math.ceil((count + 1) * (1 - alpha))
    if rank > count:
        return torch.full(calibration.shape[:-1], math.inf, dtype=calibration.dtype)
    return calibration.kthvalue(rank, dim=-1).values


def run(
    *,
    epochs: int = 60,
    depth: int = 6,
    alpha: float = 0.05,
    splits: int = 2000,
    steps: int = 50,
    held_out: int = 1000,
) -> dict[str, Any]:
    """Train, attack once, and calibrate on many splits; return the figures."""
    torch.manual_seed(0)
    data = load_digits()
    order = torch.randperm(len(data.target))
    x, y = torch.tensor(data.data / 16)[order], torch.tensor(data.target)[order]
    model = trained(network(depth), x[:TRAIN].float(), y[:TRAIN], epochs)
    x, y = x[TRAIN:][:held_out], y[TRAIN:][:held_out]

    *body, head = model.children()
    rows = head.get_parameter("weight").detach()
    constant = float(torch.cdist(rows, rows).max() * onelip.lipschitz_bound(nn.Sequential(*body)))
    constant *= 1 + 1e-12  # rounding of distances and of the product
    e = float(forward_error(model, (PIXELS,), math.sqrt(PIXELS)))
    with torch.no_grad():
        clean = scores(model(x))
        own = clean.gather(1, y[:, None]).squeeze(1)
    parts = torch.stack([torch.randperm(len(x)) for _ in range(splits)])
    calibration, test = parts.chunk(2, dim=1)
    q = quantile(own[calibration], alpha)[:, None]

    found: dict[str, Any] = {"constant": constant, "rounding": e, "alpha": alpha, "rows": []}
    for eps in (0.0, 0.1, 0.2, 0.4):
        attacked = x
        if eps:  # untargeted, towards the largest score of the true digit
            ascents = [APGD(loss="margin", targets=t, steps=steps) for t in (0, 3)]
            tries = torch.stack([attack(model, x, y, eps) for attack in ascents])
            tries = torch.cat([tries, x[None]])
            assert ((tries - x).flatten(2).norm(dim=2) <= eps * (1 + 1e-9)).all()
            with torch.no_grad():
                reached = scores(model(tries.flatten(0, 1))).gather(1, y.repeat(3)[:, None])
            attacked = tries[reached.view(3, -1).argmax(0), torch.arange(len(x))]
        with torch.no_grad():
            after = scores(model(attacked))
        worst = after.gather(1, y[:, None]).squeeze(1)
        shift = constant * eps * (1 + 1e-9) + 4 * e  # e for each logit of a difference, twice
        assert (worst <= own + shift).all(), "a score moved by more than its constant allows"
        row: dict[str, float] = {"eps": eps}
        for name, threshold in {"plain": q, "robust": q + shift}.items():
            covered = (worst[test] <= threshold).double().mean(1)
            sizes = (after[test[:50]] <= threshold[:50, :, None]).sum(2).double()
            row[f"{name} coverage"] = float(covered.mean())
            row[f"{name} least"] = float(covered.quantile(0.01))
            row[f"{name} size"] = float(sizes.mean())
            if name == "robust":
                promise = 1 - alpha - 4 * float(covered.std()) / math.sqrt(splits)
                assert covered.mean() >= promise, "less is covered than promised"
        found["rows"].append(row)
    return found


def draw(found: dict[str, Any]) -> None:
    """Draw coverage under attack and the sizes of sets against eps."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    eps = [row["eps"] for row in found["rows"]]
    for name in ("plain", "robust"):
        mean, least, size = (
            [row[f"{name} {key}"] for row in found["rows"]] for key in ("coverage", "least", "size")
        )
        (line,) = left.plot(eps, mean, "o-", label=name)
        left.plot(eps, least, ":", color=line.get_color())
        right.plot(eps, size, "o-", label=name)
    left.axhline(1 - found["alpha"], color="black", linestyle="--", linewidth=1, label="promised")
    left.set(xlabel="eps", ylabel="coverage under attack (dotted: worst 1 % of splits)")
    left.yaxis.label.set_fontsize(8)
    right.set(xlabel="eps", ylabel="mean size of a set")
    left.legend(fontsize=8)
    figure.tight_layout()


if __name__ == "__main__":
    results = run()
    print(f"promised {1 - results['alpha']:.2f}; K = {results['constant']:.6f}")
    print("       coverage under attack (of the worst 1 % of splits)    mean size of a set")
    print("eps    plain            robust                               plain   robust")
    for row in results["rows"]:
        print(
            f"{row['eps']:.2f}   {row['plain coverage']:.3f} ({row['plain least']:.3f})    "
            f"{row['robust coverage']:.3f} ({row['robust least']:.3f})                        "
            f"{row['plain size']:.2f}    {row['robust size']:.2f}"
        )
    draw(results)
