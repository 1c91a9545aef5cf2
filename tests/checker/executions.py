"""Executions of a bundle's network at level float: any order of sums, worst roundings, flushing.

Sums are lists of products, one list for each entry, so that every order can be tried.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Record = dict[str, Any]
TINY = {np.float32: 2.0**-126, np.float64: 2.0**-1022}


@dataclass
class Execution:
    """How operations round: to nearest in a dtype, or by exactly u in one direction.

    Attributes:
        order: of products in a sum: by their size, signs apart, as they come, or as a tree.
        worst: results are their exact values times ``1 + worst u``, computed in float64, in
            place of rounding to nearest.
        flush: whether subnormal results and inputs are 0.
        fused: whether products are not rounded.
        wide: whether sums are in float64, and rounded at their end.
        late: whether a step multiplies after the adjoint.
    """

    order: str = "as they come"
    worst: int = 0
    flush: bool = False
    fused: bool = False
    wide: bool = False
    late: bool = True
    tensors: dict[str, Array] = field(default_factory=dict)

    def op(self, exact: Array, wide: bool = False) -> Array:
        """The result of an operation, from what float64 has for the exact one."""
        if wide:
            return exact
        if self.worst:
            found = exact * (1 + self.worst * 2.0**-24)
        else:
            found = exact.astype(np.float32).astype(np.float64)
        return np.where(np.abs(found) < TINY[np.float32], 0.0, found) if self.flush else found

    def summed(self, products: Array) -> Array:
        """Sums along the last axis, in some order; float64 arrays of float32 numbers."""
        if self.order == "largest first":
            products = np.take_along_axis(products, np.argsort(-np.abs(products), -1), -1)
        elif self.order == "smallest first":
            products = np.take_along_axis(products, np.argsort(np.abs(products), -1), -1)
        elif self.order == "signs apart":
            products = -np.sort(-products, -1)
        elif self.order == "tree":
            while products.shape[-1] > 1:
                if products.shape[-1] % 2:
                    products = np.concatenate([products, 0 * products[..., :1]], -1)
                products = self.op(products[..., ::2] + products[..., 1::2], self.wide)
            return products[..., 0]
        total = products[..., 0]
        for k in range(1, products.shape[-1]):
            total = self.op(total + products[..., k], self.wide)
        return total

    def get(self, name: str | None) -> Array | None:
        """A tensor in float64, or None."""
        return None if name is None else self.tensors[name].astype(np.float64)

    def sums(self, index: Array, weight: Array, bias: Array | None, x: Array) -> Array:
        """Sums of products of entries of x, -1 for none; the bias is one more term."""
        padded = np.append(x.reshape(-1), 0.0)
        products = padded[index] * weight
        if not self.fused:
            products = self.op(products, self.wide)
        if bias is not None:
            products = np.concatenate([products, bias[:, None]], 1)
        total = self.summed(products)
        return self.op(total) if self.wide else total

    def linear(self, record: Record, x: Array) -> Array:
        """A map."""
        kind = record["map"]
        if kind == "dense":
            w = self.get(record["weight"])
            index = np.broadcast_to(np.arange(w.shape[1]), w.shape)
            return self.sums(index, w, self.get(record["bias"]), x)
        if kind == "convolution":
            index, w, shape = gathered(record, self.tensors, x.shape)
            bias = self.get(record["bias"])
            bias = None if bias is None else np.repeat(bias, math.prod(shape[1:]))
            return self.sums(index, w, bias, x).reshape(shape)
        if kind == "adjoint":
            shape = tuple(record["inputs"])
            index, w, _ = gathered(record["of"], self.tensors, shape)
            bias = self.get(record["bias"])
            bias = None if bias is None else np.repeat(bias, math.prod(shape[1:]))
            back = scattered(index, w, math.prod(shape))
            return self.sums(*back, bias, x).reshape(shape)
        if kind == "scale":
            y = self.op(x * self.get(record["factor"]))
            shift = self.get(record["shift"])
            return y if shift is None else self.op(y + shift)
        if kind == "take":
            flat = np.append(x.reshape(-1), 0.0)
            name = record["index"]
            index = np.arange(x.size) if name is None else self.tensors[name]
            return flat[index].reshape(record["outputs"])
        assert kind == "exponential"
        u = x
        for i in range(record["terms"] - 1, 0, -1):
            image = self.linear(record["of"], u)
            product = image * self.op(np.array(1 / i))
            u = self.op(x + (product if self.fused else self.op(product)))
        return u

    def maps(self, records: list[Record], x: Array) -> Array:
        """Maps one after the other."""
        for record in records:
            x = self.linear(record, x)
        return x

    def activated(self, record: Record, x: Array) -> Array:
        """An activation."""
        if record["kind"] == "leaky-relu":
            return np.where(x >= 0, x, self.op(x * self.get(record["slopes"])))
        if record["kind"] == "sort":
            sign = -1 if record["descending"] else 1
            groups = (sign * x).reshape(-1, record["size"], *x.shape[1:])
            return sign * np.sort(groups, 1).reshape(x.shape)
        (k, m), (s, t) = record["size"], record["stride"]
        view = np.lib.stride_tricks.sliding_window_view(x, (k, m), (1, 2))
        return view[:, ::s, ::t].max((-2, -1))

    def block(self, block: Record, x: Array) -> Array:
        """A block."""
        hidden = self.activated(block["activation"], self.maps(block["inner"], x))
        if "step" not in block:
            y = self.maps(block["outer"], hidden)
            return y if block["skip"] is None else self.op(y + self.maps(block["skip"], x))
        step, (record,) = float.fromhex(block["step"]), block["inner"]
        hidden = hidden if self.late else self.op(step * hidden)
        if record["map"] == "dense":
            w = self.get(record["weight"]).T
            index = np.broadcast_to(np.arange(w.shape[1]), w.shape)
            y = self.sums(index, w, None, hidden).reshape(x.shape)
        else:
            index, w, _ = gathered(record, self.tensors, x.shape)
            y = self.sums(*scattered(index, w, x.size), None, hidden).reshape(x.shape)
        y = self.op(step * y) if self.late else y
        return self.op(x - y)

    def __call__(self, record: Record, x: Array) -> Array:
        """The network on one input of float32 numbers."""
        x = x.astype(np.float64)
        if self.flush:
            x = np.where(np.abs(x) < TINY[np.float32], 0.0, x)
        for block in record["network"]["blocks"]:
            x = self.block(block, x)
        return self.maps(record["network"]["last"], x).reshape(-1)


class Exact(Execution):
    """Operations that float64 does, which is exact beside float32."""

    def op(self, exact: Array, wide: bool = False) -> Array:
        """Nothing is rounded."""
        return exact


def gathered(
    record: Record, tensors: dict[str, Array], shape: tuple[int, ...]
) -> tuple[Array, Array, tuple[int, ...]]:
    """Entries of the input and weights for each entry of a convolution's output, and its shape."""
    weight, (channels, *_) = tensors[record["weight"]].astype(np.float64), shape
    places = np.arange(math.prod(shape)).reshape(shape)
    (p, q), (d, e), (s, t) = record["padding"], record["dilation"], record["stride"]
    pad = (0, 0), (p, p), (q, q)
    if record["circular"]:
        places = np.pad(places, pad, "wrap")
    else:
        places = np.pad(places, pad, constant_values=-1)
    out, each, k, m = weight.shape
    window = (d * (k - 1) + 1, e * (m - 1) + 1)
    view = np.lib.stride_tricks.sliding_window_view(places, window, (1, 2))
    view = view[:, ::s, ::t, ::d, ::e]  # channels, height, width, k, m
    height, width = view.shape[1:3]
    index = np.empty((out, height, width, each * k * m), np.int64)
    for o in range(out):
        group = o // (out // record["groups"])
        part = view[group * each : (group + 1) * each]
        index[o] = part.transpose(1, 2, 0, 3, 4).reshape(height, width, -1)
    w = np.broadcast_to(weight.reshape(out, 1, 1, -1), index.shape)
    assert channels == each * record["groups"]
    return index.reshape(-1, each * k * m), w.reshape(-1, each * k * m), (out, height, width)


def scattered(index: Array, weight: Array, count: int) -> tuple[Array, Array]:
    """The transposed sums: for each entry of the input, outputs and weights."""
    lists: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for row, (places, numbers) in enumerate(zip(index, weight, strict=True)):
        for place, number in zip(places.tolist(), numbers.tolist(), strict=True):
            if place >= 0:
                lists[place].append((row, number))
    most = max(1, *map(len, lists))
    back = np.full((count, most), -1), np.zeros((count, most))
    for place, entries in enumerate(lists):
        for k, (row, number) in enumerate(entries):
            back[0][place, k], back[1][place, k] = row, number
    return back


ORDERS = "as they come", "largest first", "smallest first", "signs apart", "tree"


def executions(tensors: dict[str, Array], wide: bool = False) -> list[Execution]:
    """Executions that try to be far off."""
    found = []
    for order in ORDERS:
        for worst in (0, 1, -1):
            for number, fused in enumerate((False, True)):
                flush, late = (worst == 0) != bool(number), bool(number)
                found.append(Execution(order, worst, flush, fused, wide, late, tensors))
    return found


Attack = Callable[[np.random.Generator, Array, float], Array]


def within(rng: np.random.Generator, x: Array, radius: float) -> Array:
    """Float32 numbers no farther from x than a radius."""
    noise = rng.normal(size=x.shape)
    y = x + radius * noise / np.linalg.norm(noise)
    for shrink in (1.0, 1 - 1e-6, 1 - 1e-3):
        moved = (x + shrink * (y - x)).astype(np.float32)
        if np.linalg.norm(moved.astype(np.float64) - x) <= radius:
            return moved
    return x.astype(np.float32)
