"""Singular values of every layer before and after training (Figure 2 of Li et al., 2019)."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip._export import export
from onelip.chains import Shape
from onelip.errors import UsageError
from onelip.experiments.classification.build import build_model
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.figures import new_figure, save_figure


def plot_singular_values(run: ClassificationFolder, target: Path | None = None) -> Path:
    """Plot histograms of each linear map's singular values, and return their extremes.

    The numbers go into ``metrics.json``. They are float64 singular values, no proofs.

    Args:
        run: a trained run.
        target: a PNG, PDF or SVG file; ``singular-values.png`` in the run's folder by default.

    Raises:
        UsageError: the run has no weights, or no layer with a plain kernel or matrix.
    """
    before, after = _before_and_after(run)
    run.write({"singular_values": _summaries(before, after)})
    figure = new_figure(7, 1 + 1.3 * len(after))
    axes = figure.subplots(len(after), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, values) in zip(axes, after.items(), strict=True):
        top = max(1.05, float(values.max()), float(before[name].max()))
        bins = torch.linspace(0, top, 60).numpy()
        axis.hist(before[name].numpy(), bins=bins, alpha=0.5, label="before training")
        axis.hist(values.numpy(), bins=bins, alpha=0.5, label="after training")
        axis.set(yscale="log", title=name)
    figure.axes[-1].set_xlabel("singular value")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    return save_figure(figure, target or run.path / "singular-values.png")


def summarised(run: ClassificationFolder) -> dict[str, dict[str, dict[str, float]]]:
    """Return the extremes and quantiles of each linear map: those of the record, or computed ones.

    Args:
        run: a trained run; nothing is written.

    Raises:
        UsageError: the run has no weights, or no layer with a plain kernel or matrix.
    """
    return run.read().get("singular_values") or _summaries(*_before_and_after(run))


def _before_and_after(run: ClassificationFolder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the singular values of each linear map before and after training."""
    info = run.info
    after = singular_values(export(run.load_model()), info.shape)
    torch.manual_seed(run.recipe.seed)
    before = singular_values(export(build_model(run.recipe, info)), info.shape)
    if not after:
        raise UsageError(f"{run.path} has no circular convolution or linear layer to look at")
    return before, after


def singular_values(model: nn.Module, input_shape: Shape) -> dict[str, Tensor]:
    """Return all singular values of the dense layers and circular convolutions of a model."""
    found: dict[str, Tensor] = {}
    model = copy.deepcopy(model).double()
    x = torch.zeros(1, *input_shape, dtype=torch.float64)
    handles = []
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            handles.append(part.register_forward_hook(_recorder(name, found)))
    with torch.no_grad():
        model(x)
    return found


def _recorder(name: str, found: dict[str, Tensor]) -> Any:
    def record(part: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        kind = type(part).__name__
        if isinstance(part, nn.Linear):
            found[f"{name} {kind}"] = torch.linalg.svdvals(part.weight)
        elif isinstance(part, nn.Conv2d) and part.padding_mode == "circular":
            found[f"{name} {kind}"] = _circular(part, inputs[0].shape[-2:])

    return record


def _circular(conv: nn.Conv2d, size: torch.Size) -> Tensor:
    """Singular values of a circular convolution, from its Fourier blocks."""
    stride = conv.stride[0]
    kernel = conv.weight
    if stride > 1:
        # A stride turns the pixels of a window into channels first.
        missing = -kernel.shape[-1] % stride
        kernel = F.pixel_unshuffle(F.pad(kernel, (0, missing, 0, missing)), stride)
    # The Fourier transform makes a circular convolution block diagonal, one block per frequency.
    blocks = torch.fft.fft2(kernel, s=(size[0] // stride, size[1] // stride))
    values: Tensor = torch.linalg.svdvals(blocks.permute(2, 3, 0, 1)).flatten()
    return values


def _summaries(
    before: dict[str, Tensor], after: dict[str, Tensor]
) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {"before": _summary(before[name]), "after": _summary(values)}
        for name, values in after.items()
    }


def _summary(values: Tensor) -> dict[str, float]:
    quantiles = torch.quantile(values, values.new_tensor([0.0, 0.1, 0.5, 0.9, 1.0])).tolist()
    names = ("min", "10 %", "median", "90 %", "max")
    return {name: round(value, 9) for name, value in zip(names, quantiles, strict=True)}
