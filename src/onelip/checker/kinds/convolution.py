"""Convolutions of images, and their norm as that of a matrix that is written out."""

import copy
import itertools
import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np


def register(check: Any) -> None:
    """Add the map, and a table of what shows its norm."""
    need, pair = check.need, partial(check.wholes, count=2)

    class Convolution(check.Linear):  # type: ignore[misc]
        """A convolution of images, padded on both sides with zeros or circularly."""

        names = ("weight", "bias", "stride", "padding", "dilation", "groups", "circular", "witness")

        def read(self, tensors: Any, *values: Any) -> None:
            """Take weight, bias, what torch calls stride and so on, and how the norm is shown."""
            name, bias, stride, padding, dilation, groups, self.circular, self.witness = values
            self.stride, self.dilation = pair(stride, least=1), pair(dilation, least=1)
            self.padding, self.groups = pair(padding, most=1 << 12), check.whole(groups, 1)
            weight, size, circular = tensors.get(name, axes=4), self.inputs[1:], self.circular
            fits = len(size) == 2 and type(circular) is bool and len(weight) % self.groups == 0
            fits = fits and weight.shape[1] * self.groups == self.inputs[0]
            need(fits, f"{self.inputs} goes in")
            taps = weight.shape[2:]
            sides = zip(size, self.padding, self.dilation, taps, self.stride, strict=True)
            outputs = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in sides]
            wraps = not circular or all(p <= n for p, n in zip(self.padding, size, strict=True))
            need(wraps and min(outputs) > 0, "an image is too small for the kernel")
            self.outputs = check.shape_of([len(weight), *outputs])
            self.weight = check.Grid.of(weight)
            self.size = math.prod((*self.outputs[1:], self.groups, *weight.shape[1:]))  # of patches
            need(self.size <= 2 * check.LARGEST, "patches are too large")
            self.shifted(tensors, bias)
            # norm of what the grid leaves out: each tap moves an image, up to thrice where it wraps
            self.error = self.weight.error * check.root(Fraction(math.prod(taps))) * 3

        @property
        def kernel(self) -> Any:
            """One matrix per group, ``(groups, outputs, inputs k k)``."""
            return self.weight.ints.reshape(self.groups, self.outputs[0] // self.groups, -1)

        def patches(self, x: Any) -> Any:
            """What each output sees: ``(groups, batch height width, inputs k k)``."""
            (p, q), (d, e) = self.padding, self.dilation
            mode: Any = "wrap" if self.circular else "constant"
            x = np.pad(x, ((0, 0), (0, 0), (p, p), (q, q)), mode)
            k, m = self.weight.ints.shape[2:]
            seen = windows(x, (d * (k - 1) + 1, e * (m - 1) + 1), self.stride)[..., ::d, ::e]
            check.spend(seen.size << 6)
            seen = seen.reshape(len(x), self.groups, -1, *self.outputs[1:], k, m)
            turned = seen.transpose(1, 0, 3, 4, 2, 5, 6)
            return turned.reshape(self.groups, -1, self.kernel.shape[2])

        def image(self, x: Any) -> Any:
            """Multiply patches."""
            parts = [self.patches(digit) for digit in check.digits(x.ints)]
            levels = check.product(parts, check.digits(np.swapaxes(self.kernel, 1, 2)))
            shape = self.groups, len(x.ints), *self.outputs[1:], -1
            turned = [level.reshape(shape).transpose(1, 0, 4, 2, 3) for level in levels]
            images = [level.reshape(-1, *self.outputs) for level in turned]
            error = self.norm * x.error + self.error * x.length()
            return check.Grid.rounded(images, x.exponent + self.weight.exponent, error)

        def check(self) -> str:
            """As the witness says."""
            return str(check.WITNESSES[check.known(check.WITNESSES, self.witness, "witness")](self))

        def written(self) -> str:
            """Bound the norm of the map as a matrix of integers."""
            columns, rows = math.prod(self.inputs), math.prod(self.outputs)
            need(columns * rows <= check.LARGEST >> 1, "too large to write out")
            places = self.patches(1 + np.arange(columns).reshape(1, *self.inputs))  # 0 is padding
            pixels = np.arange(places.shape[1])
            shape = self.groups, self.kernel.shape[1], len(pixels), columns + 1
            matrix = np.zeros(shape, np.int64)
            check.spend(self.groups * places.shape[2] * (len(pixels) << 6 | 1 << 14))
            for group, tap in itertools.product(range(self.groups), range(places.shape[2])):
                matrix[group, :, pixels, places[group, :, tap]] += self.kernel[group, :, tap]
            matrix = matrix[..., 1:].reshape(rows, columns)
            need((np.abs(matrix) < 1 << 56).all(), "a sum of weights is too large")
            check.bounded(matrix, self.most(self.error))
            return "written out"

        def adjoint(self) -> Any:
            """The adjoint of a convolution that keeps the size of images."""
            same = self.groups == 1 and self.stride == (1, 1)
            same = same and self.inputs[1:] == self.outputs[1:]
            need(same, "the adjoint of a convolution that changes the size of images")
            other = copy.copy(self)
            other.inputs, other.outputs, other.shift = self.outputs, self.inputs, None
            ints = self.weight.ints.swapaxes(0, 1)[:, :, ::-1, ::-1]
            other.weight = replace(self.weight, ints=ints)
            return other

    check.MAPS["convolution"], check.WITNESSES = Convolution, {"matrix": Convolution.written}


def windows(images: Any, reach: tuple[int, int], stride: tuple[int, int]) -> Any:
    """Windows of a batch of images, ``(batch, channels, height, width, *reach)``."""
    view: Any = np.lib.stride_tricks.sliding_window_view
    return view(images, reach, (2, 3))[:, :, :: stride[0], :: stride[1]]
