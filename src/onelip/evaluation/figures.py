"""Figures of runs: accuracy against eps, and the radii."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from onelip.atomic_files import replacing
from onelip.data import SHAPES
from onelip.errors import UsageError, missing_extra
from onelip.evaluation.evaluate import attacked_rows
from onelip.training import RunFolder


def plot(runs: list[RunFolder], target: Path | None = None) -> Path:
    """Certified accuracy against eps with the attacked accuracy above it, and the radii.

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
    curves.set(xlabel="eps (l2, pixels in [0, 1])", ylabel="accuracy", ylim=(0, 1))
    curves.set_xlim(left=0)
    curves.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    histogram.set(xlabel="certified radius", ylabel="test images")
    histogram.set_xlim(left=0)
    return save_figure(figure, target)


def checked_target(target: Path) -> Path:
    """A path that a figure can be written to.

    Raises:
        UsageError: another suffix than .png, .pdf or .svg.
    """
    if target.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"{target} is no figure: --out FIGURE.png, .pdf or .svg")
    return target


def save_figure(figure: Any, target: Path) -> Path:
    """Write a figure whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with replacing(checked_target(target)) as temporary:
            figure.savefig(temporary, dpi=150)
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written ({error.strerror}): choose another --out"
        ) from None
    return target


def _draw(run: RunFolder, name: str, radii: tuple[Tensor, Tensor], curves: Any, color: str) -> None:
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


def _grid(run: RunFolder, radius: Tensor) -> Tensor:
    return torch.linspace(0, max(float(radius.max()), *run.recipe.eps) * 1.02, 400)


def _radii(run: RunFolder, name: str = "radius") -> tuple[Tensor, Tensor]:
    """Radii, no longer than the diagonal of the cube of images, and which predictions are right.

    Radii that are not stored are an empty tensor, but for those of the certificate itself.
    """
    path, shape = run.path / "certificates.safetensors", SHAPES[run.recipe.dataset][0]
    try:
        stored = safetensors.torch.load_file(path)
        radii = stored["radius"] if name == "radius" else stored.get(name, torch.empty(0))
        right = stored["prediction"] == stored["labels"]
        if radii.numel() and not _fit(radii, right):
            raise KeyError(name)
        return radii.clamp(max=math.prod(shape) ** 0.5), right
    except FileNotFoundError:
        raise UsageError(f"{run.path} is not certified yet: onelip certify {run.path}") from None
    except (safetensors.SafetensorError, KeyError, RuntimeError):
        raise UsageError(f"{path} is corrupt: onelip certify {run.path}") from None


def _fit(radii: Tensor, right: Tensor) -> bool:
    """Whether these are radii, one for each prediction."""
    one_each = radii.ndim == 1 and radii.shape == right.shape
    return one_each and radii.is_floating_point() and bool((radii >= 0).all())


def new_figure(width: float, height: float) -> Any:
    """An empty figure of matplotlib, without a window; nothing but the caller keeps it.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def colors() -> Iterator[str]:
    """Matplotlib's colours, over and over."""
    return (f"C{number}" for number in itertools.count())
