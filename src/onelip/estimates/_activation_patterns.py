r"""The exact Lipschitz constant of tiny ReLU networks, by enumeration of their linear pieces.

A network of ReLUs and leaky ReLUs is linear on each cell of a partition of its input space. The
constant is the largest norm of a cell's Jacobian, over the cells with an interior: the signs of
the neurons are decided one after the other, and a linear program says whether a cell is empty.
Cells thinner than 1e-9 are passed over, and nothing is rounded upwards: an oracle for tests and a
lower estimate, not a certificate.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from onelip.chains import Block, Chain, Elementwise, LinearMap
from onelip.errors import NotApplicableError, missing_extra

Array = np.ndarray[Any, np.dtype[np.float64]]
Box = tuple[Tensor, Tensor]

_THIN = 1e-9


class _Cell(NamedTuple):
    """Points with ``rows @ x + offsets >= 0``, and one in the interior."""

    rows: Array
    offsets: Array
    inside: Array


class _Affine(NamedTuple):
    """``matrix @ x + offset``."""

    matrix: Array
    offset: Array


def activation_patterns(chain: Chain, *, box: Box | None = None, limit: int = 20_000) -> Tensor:
    """The Lipschitz constant of a ReLU network, exact up to rounding.

    Shape: any; meant for up to about 20 neurons in all and 8 inputs.
    Cost: about a linear program (a millisecond) and a norm per cell, and there are up to
    ``2^neurons`` cells, ``sum_{k <= inputs} C(neurons, k)`` for one hidden layer.

    Args:
        chain: blocks with ReLU or leaky ReLU; biases count, since they decide which cells exist.
        box: lowest and highest inputs, for the constant inside them; all inputs if left out.
        limit: how many cells to visit.

    Returns:
        A 0-d float64 tensor.

    Raises:
        NotApplicableError: another activation, or more cells than ``limit``.
        UsageError: scipy is not installed.

    Example:
        >>> from onelip.chains import Dense
        >>> layer = Block(Dense(torch.ones(1, 1)), Elementwise.of(nn.LeakyReLU(3.0)))
        >>> activation_patterns(Chain((layer,), Dense(torch.ones(1, 1))))
        tensor(3., dtype=torch.float64)
    """
    for block in chain.blocks:
        kind = block.nonlinearity
        if not (isinstance(kind, Elementwise) and type(kind.module) in (nn.ReLU, nn.LeakyReLU)):
            raise NotApplicableError(
                "activation patterns are enumerated for ReLU and LeakyReLU only: use pair_search"
            )
    exact, inputs = chain.exact(), math.prod(chain.inputs)
    image = _Affine(np.eye(inputs), np.zeros(inputs))
    norms = [0.0]
    for piece in _pieces(exact.blocks, image, _start(inputs, box)):
        if len(norms) > limit:
            raise NotApplicableError(f"more than {limit} linear pieces: use lower_estimate")
        norms.append(float(np.linalg.norm(_after(exact.last, piece).matrix, 2)))
    return torch.tensor(max(norms), dtype=torch.float64)


def _start(inputs: int, box: Box | None) -> _Cell:
    if box is None:
        return _Cell(np.zeros((0, inputs)), np.zeros(0), np.zeros(inputs))
    low, high = (side.detach().double().cpu().numpy().reshape(-1) for side in box)
    rows = np.concatenate([np.eye(inputs), -np.eye(inputs)])
    return _Cell(rows, np.concatenate([-low, high]), (low + high) / 2)


def _pieces(blocks: tuple[Block, ...], image: _Affine, cell: _Cell) -> Iterator[_Affine]:
    """Outputs of the blocks, on each cell."""
    if not blocks:
        yield image
        return
    block, rest = blocks[0], blocks[1:]
    before = _after(block.inner, image)
    negative = getattr(block.nonlinearity.module, "negative_slope", 0.0)
    for signs, part in _split(before, cell):
        slopes = np.where(np.array(signs), 1.0, negative)
        through = _Affine(slopes[:, None] * before.matrix, slopes * before.offset)
        if block.outer is not None:
            through = _after(block.outer, through)
        if block.skip is not None:
            around = _after(block.skip, image)
            through = _Affine(through.matrix + around.matrix, through.offset + around.offset)
        yield from _pieces(rest, through, part)


def _after(linear: LinearMap, image: _Affine) -> _Affine:
    columns = torch.from_numpy(image.matrix.T.copy()).unflatten(1, linear.inputs)
    offset = linear.affine(torch.from_numpy(image.offset).reshape(1, *linear.inputs))
    return _Affine(linear(columns).flatten(1).T.numpy(), offset.flatten().numpy())


def _split(neurons: _Affine, cell: _Cell, first: int = 0) -> Iterator[tuple[list[bool], _Cell]]:
    """The parts of a cell in which no neuron from ``first`` on changes its sign."""
    if first == len(neurons.offset):
        yield [], cell
        return
    row, offset = neurons.matrix[first], float(neurons.offset[first])
    length = float(np.linalg.norm(row))
    if length == 0:
        for signs, part in _split(neurons, cell, first + 1):
            yield [offset > 0, *signs], part
        return
    for sign in (1.0, -1.0):
        half = _halved(cell, sign * row / length, sign * offset / length)
        if half is not None:
            for signs, part in _split(neurons, half, first + 1):
                yield [sign > 0, *signs], part


def _halved(cell: _Cell, row: Array, offset: float) -> _Cell | None:
    """The part with ``row @ x + offset >= 0``, if it has an interior."""
    rows, offsets = np.vstack([cell.rows, row]), np.append(cell.offsets, offset)
    inside = cell.inside if row @ cell.inside + offset > _THIN else _interior(rows, offsets)
    return None if inside is None else _Cell(rows, offsets, inside)


def _interior(rows: Array, offsets: Array) -> Array | None:
    """A point at least 1e-9 away from every face, the largest distance up to 1."""
    try:
        from scipy.optimize import linprog
    except ImportError as error:
        raise missing_extra("scipy", "exact") from error
    depth = np.append(np.zeros(rows.shape[1]), -1.0)
    faces = np.column_stack([-rows, np.ones(len(rows))])
    sides = [(None, None)] * rows.shape[1] + [(None, 1.0)]
    found = linprog(depth, A_ub=faces, b_ub=offsets, bounds=sides, method="highs")
    inside: Array | None = found.x[:-1] if found.status == 0 and -found.fun > _THIN else None
    return inside
