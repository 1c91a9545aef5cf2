"""Linear maps that scale numbers, or move, repeat and leave them out; maxima of windows."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np


def register(check: Any) -> None:
    """Add the two maps."""

    class Scale(check.Linear):  # type: ignore[misc]
        """Numbers that broadcast: ``{"map": "scale", "factor": name, "shift": name or null}``."""

        names = "factor", "shift"

        def read(self, tensors: Any, *values: Any) -> None:
            """Take factor and shift."""
            factor, shift = values
            self.weight = check.Grid.of(tensors.get(factor, onto=self.inputs))
            if shift is not None:
                full = np.broadcast_to(tensors.get(shift, onto=self.inputs), (1, *self.inputs))
                self.shift = check.Grid.of(full, check.VALUE)

        def check(self) -> str:
            """Look at the largest."""
            most = (
                int(np.abs(self.weight.ints).max()) * check.two(self.weight.exponent)
                + self.weight.error
            )
            check.need(most <= self.norm, check.TOO_LARGE)
            return "largest factor"

        def image(self, x: Any) -> Any:
            """Multiply."""
            return x.times(self.weight, self.norm)

    class Take(check.Linear):  # type: ignore[misc]
        """Output i is input ``index[i]``, or 0 for -1; a null only changes the shape."""

        names = "index", "outputs"

        def read(self, tensors: Any, *values: Any) -> None:
            """Take index and shape."""
            name, self.outputs = values[0], check.shape_of(values[1])
            count = math.prod(self.inputs)
            index = np.arange(count) if name is None else tensors.get(name, "iu", 1)
            self.index = index.astype(np.int64)
            fits = len(index) == math.prod(self.outputs)
            fits = fits and self.index.min() >= -1 and self.index.max() < count
            check.need(fits, "an index is out of range")

        def check(self) -> str:
            """Count repetitions."""
            most = int(np.bincount(self.index + 1)[1:].max(initial=0))
            check.need(self.norm**2 >= most, check.TOO_LARGE)
            return "repetitions"

        def image(self, x: Any) -> Any:
            """Move."""
            ints = np.where(self.index < 0, 0, x.ints.reshape(len(x.ints), -1)[:, self.index])
            return replace(x, ints=ints.reshape(-1, *self.outputs), error=self.norm * x.error)

    check.MAPS.update(scale=Scale, take=Take)
    check.ACTIVATIONS["max-pool"] = (partial(max_pool, check), "size", "stride")


def max_pool(check: Any, _: Any, inputs: Any, size: Any, stride: Any) -> Any:
    """Maxima over windows, without padding."""
    (k, m), (s, t) = check.wholes(size, 2, least=1), check.wholes(stride, 2, least=1)
    check.need(len(inputs) == 3 and k <= inputs[1] and m <= inputs[2], "a window above the image")
    shape = inputs[0], (inputs[1] - k) // s + 1, (inputs[2] - m) // t + 1
    constant = check.root(Fraction(-(-k // s) * -(-m // t))) if k > s or m > t else check.ONE

    def apply(x: Any) -> Any:
        ints = check.windows(x.ints, (k, m), (s, t)).max((-2, -1))
        return replace(x, ints=ints, error=constant * x.error)

    return check.Activation(-constant, constant, shape, apply)
