"""Figure of a Wasserstein distance: the training, and the critic's scores of the samples."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onelip.experiments.figures import checked_target, name_axes, new_figure, save_figure
from onelip.experiments.record_schema import TransportRecord

_BINS = 50


def plot_transport(content: TransportRecord, scores_p: Tensor, scores_q: Tensor, to: Path) -> Path:
    """Plot running value and held-out bound on the left, held-out scores on the right.

    Args:
        content: of the ``metrics.json`` of a run.
        scores_p: critic over its constant, of held-out samples of P.
        scores_q: of those of Q.
        to: a PNG, PDF or SVG file.

    Raises:
        UsageError: the file cannot be written.
    """
    checked_target(to)
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    _draw_training(content, left)
    _draw_scores(content, scores_p.cpu(), scores_q.cpu(), right)
    return save_figure(figure, to)


def _draw_training(content: TransportRecord, axis: Any) -> None:
    result, confidence = content["result"], 100 * content["result"]["confidence"]
    steps, values = zip(*content["history"], strict=True)
    axis.plot(steps, values, color="0.6", linewidth=1, label="training batches")
    axis.axhspan(result["lower"], result["upper"], color="C0", alpha=0.2, linewidth=0)
    label = f"held-out samples, with {confidence:g} % interval"
    axis.axhline(result["value"], color="C0", label=label)
    if "exact" in content:
        label = "exact, of the same held-out samples"
        axis.axhline(content["exact"]["distance"], color="C1", linestyle="--", label=label)
    if content.get("truth") is not None:
        axis.axhline(content["truth"], color="C2", linestyle=":", label="truth")
    name_axes(axis, "step", "Wasserstein-1 distance")
    axis.set_xlim(0, steps[-1])
    axis.xaxis.get_major_locator().set_params(integer=True)
    _legend_below(axis)


def _draw_scores(content: TransportRecord, scores_p: Tensor, scores_q: Tensor, axis: Any) -> None:
    both = torch.cat([scores_p, scores_q])
    low, high = float(both.min()), float(both.max())
    margin = 0.02 * (high - low) or 0.5
    bins = torch.linspace(low - margin, high + margin, _BINS + 1).tolist()
    p, q = content["samples"]["p"]["name"], content["samples"]["q"]["name"]
    for scores, label, color in (
        (scores_p, f"P: {_short(p)}", "C0"),
        (scores_q, f"Q: {_short(q)}", "C3"),
    ):
        weights = torch.full_like(scores, 1 / len(scores)).numpy()
        axis.hist(scores.numpy(), bins, weights=weights, color=color, alpha=0.55, label=label)
    top = axis.get_ylim()[1]
    for scores, color in ((scores_p, "C0"), (scores_q, "C3")):
        axis.vlines(float(scores.mean()), 0, 1.07 * top, color=color, linewidth=1.5)
    ends = [float(scores.mean()) for scores in (scores_q, scores_p)]
    axis.set_ylim(0, 1.17 * top)
    arrow = {"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (ends[0], 1.04 * top), (ends[1], 1.04 * top), arrowprops=arrow)
    axis.text(sum(ends) / 2, 1.09 * top, f"{content['result']['value']:.4g}", ha="center")
    axis.set(xlabel="critic / proved constant", ylabel="share of held-out samples")
    _legend_below(axis)


def _legend_below(axis: Any) -> None:
    """Place the legend below the panel, where it covers nothing."""
    axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"...{name[-25:]}"
