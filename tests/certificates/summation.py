"""Linear parts computed in any order of summation, fused or not, flushed or not."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Order = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def rounded(terms: np.ndarray) -> np.ndarray:
    return terms.astype(np.float32)


def as_given(terms: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return terms


def shuffled(terms: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another order for each sum."""
    return rng.permuted(terms, axis=-1)


def largest_first(terms: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """All positive terms from the largest on, then all negative ones: the longest way up."""
    return -np.sort(-terms, axis=-1)


def halves_first(terms: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.concatenate([terms[..., ::2], terms[..., 1::2]], -1)


def greedy(terms: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Climb to a power of two, stay above it, and always add what is rounded upwards most.

    Where a sum is large its roundings are, too; the power of two is the last below the largest sum
    that any order reaches.
    """
    flat = terms.reshape(-1, terms.shape[-1]).astype(np.float64)
    rows, count = np.arange(len(flat)), flat.shape[1]
    peak = flat.clip(min=0).sum(1)
    floor = np.exp2(np.floor(np.log2(np.maximum(peak * 0.95, 1e-300))))
    left, order = np.ones_like(flat, dtype=bool), np.empty(flat.shape, dtype=int)
    total, high = np.zeros(len(flat)), np.zeros(len(flat), dtype=bool)
    for k in range(count):
        exact = total[:, None] + flat  # in float64: what a sum in float32 is rounded from
        gain = exact.astype(np.float32) - exact
        gain = np.where(exact >= floor[:, None], gain, gain - floor[:, None])
        choice = np.where(high[:, None], gain, flat)  # on the way up, the largest terms
        order[:, k] = np.where(left, choice, -np.inf).argmax(1)
        total = exact[rows, order[:, k]].astype(np.float32).astype(np.float64)
        left[rows, order[:, k]] = False
        high |= total >= floor
    return np.take_along_axis(terms.reshape(flat.shape), order, -1).reshape(terms.shape)


ORDERS: dict[str, Order] = {
    "as-given": as_given,
    "shuffled": shuffled,
    "largest-first": largest_first,
    "halves-first": halves_first,
    "greedy": greedy,
}

TINY = np.finfo(np.float32).tiny


def flushed(numbers: np.ndarray) -> np.ndarray:
    return np.where(np.abs(numbers) < TINY, 0, numbers).astype(np.float32)


def sums(
    terms: np.ndarray,
    bias: Tensor | None,
    order: Order,
    rng: np.random.Generator,
    *,
    fused: bool,
    flush: bool,
) -> Tensor:
    """Sums ``(..., n)`` of products that are exact in float64, in float32 from left to right."""
    end = flushed if flush else rounded
    if bias is not None:
        numbers = np.broadcast_to(bias.detach().numpy(), terms.shape[:2])[..., None]
        terms = np.concatenate([terms, numbers], -1)
    terms = order(terms if fused else end(terms), rng)
    total = np.zeros(terms.shape[:2], dtype=np.float32)
    for k in range(terms.shape[-1]):
        total = end(total.astype(np.float64) + terms[..., k])
    return torch.from_numpy(total)


def products(weight: Tensor, x: Tensor, *, flush: bool) -> np.ndarray:
    """Products of rows and inputs, ``(batch, rows, n)``, exact in float64."""
    inputs = (flushed if flush else rounded)(x.numpy())
    return weight.detach().numpy()[None].astype(np.float64) * inputs[:, None]


def linear(
    layer: nn.Linear, x: Tensor, order: Order, rng: np.random.Generator, *, fused: bool, flush: bool
) -> Tensor:
    """``W x + b`` for ``(batch, features)``."""
    terms = products(layer.weight, x, flush=flush)
    return sums(terms, layer.bias, order, rng, fused=fused, flush=flush)


def convolution(
    layer: nn.Conv2d, x: Tensor, order: Order, rng: np.random.Generator, *, fused: bool, flush: bool
) -> Tensor:
    """A convolution with zero padding, as sums over the pixels under each kernel."""
    patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    count, _, places = patches.shape
    terms = products(layer.weight.flatten(1), patches.mT.flatten(0, 1), flush=flush)
    found = sums(terms, layer.bias, order, rng, fused=fused, flush=flush)
    height = (x.shape[2] + 2 * layer.padding[0] - layer.kernel_size[0]) // layer.stride[0] + 1
    return found.view(count, places, -1).mT.unflatten(2, (height, -1))


_SUMMED = {nn.Linear: linear, nn.Conv2d: convolution}


def run(model: nn.Sequential, x: Tensor, order: str, seed: int, **options: bool) -> Tensor:
    """Run a sequence with its linear parts in another order of summation."""
    rng = np.random.default_rng(seed)
    for part in model:
        summed = _SUMMED.get(type(part))
        x = part(x) if summed is None else summed(part, x, ORDERS[order], rng, **options)
    return x
