"""Bundles of runs and of files with networks."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onelip._export import export
from onelip.errors import UsageError
from onelip.experiments.classification.certify import tensors_for
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.load import averaged_over
from onelip.proofs import prove


def prove_run(
    run: ClassificationFolder,
    out: Path,
    data: Path | None = None,
    samples: int = 100,
    *,
    accumulate: bool = False,
    average: str | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Write a bundle of the exported network of a run, with the first test samples.

    Args:
        run: a trained run.
        out: folder of the bundle.
        data: place of the data set, if it is not the one that the run was trained from.
        samples: number of test samples; 0 for none.
        average: transforms that the mean of the network is taken over; see ``onelip.load``.
        accumulate: let sums of linear layers be in float64; see ``onelip.export``.
        **how: method, level and seconds; see ``onelip.prove``.
    """
    if samples < 0:
        raise UsageError(f"--samples must not be negative, got {samples}")
    model = export(run.load_model(), accumulate=torch.float64 if accumulate else None)
    model = averaged_over(average, model, run.info)
    images = None
    if samples:
        model = model.double() if run.info.box is None else model  # numbers of a table as they are
        images, _ = tensors_for(model, run.data(data).test)
        images = images[:samples]
    shape = None if images is not None else run.info.shape
    return prove(model, out, images, input_shape=shape, about=f"run of {run.recipe.name}", **how)


def prove_file(
    path: Path, out: Path, x: Tensor | None = None, *, trust: bool = False, **how: Any
) -> dict[str, Any]:
    """Write a bundle of a network in a ``.pt2`` or an ``.onnx`` file.

    Args:
        path: of the file.
        out: folder of the bundle.
        x: samples.
        trust: open parts of a ``.pt2`` file that may run code.
        **how: method and seconds; see ``onelip.prove``.
    """
    return prove(path, out, x, trust=trust, **how)


def proof_text(record: dict[str, Any], out: Path) -> str:
    """What a bundle holds, in three lines."""
    lines = [f"Lipschitz constant of the network: {float.fromhex(record['bound']):.9g}"]
    if record["samples"] is not None:
        radii = sorted(float.fromhex(radius) for radius in record["samples"]["radii"])
        lines.append(f"{len(radii)} samples, median radius {radii[len(radii) // 2]:.6g}")
    return "\n".join([*lines, f"checked and written: onelip check {out}"])
