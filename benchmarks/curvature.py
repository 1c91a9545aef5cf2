"""Curvature certificates of all samples and all rivals at once, against a loop over both.

Clusters in groups of five, as CIFAR-100 has them, stand for features; the heads are trained on them
for a few hundred steps. ``python benchmarks/curvature.py``: about ten minutes on one core.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import harness
import torch
from torch import Tensor, nn

from onelip import bounds
from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.certificates.head_curvature.radii import HeadRadii, head_radii
from onelip.certificates.head_curvature.search import Found, Pairs, search
from onelip.certificates.head_curvature.tangents import Differences
from onelip.reading import read

SEED = 0
CLASSES = (10, 20, 50, 100, 200, 500, 1000)


def clusters(
    features: int, classes: int, count: int, noise: float, seed: int
) -> tuple[Tensor, ...]:
    """Points around centres that come in groups of five; the centres are always the same."""
    fixed = torch.Generator().manual_seed(SEED)
    groups = torch.randn(classes // 5, features, generator=fixed).repeat_interleave(5, 0)
    centres = 1.6 * groups + torch.randn(classes, features, generator=fixed)
    other = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=other)
    points = centres[labels] + noise * torch.randn(count, features, generator=other)
    return points / math.sqrt(features), labels


def trained(
    features: int, hidden: int, classes: int, noise: float, phi: nn.Module
) -> nn.Sequential:
    """A head that fits its clusters, more or less."""
    torch.manual_seed(SEED)
    head = nn.Sequential(nn.Linear(features, hidden), phi, nn.Linear(hidden, classes))
    points, labels = clusters(features, classes, 20000, noise, SEED + 1)
    optimizer = torch.optim.Adam(head.parameters(), 1e-3)
    for _ in range(200 + 2 * classes):
        batch = torch.randint(len(points), (256,))
        loss = nn.functional.cross_entropy(head(points[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


class Case:
    """A head, what was proved of it beforehand, and samples."""

    def __init__(
        self, sizes: tuple[int, int, int], samples: int, phi: nn.Module, noise: float
    ) -> None:
        features, hidden, classes = sizes
        self.shape = {"features": features, "hidden": hidden, "classes": classes}
        network = trained(features, hidden, classes, noise, phi)
        inner, activation, outer = network
        assert isinstance(inner, nn.Linear)
        assert isinstance(outer, nn.Linear)
        self.head = TwoLayers.of(inner, activation, outer)
        self.points, labels = clusters(features, classes, samples, noise, SEED + 2)
        self.prediction = self.head(self.points.double()).argmax(1)
        self.accuracy = float((self.prediction == labels).double().mean())
        self.slopes, _ = timed(
            lambda: bounds.LipLT().logit_bounds(read(network, (features,))).pairwise
        )
        self.curvature = Curvature(self.head)
        two = torch.tensor([0]), torch.tensor([1])
        _, self.rough_seconds = timed(lambda: self.curvature.rough(*two))

    def radii(self, count: int | None = None) -> HeadRadii:
        """Of the first samples."""
        points, prediction = self.points[:count], self.prediction[:count]
        return head_radii(self.head, points, prediction, self.curvature, self.slopes)

    def rivals(self, sample: Tensor) -> tuple[Pairs, Tensor]:
        """All pairs of some samples, with the cheap bounds."""
        rival = torch.arange(self.head.classes).repeat(len(sample))
        sample = sample.repeat_interleave(self.head.classes)
        first = self.prediction[sample]
        bend = self.curvature.rough(first, rival)
        pairs = Pairs(self.points[sample].double(), first, rival, bend)
        keep = rival != first
        return pairs[keep], sample[keep]

    def search(self, pairs: Pairs, steps: int = 30) -> Found:
        """Of all pairs to the end."""
        enough = torch.full_like(pairs.bend, math.inf)
        differences = Differences(self.head)
        parts = [
            search(differences, pairs[rows], enough=enough[rows], steps=steps, tolerance=1e-4)
            for rows in torch.arange(len(pairs.bend)).split(1024)
        ]
        columns = (
            torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Found)
        )
        return Found(*columns)

    def one_by_one(self, samples: int) -> None:
        """The plain loop: each sample, each rival, to the end."""
        differences = Differences(self.head)
        pairs, _ = self.rivals(torch.arange(samples))
        for row in range(len(pairs.bend)):
            one = pairs[torch.tensor([row])]
            infinite = torch.full_like(one.bend, math.inf)
            search(differences, one, enough=infinite, steps=30, tolerance=1e-4)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the seconds it took."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def quality(radii: HeadRadii) -> dict[str, float]:
    """How close the radii are to their witnesses."""
    ratio = (radii.radius / radii.distance)[radii.radius > 0]
    return {
        "exact_share_1e-3": round(float((ratio >= 1 - 1e-3).double().mean()), 4),
        "exact_share_1e-4": round(float((ratio >= 1 - 1e-4).double().mean()), 4),
        "mean_radius_over_distance": round(float(ratio.mean()), 6),
        "median_radius": round(float(radii.radius.median()), 4),
        "without_witness": int(radii.distance.isinf().sum()),
    }


def count_tangents() -> list[int]:
    """From now on, how many tangents each call computes."""
    counts: list[int] = []
    whole = Differences.tangents

    def counted(self: Differences, points: Tensor, *others: Any) -> Any:
        counts.append(len(points))
        return whole(self, points, *others)

    Differences.tangents = counted  # type: ignore[assignment,method-assign]
    return counts


def measured(case: Case, counts: list[int]) -> dict[str, Any]:
    """Time of all samples, first with the proofs of curvature that they need, then without."""
    _, first = timed(case.radii)
    counts.clear()
    radii, seconds = timed(case.radii)
    samples = len(case.points)
    return {
        **case.shape,
        "activation": str(case.head.activation),
        "samples": samples,
        "accuracy": round(case.accuracy, 4),
        "seconds": round(seconds, 2),
        "ms_per_sample": round(1e3 * seconds / samples, 3),
        "tangents_per_sample": round(sum(counts) / samples, 2),
        "rough_curvature_seconds": round(case.rough_seconds, 2),
        "exact_curvature_seconds": round(max(0.0, first - seconds), 2),
        "pairs_with_exact_curvature": case.curvature.proved_pairs,
        **quality(radii),
    }


def against_loops(case: Case, row: dict[str, Any], *, loop: int = 3, batch: int = 32) -> None:
    """The same solves without rejection: one by one, and all rivals of a few samples at once."""
    _, seconds = timed(lambda: case.one_by_one(loop))
    row["loop_samples"] = loop
    row["loop_seconds_extrapolated"] = round(seconds / loop * row["samples"], 1)
    row["loop_over_ours"] = round(row["loop_seconds_extrapolated"] / row["seconds"], 1)
    pairs, sample = case.rivals(torch.arange(batch))
    found, seconds = timed(lambda: case.search(pairs))
    row["all_rivals_batched_samples"] = batch
    row["all_rivals_batched_over_ours"] = round(
        seconds / batch * row["samples"] / row["seconds"], 1
    )
    infinite = torch.full((batch,), math.inf, dtype=torch.float64)
    fast = infinite.scatter_reduce(0, sample, case.search(pairs, 0).radius, "amin")
    full = infinite.scatter_reduce(0, sample, found.radius, "amin")
    ours = case.radii(batch).radius
    row["radius_over_fast_certificate"] = round(float((ours / fast)[ours > 0].mean()), 4)
    row["largest_difference_from_all_rivals"] = float((full / ours - 1)[ours > 0].abs().max())


def growth(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Least squares: milliseconds per sample as a + b classes, and tangents as a power."""
    classes = torch.tensor([[1.0, row["classes"]] for row in rows]).double()
    seconds = torch.tensor([row["ms_per_sample"] for row in rows]).double()
    line = torch.linalg.lstsq(classes, seconds[:, None]).solution[:, 0]
    tangents = torch.tensor([row["tangents_per_sample"] for row in rows]).double()
    logs = torch.stack([torch.ones(len(rows)).double(), classes[:, 1].log()], 1)
    power = torch.linalg.lstsq(logs, tangents.log()[:, None]).solution[:, 0]
    return {
        "fit": "classes",
        "ms_per_sample_at_0_classes": round(float(line[0]), 4),
        "ms_per_sample_per_class": round(float(line[1]), 6),
        "tangents_grow_as_classes_to_the": round(float(power[1]), 3),
    }


def rows() -> Iterator[dict[str, Any]]:
    """All records."""
    torch.set_num_threads(1)
    counts = count_tangents()
    for phi in (nn.Softplus(), nn.Softplus(10), nn.Tanh(), nn.Sigmoid()):
        case = Case((128, 512, 20), 2000, phi, 3.0)
        row = measured(case, counts)
        against_loops(case, row)
        yield row
    by_classes = []
    for classes in CLASSES:
        row = measured(Case((128, 512, classes), 1000, nn.Softplus(), 3.0), counts)
        by_classes.append(row)
        yield row
    yield growth(by_classes)
    case = Case((1024, 4096, 100), 10000, nn.Softplus(), 10.0)
    row = measured(case, counts)
    against_loops(case, row)
    yield row


if __name__ == "__main__":
    harness.save("curvature_cpu", rows())
