"""Maps that scale numbers, or move, repeat and leave them out; sorting, maxima of windows."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np


def register(check: Any) -> None:
    """Add two maps and two activations."""

    class Scale(check.Linear):  # type: ignore[misc]
        """Numbers that broadcast: ``{"map": "scale", "factor": name, "shift": name or null}``."""

        names = "factor", "shift"

        def read(self, tensors: Any, *values: Any) -> None:
            """Take factor and shift."""
            factor, shift = values
            self.weight = check.Grid.of(tensors.get(factor, onto=self.inputs))
            if shift is not None:
                self.shift = self.spread(tensors.get(shift, onto=self.inputs))

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
            self.index = index = None if name is None else tensors.get(name, "iu", 1)
            length = count if index is None else len(index)
            inside = index is None or (index.min() >= -1 and index.max() < count)
            check.need(inside and length == math.prod(self.outputs), "an index is out of range")
            check.spend(length << 7)

        def check(self) -> str:
            """Count repetitions."""
            index = np.zeros(1, np.int64) if self.index is None else self.index.astype(np.int64)
            most = int(np.bincount(index + 1)[1:].max(initial=0))
            check.need(self.norm**2 >= most, check.TOO_LARGE)
            return "repetitions"

        def image(self, x: Any) -> Any:
            """Move."""
            ints = x.ints.reshape(len(x.ints), -1)
            if self.index is not None:
                check.spend(len(ints) * len(self.index) << 7)
                ints = np.where(self.index < 0, 0, ints[:, self.index])
            return replace(x, ints=ints.reshape(-1, *self.outputs), error=self.norm * x.error)

    check.MAPS.update(scale=Scale, take=Take)
    check.ACTIVATIONS["max-pool"] = (partial(max_pool, check), "size", "stride")
    check.ACTIVATIONS["sort"] = (partial(sort, check), "size", "descending")


def sort(check: Any, _: Any, inputs: Any, size: Any, descending: Any) -> Any:
    """Sort groups of neighbouring channels."""
    fits = inputs[0] % check.whole(size, 1) == 0 and type(descending) is bool
    check.need(fits, "groups do not divide")
    sign = -1 if descending else 1

    def apply(x: Any) -> Any:
        check.spend(x.ints.size << 9)
        groups = sign * x.ints.reshape(len(x.ints), -1, size, *inputs[1:])
        return replace(x, ints=sign * np.sort(groups, 2).reshape(x.ints.shape))

    return check.Activation(-check.ONE, check.ONE, inputs, apply)


def max_pool(check: Any, _: Any, inputs: Any, size: Any, stride: Any) -> Any:
    """Maxima over windows, without padding."""
    (k, m), (s, t) = check.wholes(size, 2, least=1), check.wholes(stride, 2, least=1)
    check.need(len(inputs) == 3 and k <= inputs[1] and m <= inputs[2], "a window above the image")
    shape = inputs[0], (inputs[1] - k) // s + 1, (inputs[2] - m) // t + 1
    constant = check.root(Fraction(-(-k // s) * -(-m // t))) if k > s or m > t else check.ONE

    view: Any = np.lib.stride_tricks.sliding_window_view

    def apply(x: Any) -> Any:
        check.spend(len(x.ints) * math.prod(shape) * k * m << 4)
        ints = view(x.ints, (k, m), (2, 3))[:, :, ::s, ::t].max((-2, -1))
        return replace(x, ints=ints, error=constant * x.error)

    return check.Activation(-constant, constant, shape, apply)
