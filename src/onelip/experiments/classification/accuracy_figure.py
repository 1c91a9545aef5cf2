"""Figures of runs: accuracy against eps, and the radii."""

import math
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from onelip.errors import UsageError
from onelip.experiments.classification.attack import attacked_rows
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.figures import checked_target, colors, name_axes, new_figure, save_figure


def plot(runs: list[ClassificationFolder], target: Path | None = None) -> Path:
    """Plot certified and attacked accuracy against eps, and the radii.

    Args:
        runs: certified, and attacked or not.
        target: a PNG, PDF or SVG file; ``figure.png`` in the folder of a single run.

    Raises:
        UsageError: a run is not certified yet, or no target is given for several runs.
    """
    if target is None and len(runs) > 1:
        raise UsageError("a figure of several runs needs a file: --out FIGURE.png")
    target = checked_target(target or runs[0].path / "figure.png")
    figure = new_figure(10, 4)
    curves, histogram = figure.subplots(1, 2)
    for run, color in zip(runs, colors(), strict=False):
        name = run.recipe.name if len(runs) == 1 else run.path.resolve().name
        radius, right = _radii(run)
        looser, _ = _radii(run, "radius_of_product")
        if len(looser):
            share = (right & (looser > _grid(run, radius)[:, None])).double().mean(1)
            label = f"{name}, certified by the product of norms"
            curves.plot(_grid(run, radius), share, "-.", color=color, linewidth=1, label=label)
        _draw(run, name, (radius, right), curves, color)
        style = "stepfilled" if len(runs) == 1 else "step"
        histogram.hist(radius[right].numpy(), bins=40, color=color, alpha=0.6, histtype=style)
    units = dict.fromkeys(run.info.unit for run in runs)
    name_axes(curves, f"eps (l2, {', '.join(units)})", "accuracy")
    curves.set_ylim(0, 1)
    curves.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    histogram.set(xlabel="certified radius", ylabel="test samples")
    histogram.set_xlim(left=0)
    return save_figure(figure, target)


def _draw(
    run: ClassificationFolder, name: str, radii: tuple[Tensor, Tensor], curves: Any, color: str
) -> None:
    metrics, (radius, right) = run.read(), radii
    grid = _grid(run, radius)
    robust = right & (radius > grid[:, None])
    curves.plot(grid, robust.double().mean(1), color=color, label=f"{name}, certified")
    for (key, attack), mark in zip(metrics.get("attack", {}).items(), "osd^v<>" * 9, strict=False):
        eps = [0.0] + [row["eps"] for row in attack["eps"]]
        attacked = [attack["clean"]] + [row["attacked"] for row in attack["eps"]]
        style = {"color": color, "markerfacecolor": "white"}
        curves.plot(eps, attacked, f"{mark}--", label=f"{name}, attacked ({key})", **style)
        if attack["samples"] < len(radius):
            same = robust[:, attacked_rows(len(radius), attack["samples"])].double().mean(1)
            label = f"{name}, certified, the same {attack['samples']}"
            curves.plot(grid, same, ":", color=color, linewidth=1, label=label)


def _grid(run: ClassificationFolder, radius: Tensor) -> Tensor:
    return torch.linspace(0, max(float(radius.max()), *run.recipe.eps) * 1.02, 400)


def _radii(run: ClassificationFolder, name: str = "radius") -> tuple[Tensor, Tensor]:
    """Return radii and a mask of right predictions; radii at most the diagonal of an image cube.

    Radii that are not stored are an empty tensor, but for those of the certificate itself.
    """
    path, info = run.path / "certificates.safetensors", run.info
    try:
        stored = safetensors.torch.load_file(path)
        radii = stored["radius"] if name == "radius" else stored.get(name, torch.empty(0))
        right = stored["prediction"] == stored["labels"]
        if radii.numel() and not _fit(radii, right):
            raise KeyError(name)
        most = math.inf if info.box is None else math.prod(info.shape) ** 0.5
        return radii.clamp(max=most), right
    except FileNotFoundError:
        raise UsageError(f"{run.path} is not certified yet: onelip certify {run.path}") from None
    except (safetensors.SafetensorError, KeyError, RuntimeError):
        raise UsageError(f"{path} is corrupt: onelip certify {run.path}") from None


def _fit(radii: Tensor, right: Tensor) -> bool:
    """Check whether these are radii, one for each prediction."""
    one_each = radii.ndim == 1 and radii.shape == right.shape
    return one_each and radii.is_floating_point() and bool((radii >= 0).all())
