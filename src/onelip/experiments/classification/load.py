"""Networks of runs and of files, ready to predict, to bound and to certify."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from onelip._export import export
from onelip._save import notes_of
from onelip.errors import UsageError
from onelip.reading import readable

if TYPE_CHECKING:
    from onelip.experiments.classification.folder import ClassificationFolder


@dataclass(frozen=True)
class About:
    """What a network takes and returns.

    Attributes:
        input_shape: of one input, without the batch.
        classes: names of the classes in the order of the logits, None where they are only numbered.
        units: of radii, and of the numbers of an input.
        box: interval in which the numbers of an input lie, None for any.
    """

    input_shape: tuple[int, ...]
    classes: tuple[str, ...] | None
    units: str
    box: tuple[float, float] | None

    def class_name(self, label: int) -> str:
        """Name of a class, or its number."""
        return str(label) if self.classes is None else self.classes[label]

    def notes(self) -> dict[str, str]:
        """Return the same as texts, for a file of the network."""
        return {name: json.dumps(value) for name, value in vars(self).items()}

    @classmethod
    def of_notes(cls, notes: dict[str, str], input_shape: tuple[int, ...]) -> "About":
        """Return what a file says of its network; of a file without notes, the shape alone."""
        try:
            classes, units, box = (
                json.loads(notes.get(name, default))
                for name, default in (("classes", "null"), ("units", '""'), ("box", "null"))
            )
            return cls(
                input_shape,
                None if classes is None else tuple(map(str, classes)),
                str(units) or "units of the input",
                None if box is None else (float(box[0]), float(box[1])),
            )
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise UsageError(f"the notes in the file are damaged: {error}") from None


class Loaded(nn.Module):
    """Type of what ``load`` returns: a network of its own class, with an attribute more."""

    about: About


def load(source: str | Path) -> Loaded:
    """Load the exported network of a run, or the network of a ``.pt2`` or an ``.onnx`` file.

    It is a module in eval mode, with fixed weights and without gradients, as ``certify`` and
    ``lipschitz_bound`` take it; that of a file runs as the file does, and gives the logits of one
    with radii. ``network.about`` has the shape of an input, names of the classes, and the units.

    Cost: for a run, that of ``onelip.export``.

    Args:
        source: a run folder of ``onelip train``, or a file.

    Raises:
        UsageError: it is neither, or damaged.
        UnboundedModuleError: nothing is proved for a part of the file.

    Example:
        >>> import onelip
        >>> onelip.load("runs/digits")  # doctest: +SKIP
    """
    from onelip.experiments.classification.folder import ClassificationFolder

    path = Path(source)
    if path.suffix.lower() in (".pt2", ".onnx") and not path.is_dir():
        network = cast(Any, readable(path, None))
        network.about = About.of_notes(notes_of(path), network.chain.inputs)
        return cast(Loaded, network)
    run = ClassificationFolder.open(path)
    network = cast(Loaded, export(run.load_model()))
    network.about = about(run)
    return network


def about(run: "ClassificationFolder") -> About:
    """Return what the network of a run takes and returns."""
    info = run.info
    names = tuple(run.read().get("data", {}).get("classes", ()))
    numbered = names == tuple(map(str, range(len(names))))
    return About(info.shape, None if numbered else names, info.unit, info.box)
