"""Circular convolutions that are given by a matrix for each frequency.

With F the transform of N pixels, ``F / sqrt(N)`` is unitary, so the map is at most as long as its
longest block: columns 0 and width / 2 hold a frequency and its mirror image, and the inverse takes
the average of the block of one and the conjugate of the other. Images are transformed along one
axis after the other, as products with enclosed roots of unity.
"""

from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

UP = 20  # bits that numbers get before they are divided by the number of pixels
ROOTS = 54  # bits of roots of unity
SIDE = 1 << 10  # of an image


def register(check: Any) -> None:
    """Add the map: ``{"map": "fourier", "norm", "weight", "bias"}``."""
    two, root = check.two, check.root

    class Fourier(check.Linear):  # type: ignore[misc]
        """Blocks ``(height, width // 2 + 1, outputs, inputs, 2)``, real and imaginary parts."""

        names = "weight", "bias"

        def read(self, tensors: Any, *values: Any) -> None:
            """Take blocks and bias."""
            name, bias = values
            weight = tensors.get(name, axes=5)
            check.need(len(self.inputs) == 3, f"{self.inputs} goes in")
            channels, height, width = self.inputs
            half, sides = width // 2 + 1, weight.shape
            fits = (sides[0], sides[1], *sides[3:]) == (height, half, channels, 2)
            check.need(fits, f"tensor {name[:40]}: {self.inputs} goes in")
            small = max(height, width) <= SIDE
            check.need(small, "an image with too many frequencies")
            self.outputs = check.shape_of([sides[2], height, width])
            self.weight = check.Grid.of(weight)
            self.size = 2 * max(channels, sides[2]) * height * half
            self.shifted(tensors, bias)

        def blocks(self, ints: Any) -> Any:
            """Complex blocks as real ones, ``(frequencies, 2 outputs, 2 inputs)``."""
            real, imaginary = ints[..., 0], ints[..., 1]
            return np.block([[real, -imaginary], [imaginary, real]])

        def check(self) -> str:
            """Look at each block."""
            ints = self.weight.ints.reshape(-1, *self.weight.ints.shape[2:])
            step = max(1, check.AT_ONCE // (2 * ints[0].size))
            for first in range(0, len(ints), step):
                part = self.blocks(ints[first : first + step])
                check.spend(len(part) << 10)
                check.bounded(part, self.most(self.weight.error))
            return f"{len(ints)} frequencies"

        @cached_property
        def turns(self) -> tuple[Any, Any, Any, Any]:
            """Transforms along width and height, and back, times 2^54."""
            _, height, width = self.inputs
            check.spend((height + width << 14) + (height**2 + width**2 << 8))
            rows, columns = np.arange(height), np.arange(width // 2 + 1)
            tables = [check.KINDS["torus"].roots_of_unity(n) for n in (height, width)]
            (c, s), (d, e) = (
                [part[np.outer(at, np.arange(n)) % n] for part in table]
                for table, at, n in zip(tables, (rows, columns), (height, width), strict=True)
            )
            twice = np.where((columns == 0) | (2 * columns == width), 1, 2)[:, None]
            return (
                np.concatenate([d, -e]).T,
                np.block([[c, s], [-s, c]]).T,
                np.block([[c, -s], [s, c]]).T,
                np.concatenate([twice * d, -twice * e]),
            )

        def turned(self, x: Any, matrix: Any, square: int) -> Any:
            """Numbers along the last axis times a matrix whose norm has this square at most."""
            check.spend(x.ints.size << 6)
            levels = check.product(check.digits(x.ints), check.digits(matrix))
            # each root is off by less than two units, and may be doubled
            off = two(2 - ROOTS) * root(Fraction(matrix.size))
            error = root(Fraction(square)) * x.error + off * x.length()
            return check.Grid.rounded(levels, x.exponent - ROOTS, error)

        def by_frequency(self, ints: Any) -> list[Any]:
            """Numbers ``(height, half, batch, 2 inputs)`` times the blocks, in digits."""
            parts = check.digits(ints)
            step = max(1, check.AT_ONCE // self.weight.ints[0].size)
            found = []
            for first in range(0, len(ints), step):
                at = slice(first, first + step)
                blocks = check.digits(np.swapaxes(self.blocks(self.weight.ints[at]), -1, -2))
                found.append(check.product([part[at] for part in parts], blocks))
            count = max(map(len, found))  # small blocks have fewer digits
            filled = [[*x, *[np.zeros_like(x[0])] * (count - len(x))] for x in found]
            return [np.concatenate(level) for level in zip(*filled, strict=True)]

        def image(self, x: Any) -> Any:
            """Transform, multiply by frequency, transform back."""
            batch, (_, height, width), half = len(x.ints), self.inputs, self.inputs[2] // 2 + 1
            along, down, up, back = self.turns
            y = self.turned(replace(x, error=check.ZERO), along, width)
            parts = y.ints.reshape(batch, -1, height, 2, half).transpose(0, 1, 4, 3, 2)
            ints = parts.reshape(batch, -1, half, 2 * height)
            y = self.turned(replace(y, ints=ints), down, height)
            ints = y.ints.reshape(batch, -1, half, 2, height).transpose(4, 2, 0, 3, 1)
            levels = self.by_frequency(ints.reshape(height, half, batch, -1))
            levels = [
                level.reshape(height, half, batch, 2, -1).transpose(2, 4, 1, 3, 0)
                for level in levels
            ]
            error = self.norm * y.error + self.weight.error * y.length()
            y = check.Grid.rounded(levels, y.exponent + self.weight.exponent, error)
            ints = y.ints.reshape(batch, -1, half, 2 * height)
            y = self.turned(replace(y, ints=ints), up, height)
            ints = y.ints.reshape(batch, -1, half, 2, height).transpose(0, 1, 4, 3, 2)
            ints = ints.reshape(batch, -1, height, 2 * half)
            y = self.turned(replace(y, ints=ints), back, 2 * width)
            count = height * width
            ints = ((y.ints << UP) + count // 2) // count
            y = replace(y, ints=ints, exponent=y.exponent - UP, error=y.error / count).off(50)
            y = check.Grid.rounded([y.ints], y.exponent, y.error)
            return replace(y, error=check.upwards(y.error + self.norm * x.error))

    check.MAPS["fourier"] = Fourier
