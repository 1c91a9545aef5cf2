r"""Largest norm of a Jacobian over all patterns of slopes, by branch and bound.

With slopes :math:`s_k` of each entry after layer k, differences of outputs are
:math:`W_L D_{s_{L-1}} W_{L-1} \cdots D_{s_0} W_0` times those of inputs. The norm of that is convex
in the slopes of each layer, so that it is largest where all are at an end of their interval: one of
:math:`2^N` patterns. A node of the search fixes some entries. With the middle of what is left,
:math:`\bar D`, half of its width, R, and 1-Lipschitz :math:`\psi`,

.. math:: x_{k+1} = \bar D_k y_k + R_k \psi_k(y_k), \qquad y_k = W_k x_k ,

LipLT bounds all patterns of the node: the entries that are fixed are multiplied out. R counts as
:math:`R T \, \psi' \, T^{-1}`, for a diagonal T that makes both sides alike. Each node that is
closed is closed by a proved bound, with the rounding of every product; what is open when the time
is over counts with its own. Where to branch, and which pattern is largest, are guesses.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.semidefinite.matrices import Matrices, Slopes
from onelip.deadline import Deadline
from onelip.norms.batched import each
from onelip.norms.rounding import UNDERFLOW, frobenius, gamma, upward

_BATCH = 256  # nodes that are split at a time
_NUMBERS = 2**23  # of their products that are held at a time, about
_STARTS = 32  # of the ascent to a large pattern
_STEPS = 30  # of it
_CLOSE = 1e-8  # relative distance from the largest pattern known at which a node is closed
_OPEN = 200_000  # nodes that are kept


class Found(NamedTuple):
    """Result of a search.

    Attributes:
        bound: above the norms of all patterns, for the scaled chain.
        reached: norm of a pattern, about: no proof.
        nodes: how many were bounded.
        left: how many are open.
    """

    bound: Tensor
    reached: float
    nodes: int
    left: int


@torch.no_grad()
def largest_pattern(network: Matrices, kinds: list[Slopes], deadline: Deadline) -> Found:
    """Search for the pattern with the largest norm.

    Args:
        network: the chain, written out.
        kinds: its nonlinearities.
        deadline: asked before each batch of nodes.
    """
    low, high = torch.cat([k.low for k in kinds]), torch.cat([k.high for k in kinds])
    search = _Nodes(network, [len(kind.low) for kind in kinds], low, high)
    free = torch.full((1, len(low)), -1, dtype=torch.int8)
    free[:, low == high] = 0
    reached = search.ascended()
    bounds, influence = search.bounded(free)
    batch = max(1, min(_BATCH, _NUMBERS // max(weight.numel() for weight in network.weights)))
    nodes, closed = 1, torch.zeros((), dtype=torch.float64)
    while len(free):
        pending = bounds > reached * (1 + _CLOSE)
        pending &= (free < 0).any(1)
        closed = torch.maximum(closed, bounds[~pending].amax()) if (~pending).any() else closed
        free, bounds, influence = free[pending], bounds[pending], influence[pending]
        if not len(free) or deadline.passed or len(free) > _OPEN:
            break
        order = bounds.argsort(descending=True)
        now, rest = order[:batch], order[batch:]
        children = free[now].repeat(2, 1)
        unit = influence[now].masked_fill(free[now] >= 0, -1.0).argmax(1).repeat(2)
        side = torch.arange(2, dtype=torch.int8).repeat_interleave(len(now))
        children[torch.arange(len(children)), unit] = side
        found, new = search.bounded(children)
        found = torch.minimum(found, bounds[now].repeat(2))
        leaves = (children >= 0).all(1)
        if leaves.any():
            reached = max(reached, float(found[leaves].max()) * (1 - _CLOSE))
        nodes += len(children)
        free = torch.cat([free[rest], children])
        bounds, influence = torch.cat([bounds[rest], found]), torch.cat([influence[rest], new])
    whole = torch.maximum(closed, bounds.amax()) if len(free) else closed
    return Found(whole, reached, nodes, len(free))


@dataclass(frozen=True)
class _Nodes:
    """Bounds of nodes: rows of -1 where a slope is free, 0 where it is low, 1 where it is high."""

    network: Matrices
    sizes: list[int]
    low: Tensor
    high: Tensor

    def bounded(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Bound the norms of all patterns of each node; guess what each free slope can do to it."""
        middle = torch.where(choices == 1, self.high, self.low)
        left = choices < 0
        middle = torch.where(left, (self.low + self.high) / 2, middle)
        half = torch.maximum(self.high - middle, middle - self.low)
        half = torch.where(left, upward(half, 1), 0.0)
        middles, halves = middle.split(self.sizes, 1), half.split(self.sizes, 1)
        rows = self._rows(middles)
        weights, last = self.network.weights, len(self.sizes)
        constants: list[Tensor] = []  # of x_0 -> y_k / T_k, where there is something free
        influence: list[Tensor] = []
        scales: list[Tensor] = []
        for k in range(last + 1):
            path = weights[k].expand(len(choices), *weights[k].shape)
            least = 1.0
            if k < last:
                least = float(self._scale(k).min())
                scales.append(self._scale(k))
                path = path * ((halves[k] > 0) / scales[k])[:, :, None]
            error = path.new_zeros(len(path)) + self.network.errors[k] / min(1.0, least) + UNDERFLOW
            total = path.new_zeros(len(path))
            for j in reversed(range(k)):
                size, widest = frobenius(path), middles[j].abs().amax(1)
                if k == last:
                    columns = torch.linalg.vector_norm(path, dim=1)
                    influence.insert(0, halves[j] * columns * rows[j])
                right = halves[j] * scales[j]
                if bool(right.any()):
                    most = right.amax(1)
                    off = upward((error + gamma(2) * size) * most + UNDERFLOW, 4)
                    total = total + each(path * right[:, None], off) * constants[j]
                weight, terms = weights[j], weights[j].shape[0] + 2
                off = gamma(terms) * frobenius(weight) + self.network.errors[j]
                off = off * size + error * (self.network.norms[j] + self.network.errors[j])
                path = (path * middles[j][:, None]) @ weight
                error = upward(off * widest + terms**2 * UNDERFLOW, 8)
            constants.append(upward(total + each(path, error), 2 * k + 4))
        return constants[-1], torch.cat(influence, 1)

    def _rows(self, middles: tuple[Tensor, ...]) -> list[Tensor]:
        """Norms of the rows of ``x_0 -> y_k`` in the middle of each node: guesses."""
        path, found = self.network.weights[0][None], []
        for middle, weight in zip(middles, self.network.weights[1:], strict=True):
            found.append(torch.linalg.vector_norm(path, dim=2))
            path = weight @ (middle[:, :, None] * path)
        return found

    def _scale(self, k: int) -> Tensor:
        """Powers of two close to the T that makes rows before and columns after layer k alike."""
        before = torch.linalg.vector_norm(self.network.weights[k], dim=1)
        after = torch.linalg.vector_norm(self.network.weights[k + 1], dim=0)
        ratio = (before / after).nan_to_num(1.0, 1.0, 1.0)
        ratio = torch.where(ratio > 0, ratio, 1.0).clamp(2.0**-40, 2.0**40)
        return torch.exp2((ratio.log2() / 2).round())

    def ascended(self) -> float:
        """Norm of a pattern that no change of all slopes at once makes larger: a guess."""
        generator = torch.Generator().manual_seed(0)
        shape = (_STARTS, len(self.low))
        slopes = torch.where(torch.rand(shape, generator=generator) < 0.5, self.low, self.high)
        slopes = slopes.to(self.low.dtype)
        best, weights = 0.0, self.network.weights
        for _ in range(_STEPS):
            parts = slopes.split(self.sizes, 1)
            ahead = [weights[0].expand(_STARTS, *weights[0].shape)]
            for part, weight in zip(parts, weights[1:], strict=True):
                ahead.append(weight @ (part[:, :, None] * ahead[-1]))
            left, values, right = torch.linalg.svd(ahead[-1], full_matrices=False)
            best = max(best, float(values[:, 0].max()))
            back, signs = left[:, :, 0], list[Tensor]()
            for k in reversed(range(len(parts))):
                back = back @ weights[k + 1]
                signs.insert(0, back * (ahead[k] @ right[:, 0, :, None])[:, :, 0])
                back = back * parts[k]
            new = torch.where(torch.cat(signs, 1) > 0, self.high, self.low)
            if torch.equal(new, slopes):
                break
            slopes = new
        return best
