"""Claim: close test inputs of different labels cost no classifier much at the usual radii.

Ceilings of certified accuracy on the test sets of the digits, of MNIST and of CIFAR-10: ``python
ceiling.py MNIST_FOLDER CIFAR10_FOLDER``.
"""

import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from harness import save

from onelip.experiments.ceiling import ceiling_record

EPS = {
    "digits": ["1/4", "1/2", "3/4", "1"],
    "mnist": ["0.5", "1", "1.58", "2", "2.5", "3"],
    "cifar10": ["36/255", "72/255", "108/255", "255/255", "1.5"],
}


def main() -> None:
    """Each data set."""
    save("ceiling", _rows([None, *map(Path, sys.argv[1:])]))


def _rows(folders: list[Path | None]) -> Iterator[dict[str, Any]]:
    for (name, eps), folder in zip(EPS.items(), folders, strict=True):
        start = time.process_time()
        record = ceiling_record(name, folder, None, "test", [Fraction(radius) for radius in eps])
        yield record | {"cpu seconds": round(time.process_time() - start, 1)}


if __name__ == "__main__":
    main()
