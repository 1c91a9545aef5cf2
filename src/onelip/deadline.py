"""Deadlines of work that has no end of its own, asked before each piece of it."""

import math
import time
from functools import cached_property

import torch

_TIMED = 256  # rows of the matrix that is factored and multiplied to see how fast this machine is
_TRIES = 2


class OutOfTimeError(Exception):
    """A piece of work does not fit into the time that is left."""


class Deadline:
    """A number of seconds from now, or no end at all."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return self.left <= 0

    def allow(self, multiplications: float = 0.0) -> None:
        """Pass, if so many multiplications in one call are expected to end in time.

        Raises:
            OutOfTimeError: they are not.
        """
        if self.left <= 0 or (multiplications and multiplications / self.rate >= self.left):
            raise OutOfTimeError

    @cached_property
    def rate(self) -> float:
        """Multiplications of a second, measured when they are first asked for."""
        return measured_rate(_TIMED)


def measured_rate(size: int) -> float:
    """Multiplications of a second in matrices of about this size, at the present load.

    Cost: some milliseconds: a product and a factorisation of at most 256 rows, twice. Small
    matrices have a small rate, for it counts what every call costs beside its multiplications.
    """
    size = max(1, min(size, _TIMED))
    matrix = torch.eye(size, dtype=torch.float64) + 1 / (2 * size)
    best = math.inf
    for _ in range(_TRIES):
        start = time.perf_counter()
        torch.linalg.cholesky_ex(matrix @ matrix)
        best = min(best, time.perf_counter() - start)
    return 4 / 3 * size**3 / max(best, 1e-9)
