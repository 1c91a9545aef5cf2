"""Errors of executions at level float, as the page counts them: matrices, leaky-relu and sort."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.checker.corpus import exact

Record = dict[str, Any]
FORMATS = {"float32": (2.0**-24, 2.0**-124), "float64": (2.0**-53, 2.0**-1020)}
"""u and t."""


@dataclass
class Execution:
    """Exact values at a sample, how far those at an input are off, and an execution of that."""

    values: exact.Matrix
    moved: float
    wrong: float

    def floats(self) -> Any:
        """The values in float64."""
        return self.values.astype(np.float64)

    def within(self) -> float:
        """How far an execution is from the values."""
        return self.moved + self.wrong

    def longest(self) -> float:
        """A length that no execution is above."""
        return float(np.linalg.norm(self.floats())) + self.within()


class Level:
    """The words of the page for one pair of formats."""

    def __init__(self, numbers: str, sums: str, tensors: dict[str, np.ndarray]) -> None:
        self.u, self.t = FORMATS[numbers]
        self.u += 2.0**-52 if numbers != sums else 0.0
        self.sums, self.longer, self.tensors = FORMATS[sums], numbers != sums, tensors

    def _dense(self, record: Record) -> tuple[Any, Any, int, float]:
        """Matrix, bias, additions of a row, and the gain."""
        w = self.tensors[record["weight"]].astype(np.float64)
        bias = np.zeros(len(w)) if record["bias"] is None else self.tensors[record["bias"]]
        terms = (w != 0).sum(1).max() + int(bias.any())
        n = int(max(terms, 1)) - 1
        return w, bias.astype(np.float64), n, self.sums[0] / (1 - (n + 1) * self.sums[0])

    def dense(self, record: Record, x: Execution) -> Execution:
        """After a matrix."""
        w, bias, n, g = self._dense(record)
        c, a = float.fromhex(record["norm"]), x.floats()
        values, sizes = w @ a + bias, abs(w) @ abs(a) + abs(bias)
        total = math.sqrt(abs(w).sum(1).max() * abs(w).sum(0).max())
        half = (total + min(total, c)) / 2
        added = g * float(np.linalg.norm(sizes + n * (sizes + abs(values)) / 2))
        added += g * (total + n * half) * x.within()
        added += 4 * (n + 1) * self.sums[1] * math.sqrt(len(w)) + total * self.t * math.sqrt(a.size)
        if self.longer:
            length = float(np.linalg.norm(values)) + c * x.within() + added
            added += self.u * length + 2 * self.t * math.sqrt(len(w))
        (found,) = [exact.through([record], self.tensors, x.values)]
        return Execution(found, c * x.moved, c * x.wrong + added)

    def activated(self, record: Record, x: Execution) -> Execution:
        """After an activation."""
        low, high = exact.slopes(record, self.tensors)
        c = float(max(high, -low))
        lost = self.t * math.sqrt(x.values.size)
        if record["kind"] == "leaky-relu":
            sizes = abs(self.tensors[record["slopes"]].astype(np.float64))
            steep = sizes[(sizes != 0) & (sizes != 1)].max(initial=0.0)
            lost += self.u * float(steep) * x.longest() + lost
        values = exact.activated(record, self.tensors, x.values)
        return Execution(values, c * x.moved, c * x.wrong + lost)

    def block(self, record: Record, x: Execution) -> Execution:
        """After a block without a sum."""
        y = Execution(x.values, x.within(), self.t * math.sqrt(x.values.size))
        for part in record["inner"]:
            y = self.dense(part, y)
        y, bound = self.activated(record["activation"], y), float.fromhex(record["bound"])
        return Execution(y.values, bound * x.moved, bound * x.wrong + y.wrong)

    def wrong(self, record: Record, x: exact.Matrix, radius: float, i: int, j: int) -> float:
        """How far the difference of two outputs of an execution is off."""
        network = record["network"]
        at = Execution(x, radius, self.t * math.sqrt(x.size))
        for part in network["blocks"]:
            at = self.block(part, at)
        if not network["last"]:
            return math.sqrt(2) * at.wrong
        (last,) = network["last"]
        w, bias, n, g = self._dense(last)
        a = at.floats()
        values, sizes = w @ a + bias, abs(w) @ abs(a) + abs(bias)
        found = float(np.linalg.norm(w[i] - w[j])) * at.wrong
        for k in (i, j):
            m, size = (sizes[k] + abs(values[k])) / 2, float(np.linalg.norm(w[k]))
            r = g * (sizes[k] + n * m + (1 + n) * size * at.within())
            r += 4 * (n + 1) * self.sums[1] + size * self.t * math.sqrt(a.size)
            if self.longer:
                r += self.u * (abs(values[k]) + size * at.within() + r) + 2 * self.t
            found += float(r)
        return min(math.sqrt(2) * self.dense(last, at).wrong, found)
