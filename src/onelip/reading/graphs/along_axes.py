"""Sums, means, extremes, probabilities along axes of values, which are counted with the batch."""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onelip.chains import Along, Opaque
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.norms.windows import root_above


def summed(value: Value, axes: Sequence[int], keep: bool) -> Value:
    """Sums along axes."""
    for axis in axes:
        ones = torch.ones(1, value.shape[axis - 1], dtype=torch.float64)
        value = value.then(Along(value.shape, axis - 1, ones))
    if keep:
        return value
    return linear.reshaped(value, tuple(n for i, n in enumerate(value.shape, 1) if i not in axes))


def averaged(value: Value, axes: Sequence[int], keep: bool) -> Value:
    """Means along axes: the same value for the same arguments, so that it is known again."""
    return _averaged(value, tuple(axes), keep)


@functools.lru_cache(maxsize=8)
def _averaged(value: Value, axes: tuple[int, ...], keep: bool) -> Value:
    count = float(math.prod(value.shape[axis - 1] for axis in axes))
    if not count:
        raise UsageError("takes the mean of no numbers")
    return linear.divided(summed(value, axes, keep), torch.tensor(count, dtype=torch.float64))


class Extreme(nn.Module):
    """Maxima or minima along axes, counted with the batch."""

    def __init__(self, axes: Sequence[int], keep: bool, largest: bool) -> None:
        super().__init__()
        self.axes, self.keep, self.largest = tuple(axes), keep, largest

    def forward(self, x: Tensor) -> Tensor:
        """The extreme numbers."""
        take = torch.amax if self.largest else torch.amin
        result: Tensor = take(x, self.axes, keepdim=self.keep)
        return result


def extreme(value: Value, axes: Sequence[int], *, keep: bool, largest: bool) -> Value:
    """Maxima of groups that share no number: they differ by no more than the numbers do."""
    if not axes:
        return value
    module = Extreme(axes, keep, largest)
    shape = tuple(module(torch.empty(1, *value.shape, device="meta")).shape[1:])
    return value.activated(Opaque(module, 1.0, shape))


class LogSumExp(nn.Module):
    """Along axes, counted with the batch."""

    def __init__(self, axes: Sequence[int], keep: bool) -> None:
        super().__init__()
        self.axes, self.keep = tuple(axes), keep

    def forward(self, x: Tensor) -> Tensor:
        """The logarithm of the sum of exponentials."""
        return torch.logsumexp(x, self.axes, keepdim=self.keep)


def log_sum_exp(value: Value, axes: Sequence[int], keep: bool) -> Value:
    """Its gradient is a vector of probabilities, whose length is at most 1."""
    if not axes:
        return value
    module = LogSumExp(axes, keep)
    shape = tuple(module(torch.empty(1, *value.shape, device="meta")).shape[1:])
    return value.activated(Opaque(module, 1.0, shape))


def softmax(value: Value, axis: int) -> Value:
    r"""Softmax along an axis, 1/2-Lipschitz, whatever its size.

    Its Jacobian is :math:`\mathrm{diag}(p) - p p^\top`, and for a unit vector v
    :math:`v^\top J v` is the variance of v's entries under p, at most
    :math:`(\max v - \min v)^2 / 4 \le 1/2`: a variance is at most a quarter of the square of the
    range (Popoviciu), and two entries of a unit vector are at most :math:`\sqrt 2` apart. Two equal
    entries that carry all of p attain it.
    """
    return _probabilities(value, axis, nn.Softmax(-1), 0.5)


def log_softmax(value: Value, axis: int) -> Value:
    r"""Log-softmax along an axis of n numbers, :math:`\sqrt n`-Lipschitz; constant for n = 1.

    Its Jacobian :math:`I - 1 p^\top` is a projection, since p sums to 1, and so is
    :math:`1 p^\top`, its complement. A projection that is neither 0 nor I has the norm of its
    complement, :math:`|1| |p| \le \sqrt n`; one entry that carries all of p comes as close as
    wanted.
    """
    return _probabilities(value, axis, nn.LogSoftmax(-1), root_above(value.shape[axis - 1]))


def _probabilities(value: Value, axis: int, module: nn.Module, constant: float) -> Value:
    """A function of groups along an axis."""
    rows = linear.moved(value, lambda x: x.movedim(axis, -1))
    groups = rows.activated(Opaque(module, constant if rows.shape[-1] > 1 else 0.0, rows.shape))
    return linear.moved(groups, lambda x: x.movedim(-1, axis))


def cumulative(value: Value, axis: int, *, exclusive: bool = False, reverse: bool = False) -> Value:
    """Sums of all numbers up to each."""
    size = value.shape[axis - 1]
    matrix = torch.ones(size, size, dtype=torch.float64).tril(-1 if exclusive else 0)
    matrix = matrix.T.contiguous() if reverse else matrix
    return value.then(Along(value.shape, axis - 1, matrix))
