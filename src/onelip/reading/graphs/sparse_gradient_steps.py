r"""Gradient steps on few numbers each: :math:`P (x - h W^\top \sigma(W x))` with a permutation P.

A Householder reflection in a file is a clamp of ``sin x - cos y`` that is added to x and to y. Its
maps have one or two entries in a row, so they are compared as lists of entries, number by number.
"""

import torch
from torch import Tensor

from onelip.chains import (
    Composition,
    Elementwise,
    LinearMap,
    Nonlinearity,
    Reshape,
    Scale,
    Sum,
    Taking,
)
from onelip.layers.gradient_step import gradient_step_bound
from onelip.norms.rounding import upward

Entries = tuple[Tensor, Tensor, Tensor]
"""Rows, columns and numbers of a matrix, in the order of rows and columns, none of them 0."""


def sparse_step_constant(
    inner: LinearMap, nonlinearity: Nonlinearity, outer: LinearMap, skip: LinearMap
) -> Tensor | None:
    r"""Bound of ``skip(x) + outer(nonlinearity(inner(x)))``, or None if it is no such step.

    Returns:
        A 0-d float64 tensor.
    """
    if not isinstance(nonlinearity, Elementwise):
        return None
    found = [part for part in (_entries(m.exact()) for m in (inner, outer, skip)) if part]
    if len(found) < 3:
        return None
    (w_rows, w_columns, w), (g_rows, g_columns, g), (p_rows, p_columns, p) = found
    size = skip.columns
    square = skip.rows == size == len(p_rows.unique()) == len(p_columns.unique()) == len(p)
    if not square or not bool((p == 1).all()) or len(w_columns.unique()) < len(w):
        return None  # columns of W with one entry each: its rows are orthogonal
    target = torch.empty(size, dtype=torch.int64)
    target[p_columns] = p_rows
    back = _ordered(target[w_columns], w_rows, w, inner.rows)
    if not torch.equal(back[0], g_rows) or not torch.equal(back[1], g_columns) or not len(g):
        return None
    place = back[2].abs().argmax()
    step = -g[place] / back[2][place]
    if step <= 0 or not _powers_of_two(step) or not torch.equal(-step * back[2], g):
        return None  # other products would be rounded
    squares = torch.zeros(inner.rows, dtype=torch.float64).index_add(0, w_rows, w.square())
    norm = upward(upward(squares, 2 + len(w)).sqrt(), 1).max()
    slope = float(nonlinearity.low.min()), float(nonlinearity.high.max())
    return gradient_step_bound(step, norm, slope)


def _entries(linear: LinearMap) -> Entries | None:
    """Matrix of a map that moves, scales and adds numbers; None for others, or inexact entries."""
    if isinstance(linear, Composition):
        result = _entries(linear.maps[0])
        for part in linear.maps[1:]:
            result = None if result is None else _after(result, part)
        return result
    if isinstance(linear, Sum):
        parts = [part for part in map(_entries, linear.maps) if part]
        if len(parts) < len(linear.maps):
            return None
        rows, columns, numbers = (torch.cat(part) for part in zip(*parts, strict=True))
        places = rows * linear.columns + columns
        if len(places.unique()) < len(places):
            return None  # a sum of entries would be rounded
        return _ordered(rows, columns, numbers, linear.columns)
    count = torch.arange(linear.columns)
    return _after((count, count, torch.ones(len(count), dtype=torch.float64)), linear)


def _after(entries: Entries, linear: LinearMap) -> Entries | None:
    """Another map after a matrix."""
    rows, columns, numbers = entries
    if isinstance(linear, Reshape):
        return entries
    if isinstance(linear, Scale) and not linear.operations:
        factor = linear.factor.double().expand(linear.inputs).flatten()[rows]
        product = numbers * factor
        kept = (numbers != 0) & (factor != 0)
        exact = bool((_powers_of_two(numbers) | _powers_of_two(factor))[kept].all())
        normal = product[kept].abs() >= torch.finfo(torch.float64).tiny
        if not exact or not bool((normal & product[kept].isfinite()).all()):
            return None
        return rows[kept], columns[kept], product[kept]
    if isinstance(linear, Taking):
        taken = linear.index
        order = torch.argsort(rows, stable=True)
        starts = torch.searchsorted(rows[order].contiguous(), torch.arange(linear.columns + 1))
        counts = (starts[1:] - starts[:-1])[taken.clamp_min(0)] * (taken >= 0)
        new = torch.repeat_interleave(torch.arange(len(taken)), counts)
        within = torch.arange(len(new)) - (counts.cumsum(0) - counts)[new]
        width = int(columns.max()) + 1 if len(columns) else 1
        picked = order[starts[taken[new]] + within]
        return _ordered(new, columns[picked], numbers[picked], width)
    return None


def _powers_of_two(numbers: Tensor) -> Tensor:
    powers: Tensor = torch.frexp(numbers).mantissa.abs() == 0.5
    return powers


def _ordered(rows: Tensor, columns: Tensor, numbers: Tensor, width: int) -> Entries:
    order = torch.argsort(rows * width + columns)
    return rows[order], columns[order], numbers[order]
