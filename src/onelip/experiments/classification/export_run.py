"""Networks of runs as files for other programs."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from onelip._save import NOTES, save
from onelip.atomic_files import atomic_write
from onelip.directed_rounding import upwards
from onelip.errors import UsageError
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.load import info_as_notes, network_of
from onelip.lipschitz import lipschitz_bound

FORMATS = ("onnx", "pt2", "safetensors")


def export_run(
    run: ClassificationFolder,
    out: Path,
    *,
    with_radius: bool = False,
    method: str | None = None,
    reach: float | None = None,
    average: str | None = None,
) -> str:
    """Write the exported network of a run, and return a line of text.

    That of a table computes in float64.

    Args:
        run: a trained run.
        out: ends in ``.onnx`` or ``.pt2``, for a graph, or in ``.safetensors``, for the weights of
            the exported network alone.
        with_radius: let the graph return the certified radius of each sample, too.
        method: of the radii, a name in ``onelip.certificates.METHODS``; that of the recipe by
            default.
        reach: of the radii; see ``onelip.certificates.with_radius``.
        average: transforms that the mean of the network is taken over; see ``onelip.load``.

    Raises:
        UsageError: another suffix, radii where there is no graph, or see ``onelip.save``.
        NotApplicableError: the radii of the method depend on more than the logits.
    """
    if out.suffix not in {f".{form}" for form in FORMATS}:
        raise UsageError(f"{out}: name a file that ends in .{', .'.join(FORMATS)}")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: name a file in a folder that exists")
    if not with_radius and (method is not None or reach is not None):
        raise UsageError("--method and --reach are about radii: add --with-radius")
    network = network_of(run, average)
    notes: dict[str, Any] = {"onelip": metadata.version("onelip"), "recipe": run.recipe.name}
    notes |= info_as_notes(run.info) | ({} if average is None else {"average": average})
    if out.suffix == ".safetensors":
        if with_radius:
            raise UsageError(f"{out} holds weights and no graph to compute radii: .onnx or .pt2")
        bound, outputs = _save_weights(network, out, notes), "weights"
    else:
        bound = save(
            network,
            out,
            run.info.shape,
            with_radius=with_radius,
            method=method or run.recipe.certificate,
            reach=reach,
            notes=notes,
        )
        level = "real" if reach is None else "float"
        outputs = f"logits and radii of level {level}" if with_radius else "logits"
    return f"{out}: {outputs}; proved Lipschitz bound {upwards(float(bound), 9)}"


def _save_weights(network: nn.Module, out: Path, notes: dict[str, Any]) -> Tensor:
    """Write the weights of an exported network, and return its proved bound."""
    bound = lipschitz_bound(network)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    with atomic_write(out) as temporary:
        temporary.write_bytes(safetensors.torch.save(weights, {NOTES: json.dumps(notes)}))
    return bound
