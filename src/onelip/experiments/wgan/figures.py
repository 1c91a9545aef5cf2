"""Figures of WGANs: grids of generated images, and the distance over the steps."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from onelip.experiments.figures import checked_target, name_axes, new_figure, save_figure
from onelip.experiments.record_schema import Interval
from onelip.experiments.wgan.folder import WGANFolder
from onelip.experiments.wgan.settings import PENALTY
from onelip.models import generate


def draw_samples(
    generators: list[tuple[str, nn.Module]], target: Path, *, side: int = 8, seed: int = 0
) -> Path:
    """Draw a grid of images of each generator, side by side; nothing is picked out.

    Args:
        generators: titles and generators.
        target: a PNG, PDF or SVG file.
        side: images in a row and in a column.
        seed: of the noise.
    """
    target, count = checked_target(target), len(generators)
    figure = new_figure(4.4 * count, 4.7)
    panels = figure.subplots(1, count, squeeze=False)
    for panel, (title, generator) in zip(panels[0], generators, strict=True):
        tiles = grid(generate(generator, side**2, seed=seed), side)
        panel.imshow(
            tiles.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
        )
        panel.set_title(title, fontsize="medium")
        panel.axis("off")
    return save_figure(figure, target)


def grid(images: Tensor, side: int) -> Tensor:
    """Arrange images ``(side^2, channels, height, width)`` as one, channels last."""
    _, channels, height, width = images.shape
    rows = images.reshape(side, side, channels, height, width).permute(0, 3, 1, 4, 2)
    return rows.reshape(side * height, side * width, channels)


def draw_history(run: WGANFolder, target: Path) -> Path:
    """Draw the critic's distance over the steps, and the bounds proved on held-out images.

    Args:
        run: with a record of its training, judged or not.
        target: a PNG, PDF or SVG file.
    """
    target, metrics = checked_target(target), run.read()
    steps, values = zip(*metrics["train"]["history"], strict=True)
    figure = new_figure(6, 4)
    panel = figure.subplots()
    proved = run.settings.critic != PENALTY
    label = "training batches: critic / proved constant" if proved else "critic with a penalty"
    panel.plot(steps, values, linewidth=1, alpha=0.8, label=label)
    if (held_out := metrics.get("held_out")) is not None:
        _held_out(panel, held_out["critic"], "its critic", steps[-1])
        _held_out(panel, held_out["fresh_critic"], "a fresh critic", steps[-1])
    name_axes(panel, "steps of the generator", "Wasserstein-1 (pixels in [0, 1])")
    panel.set_ylim(bottom=min(0.0, *values))
    panel.legend(fontsize="small")
    return save_figure(figure, target)


def _held_out(panel: Any, row: Interval | None, name: str, last: int) -> None:
    """Draw the interval of a critic at the last step."""
    if row is not None:
        ends = [[row["value"] - row["lower"]], [row["upper"] - row["value"]]]
        label = f"test images: proved by {name}, {row['confidence']:.0%}"
        panel.errorbar([last], [row["value"]], yerr=ends, fmt="o", capsize=4, label=label)
