"""Figures of runs: accuracy against eps, with mean and deviation over seeds, and the radii."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onelip.errors import UsageError
from onelip.experiments.classification.attack import attacked_rows
from onelip.experiments.classification.comparison import (
    Group,
    Run,
    common_attacks,
    grouped,
    read,
)
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.stored_radii import StoredRadii, stored_radii
from onelip.experiments.figures import checked_target, colors, name_axes, new_figure, save_figure

_BINS = 40


def plot(runs: Sequence[ClassificationFolder], target: Path | None = None) -> Path:
    """Plot certified and attacked accuracy against eps, and the radii.

    Runs that differ only in their seed are one curve, their mean, with a band of one sample
    standard deviation on both sides. Other runs are named by what differs between them.

    Args:
        runs: certified, and attacked or not.
        target: a PNG, PDF or SVG file; ``figure.png`` in the folder of a single run.

    Raises:
        UsageError: a run is not certified yet, or no target is given for several runs.
    """
    if target is None and len(runs) > 1:
        raise UsageError("a figure of several runs needs a file: --out FIGURE.png")
    target = checked_target(target or runs[0].path / "figure.png")
    groups = grouped([read(run.path) for run in runs])
    radii = [[stored_radii(run.folder) for run in group.runs] for group in groups]
    grid = torch.linspace(0, _largest(groups, radii) * 1.02, 400)
    figure = new_figure(10, 4.4)
    curves, histogram = figure.subplots(1, 2)
    alone = len(groups) == 1
    for group, of_seeds, color in zip(groups, radii, colors(), strict=False):
        label = "certified" if alone else group.label
        shares = torch.stack([_share(seed.radius, seed.right, grid) for seed in of_seeds])
        curves.plot(grid, shares.mean(0), color=color, label=label)
        if alone:
            curves.fill_between(grid, 0, shares.mean(0), color=color, alpha=0.12, linewidth=0)
            _draw_details(curves, group, of_seeds, grid, color)
        if len(shares) > 1:
            mean, spread = shares.mean(0), shares.std(0)
            low, high = (mean - spread).clamp_min(0), (mean + spread).clamp_max(100)
            curves.fill_between(grid, low, high, color=color, alpha=0.25, linewidth=0)
        _draw_attacks(curves, group, color, alone)
        _draw_histogram(histogram, of_seeds, float(grid[-1]), color, alone)
    _name_styles(curves, groups)
    units = dict.fromkeys(run.info.unit for run in runs)
    name_axes(curves, f"eps (l2, {', '.join(units)})", "accuracy, %")
    curves.set(ylim=(0, 100), xlim=(0, float(grid[-1])))
    name_axes(histogram, "certified radius", "test samples, mean over seeds")
    if all(len(group.runs) == 1 for group in groups):
        histogram.set_ylabel("test samples")
    histogram.set(xlim=(0, float(grid[-1])))
    figure.suptitle(_title(groups), fontsize="medium")
    figure.legend(loc="outside lower center", ncols=2 if alone else 3, fontsize="small")
    return save_figure(figure, target)


def _largest(groups: list[Group], radii: list[list[StoredRadii]]) -> float:
    """Largest radius, certified or in a recipe."""
    certified = [float(seed.radius.max()) for of_seeds in radii for seed in of_seeds]
    named = [float(eps) for group in groups for eps in group.runs[0].identity["eps"]]
    return max(*certified, *named)


def _share(radius: Tensor, right: Tensor, grid: Tensor) -> Tensor:
    """Per cent of the images that are right and certified beyond each radius."""
    return 100 * (right & (radius > grid[:, None])).double().mean(1)


def _draw_details(
    curves: Any, group: Group, of_seeds: list[StoredRadii], grid: Tensor, color: str
) -> None:
    """Draw what only a figure of one setting has room for: other proofs, and parts of the set."""
    looser = [(seed.of_product, seed.right) for seed in of_seeds if seed.of_product is not None]
    if len(looser) == len(of_seeds):
        shares = torch.stack([_share(radius, right, grid) for radius, right in looser])
        label = "certified by the product of norms"
        curves.plot(grid, shares.mean(0), "-.", color=color, linewidth=1, label=label)
    for count in sorted({attack["samples"] for attack in common_attacks(group).values()}):
        total = len(of_seeds[0].radius)
        if count < total:
            rows = attacked_rows(total, count)
            same = [_share(seed.radius[rows], seed.right[rows], grid) for seed in of_seeds]
            label = f"certified, the {count} images that are attacked"
            curves.plot(grid, torch.stack(same).mean(0), ":", color=color, linewidth=1, label=label)


def _draw_attacks(curves: Any, group: Group, color: str, alone: bool) -> None:
    """Draw accuracy under attack, mean and deviation; of several settings only the fullest one."""
    for (key, attack), mark in zip(common_attacks(group).items(), "osd^v<>" * 9, strict=False):
        if not alone and key != group.runs[0].identity["attacks"]:
            continue
        eps = [0.0] + [row["eps"] for row in attack["eps"]]
        found = torch.tensor(
            [
                [record["clean"]] + [row["attacked"] for row in record["eps"]]
                for record in (run.folder.read()["attack"][key] for run in group.runs)
            ],
            dtype=torch.float64,
        )
        spread = (100 * found.std(0)).tolist() if len(found) > 1 else None
        style = {"color": color, "markerfacecolor": "white", "linewidth": 1, "capsize": 2}
        label = f"attacked: {key}" if alone else None
        mean = (100 * found.mean(0)).tolist()
        curves.errorbar(eps, mean, spread, fmt=f"{mark}--", label=label, markersize=4, **style)


def _draw_histogram(
    histogram: Any, of_seeds: list[StoredRadii], most: float, color: str, alone: bool
) -> None:
    """Draw how many right images have which radius, for a mean seed."""
    pooled = torch.cat([seed.radius[seed.right] for seed in of_seeds]).numpy()
    histogram.hist(
        pooled,
        bins=_BINS,
        range=(0, most),
        weights=[1 / len(of_seeds)] * len(pooled),
        color=color,
        alpha=0.6 if alone else 1.0,
        histtype="stepfilled" if alone else "step",
    )


def _name_styles(curves: Any, groups: list[Group]) -> None:
    """Say in the legend what lines, bands and marks are."""
    seeds = max(len(group.runs) for group in groups)
    if seeds > 1:
        words = f"± standard deviation over {seeds} seeds"
        curves.fill_between([], [], [], color="0.5", alpha=0.4, linewidth=0, label=words)
    attacks = {str(group.runs[0].identity["attacks"]) for group in groups} - {"none"}
    if len(groups) > 1:
        curves.plot([], [], color="0.3", label="certified (line)")
        style = {"color": "0.3", "markerfacecolor": "white", "linewidth": 1, "markersize": 4}
        if attacks:
            words = attacks.pop() if len(attacks) == 1 else "see the records"
            curves.plot([], [], "o--", label=f"attacked: {words}", **style)


def _test_set(run: Run) -> str:
    dataset = run.identity["dataset"]
    named = "" if dataset in run.identity["recipe"] else f" of {dataset}"
    return f"{run.test_images} test images{named}"


def _title(groups: list[Group]) -> str:
    """Name recipe, test set and level."""
    runs = [run for group in groups for run in group.runs]
    recipes = sorted({str(run.identity["recipe"]) for run in runs})
    sets = sorted({_test_set(run) for run in runs})
    notes = sorted({str(run.identity["data"]) for run in runs} - {""})
    proofs = sorted({str(run.identity["proof"]).rpartition(", ")[2] for run in runs})
    first = ", ".join(recipes) if len(recipes) < 4 else f"{len(recipes)} recipes"
    return f"{first}: {'; '.join([*sets, *notes, *proofs])}"
