"""The versions of torch on which the contract and export tests have passed."""

import re
import warnings

import torch

TESTED = ("2.13",)
"""Each has a stored result of ``make test-torch``: ``benchmarks/results/torch_VERSION.json``."""


def warn_of_untested(version: str) -> None:
    """Warn once of a torch that is newer than all tested ones; the metadata excludes older ones."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) > _newest():
        warnings.warn(
            f"onelip is tested with torch {', '.join(TESTED)}, this is {version}: run make "
            "test-torch, which says whether the proofs and exports hold there, too",
            stacklevel=2,
        )


def _newest() -> tuple[int, int]:
    major, minor = max(tuple(map(int, version.split("."))) for version in TESTED)
    return major, minor


warn_of_untested(torch.__version__)
