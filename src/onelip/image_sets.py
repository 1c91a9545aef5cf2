"""Facts of data sets, without reading one."""

from dataclasses import dataclass

SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "tiny-imagenet": ((3, 64, 64), 200),
}
"""Shape of an image and number of classes, by published data set."""

OWN = "own"
"""Name of every data set that is not published: the run's record says what is in it."""

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)
CIFAR_STD = (0.2507, 0.2507, 0.2507)
"""Means and deviations of pixels in [0, 1], as published networks use them."""


@dataclass(frozen=True)
class DataInfo:
    """What networks and figures need to know of a data set.

    Args:
        shape: of an input: (channels, height, width), or (columns,) of a table.
        classes: their names, in the order of the labels.
        columns: of a table; empty for images, whose pixels lie in [0, 1].
        mean: of the columns in the training split, which the network subtracts first.
        std: deviations of the columns in the training split, by which the network divides.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def box(self) -> tuple[float, float] | None:
        """Interval in which all inputs lie; None for tables."""
        return None if self.columns else (0.0, 1.0)

    @property
    def unit(self) -> str:
        """Unit of radii."""
        return "units of the table" if self.columns else "pixels in [0, 1]"


def published(name: str) -> DataInfo:
    """Return the facts of a published data set, whose classes are numbered."""
    shape, classes = SHAPES[name]
    return DataInfo(shape, tuple(map(str, range(classes))))
