r"""
A classifier that cannot punish a larger tumour for being larger
================================================================

A score of malignancy from 30 measurements of cells (scikit-learn's breast cancer data) shall never
fall when one of four of them grows: radius, texture, smoothness and concave points of the worst
cells. Everything else is free.

**Theorem** (Kitouni, Nolte and Williams 2023). Let h have the Lipschitz constant L. Then
``f(x) = h(x) + (L + d) sum of x_i over i in M`` has all partial derivatives in M at least d, since
those of h are at least -L. *As computed*: if every score is off by at most e, and the features in M
grow by 2 e / d in sum or more, the computed score does not fall. Here e is proved for sums in any
order, and 2 e / d lies far below the smallest difference of two values in the data: on the data's
own grid the program is monotone, not only the function.

.. image:: /figures/monotone.png

Run: ``python examples/plot_monotone.py`` (15 seconds on one core).
"""

# sphinx_gallery_thumbnail_path = "figures/monotone.png"
import itertools
import math
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip.certificates.forward_error import forward_error
from onelip.layers import CholeskyLinear, MaxMin

MONOTONE = ("worst radius", "worst texture", "worst smoothness", "worst concave points")
SPREAD, ROOM = 5.0, 1e-3  # inputs are clipped to 5 deviations; d


class Score(nn.Module):
    """``h(x) + slope * sum of the features in M``, on inputs that are clipped."""

    def __init__(self, body: nn.Module, chosen: list[int], slope: float) -> None:
        super().__init__()
        self.body, self.chosen, self.slope = body, chosen, slope

    def forward(self, x: Tensor) -> Tensor:
        """Score of malignancy, ``(batch,)``."""
        x = x.clamp(-SPREAD, SPREAD)  # does not decrease, as every step before it
        free: Tensor = self.body(x).squeeze(1)
        return free + self.slope * x[:, self.chosen].sum(1)


def bodies(features: int, width: int) -> dict[str, nn.Sequential]:
    """Return a network of constant 1, and a plain one."""
    sizes = (features, width, width, 1)
    dense = [CholeskyLinear(n, m) for n, m in itertools.pairwise(sizes)]
    plain = [nn.Linear(n, m) for n, m in itertools.pairwise(sizes)]
    return {
        "monotone": nn.Sequential(dense[0], MaxMin(), dense[1], MaxMin(), dense[2]),
        "plain": nn.Sequential(plain[0], nn.ReLU(), plain[1], nn.ReLU(), plain[2]),
    }


def trained(score: Score, x: Tensor, y: Tensor, steps: int) -> None:
    """Fit score times a temperature by logistic regression."""
    temperature = nn.Parameter(torch.zeros(()))
    weights = [*score.parameters(), temperature]
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.05)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,))
        loss = F.binary_cross_entropy_with_logits(temperature.exp() * score(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def proved(score: Score, features: int) -> tuple[Score, float, float]:
    """Return the score in float64 with its proved slope, L, and the rounding e of a score."""
    body = onelip.export(score.body.eval()).double()
    constant = float(onelip.lipschitz_bound(body))
    reach = SPREAD * math.sqrt(features)
    size = constant * reach + float(body(torch.zeros(1, features).double()).abs()) + 1
    size += (constant + ROOM) * SPREAD * len(score.chosen)  # no partial sum is larger
    e = float(forward_error(body, (features,), reach)) + 2.0**-48 * size
    return Score(body, score.chosen, constant + ROOM), constant, e


def falls(score: Score, x: Tensor, least: float) -> float:
    """Share of pairs in which features of M grow by ``least`` or more, and the score falls."""
    fallen = []
    for size in (least, 1e-6, 1e-4, 1e-2, 0.1, 1.0, 3.0):
        for _ in range(20):
            start = x + torch.randn_like(x)
            grown = start.clamp(-SPREAD, SPREAD)
            more = torch.rand(len(x), len(score.chosen)).double().pow(4)  # some hardly grow
            more *= 1.001 * max(size, least) / more.sum(1, keepdim=True)
            grown[:, score.chosen] += more
            inside = (grown.abs() <= SPREAD).all(1)  # clipping would swallow the growth
            fallen.append((score(grown) < score(start))[inside])
    return float(torch.cat(fallen).double().mean())


def least_slope(score: Score, x: Tensor) -> float:
    """Smallest partial derivative in M that is found near the data."""
    points = (x + torch.randn(20, *x.shape).double()).flatten(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(score(points).sum(), points)
    inside = (points.abs() < SPREAD).all(1)
    return float(gradient[inside][:, score.chosen].min())


def resolution(x: Tensor) -> float:
    """Smallest difference of two values of a feature."""
    gaps = [column.unique().diff() for column in x.T]
    return min(float(gap[gap > 1e-9].min()) for gap in gaps)


def curves(score: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gain in score of 30 patients, whose second feature in M runs from -2 to 3 deviations."""
    ticks = torch.linspace(-2, 3, 200).double()
    moved = x[:30, None].repeat(1, len(ticks), 1)
    moved[..., score.chosen[1]] = ticks
    found = score(moved.flatten(0, 1)).view(-1, len(ticks))
    return ticks, found - found[:, :1]


def run(splits: int = 5, steps: int = 600, width: int = 64) -> dict[str, dict[str, Any]]:
    """Train on several splits; return means, and the worst of what a theorem speaks of."""
    data = load_breast_cancer()
    names = list(data.feature_names)
    chosen = [names.index(name) for name in MONOTONE]
    rows: dict[str, list[dict[str, float]]] = {"monotone": [], "plain": []}
    drawn: dict[str, tuple[Tensor, Tensor]] = {}
    for split in range(splits):
        x, y = torch.tensor(data.data), torch.tensor(1.0 - data.target)  # 1 is malignant
        parts = train_test_split(x, y, test_size=0.3, random_state=split, stratify=y)
        mean, deviation = parts[0].mean(0), parts[0].std(0)
        train, test = ((part - mean) / deviation for part in parts[:2])
        torch.manual_seed(split)
        for name, body in bodies(len(names), width).items():
            score = Score(body, chosen, slope=1 + ROOM if name == "monotone" else 0)
            trained(score, train.float(), parts[2].float(), steps)
            constant = e = math.nan
            if name == "monotone":
                score, constant, e = proved(score, len(names))
            score = score.double().eval()
            with torch.no_grad():
                found = score(test)
                drawn[name] = curves(score, test)
                share = falls(score, test, least=2 * e / ROOM if name == "monotone" else 1e-6)
            row = {
                "accuracy": float(((found > 0) == (parts[3] > 0)).double().mean()),
                "auc": float(roc_auc_score(parts[3], found)),
                "falls": share,
                "least slope": least_slope(score, test),
                "constant": constant,
                "grid": 2 * e / ROOM,
                "resolution": resolution(x[:, chosen] / deviation[chosen]),
            }
            rows[name].append(row)
            if name == "monotone":
                assert share == 0, "a computed score fell"
                assert row["grid"] < row["resolution"], "the data is finer than the proof"
                assert row["least slope"] >= ROOM * (1 - 1e-9), "a slope is too small"
    means, most = ("accuracy", "auc"), ("falls", "constant", "grid")
    return {
        name: {key: sum(row[key] for row in some) / splits for key in means}
        | {key: max(row[key] for row in some) for key in most}
        | {key: min(row[key] for row in some) for key in ("least slope", "resolution")}
        | dict(zip(("ticks", "curves"), drawn[name], strict=True))
        for name, some in rows.items()
    }


def draw(found: dict[str, dict[str, Any]]) -> None:
    """Draw the scores of some patients while one measurement grows; where they fall, in red."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    for axis, (name, of) in zip(axes, found.items(), strict=True):
        for curve in of["curves"]:
            axis.plot(of["ticks"], curve, color="tab:blue", linewidth=1)
            falling = (curve[1:] < curve[:-1]).nonzero().flatten()
            axis.plot(of["ticks"][falling], curve[falling], "r.", markersize=2)
        axis.set(title=name, xlabel="worst texture, deviations", ylabel="gain in score")
    figure.tight_layout()


if __name__ == "__main__":
    print("          correct    AUC     scores that fell least slope  L           2 e / d   data")
    results = run()
    for name, of in results.items():
        print(
            f"{name:9} {100 * of['accuracy']:6.2f} %  {of['auc']:.4f}  {100 * of['falls']:8.3f} %"
            f"          {of['least slope']:9.5f}   {of['constant']:.8f}  {of['grid']:.1e}"
            f"  {of['resolution']:.1e}"
        )
    draw(results)
