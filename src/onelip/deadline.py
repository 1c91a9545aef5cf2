"""Deadlines of work that has no end of its own, asked before each piece of it."""

import math
import time

_RATE = 1e10  # float64 multiplications of a matrix product in a second of one core, about


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
        if multiplications / _RATE >= self.left:
            raise OutOfTimeError
