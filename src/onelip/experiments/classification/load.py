"""Networks of runs and of files, ready to predict, to bound and to certify."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from onelip._export import export
from onelip._save import notes_of
from onelip.errors import UsageError
from onelip.image_sets import DataInfo
from onelip.models import averaged
from onelip.reading import readable

if TYPE_CHECKING:
    from onelip.experiments.classification.folder import ClassificationFolder


class Loaded(nn.Module):
    """Type of what ``load`` returns: a network of its own class, with an attribute more."""

    info: DataInfo | None


def load(source: str | Path, *, average: str | None = None) -> Loaded:
    """Load the exported network of a run, or the network of a ``.pt2`` or an ``.onnx`` file.

    It is a module in eval mode, with fixed weights and without gradients, as ``certify`` and
    ``lipschitz_bound`` take it; that of a table computes in float64. That of a file runs as the
    file does, and gives the logits of one with radii. ``network.info`` has the shape of an input,
    the names of the classes and the unit of radii; it is None for a file that a run did not write.

    Cost: for a run, that of ``onelip.export``.

    Args:
        source: a run folder of ``onelip train``, or a file.
        average: of a run of images: transforms that its mean is taken over, by the names of
            ``onelip.models.averaged``, as ``"flip"``.

    Raises:
        UsageError: it is neither, or damaged.
        UnboundedModuleError: nothing is proved for a part of the file.

    Example:
        >>> import onelip
        >>> network = onelip.load("runs/digits")  # doctest: +SKIP
        >>> network.info.classes  # doctest: +SKIP
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    from onelip.experiments.classification.folder import ClassificationFolder

    path = Path(source)
    if path.suffix.lower() in (".pt2", ".onnx") and not path.is_dir():
        if average is not None:
            raise UsageError("an average is for runs: onelip.models.averaged takes any network")
        network = cast(Loaded, readable(path, None))
        network.info = _info_of(path)
        return network
    return network_of(ClassificationFolder.open(path), average)


def network_of(run: "ClassificationFolder", average: str | None = None) -> Loaded:
    """Return the exported network of a run, with ``info``; see ``load``."""
    info = run.info
    network = cast(Loaded, averaged_over(average, export(run.load_model()), info))
    network = network.double() if info.box is None else network
    network.info = info
    return network


def averaged_over(average: str | None, network: nn.Module, info: DataInfo) -> nn.Module:
    """Return the mean of a network over transforms of images; the network itself for None.

    Raises:
        UsageError: the inputs are no images, or no transform of that name.
    """
    if average is None:
        return network
    if len(info.shape) != 3:
        raise UsageError("an average over flips or shifts is for images, not for rows of a table")
    return averaged(network, average)


def _info_of(path: Path) -> DataInfo | None:
    """Return what ``export_run`` wrote of the data into a file."""
    stored: Any = notes_of(path).get("data")
    if stored is None:
        return None
    try:
        return DataInfo(**{name: tuple(value) for name, value in stored.items()})
    except (TypeError, AttributeError) as error:
        raise UsageError(f"{path}: its notes on the data are damaged: {error}") from error


def info_as_notes(info: DataInfo) -> dict[str, Any]:
    """Return what ``load`` reads of a file."""
    return {"data": asdict(info), "unit": info.unit}
