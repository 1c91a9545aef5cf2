"""Claim: proved network bounds in seconds, beside the eclipse-nn package where it is installed.

The random ReLU networks of ECLipsE (4 inputs, 1 output): value and seconds of each method, ours
with the proof of its rounding, theirs in plain float64. eclipse-nn 0.1.7 asks 1e-8 of a solver
that runs at 1e-6, takes that for a failure and returns its closed form: the row says so.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from harness import save
from torch import Tensor, nn

from onelip.bounds import ECLipsE, LipLT, LipSDP, Product
from onelip.chains import Block, Chain, Dense, Elementwise
from onelip.errors import NotApplicableError

SIZES = ((2, 20), (2, 40), (5, 20), (5, 40), (20, 20), (20, 100), (50, 20), (100, 100))
SLOW = 40 * 20  # neurons beyond which the programs of ECLipsE and LipSDP are left out


def main() -> None:
    """Every size."""
    save("network_bounds_cpu", rows())


def rows() -> Iterator[dict[str, Any]]:
    """A row at a time."""
    for layers, width in SIZES:
        weights = random_weights(layers, width)
        chain = chain_of(weights)
        methods: dict[str, Callable[[], object]] = {
            method.title: partial(method.bound, chain)
            for method in (Product(), LipLT(), ECLipsE(fast=True))
        }
        if layers * width <= SLOW:
            methods |= {m.title: partial(m.bound, chain) for m in (ECLipsE(), LipSDP())}
        methods |= _eclipse_nn(weights, slow=layers * width <= SLOW)
        found = {name: _timed(method) for name, method in methods.items()}
        attempt, closed = found.get("eclipse-nn, ECLipsE"), found.get("eclipse-nn, Fast")
        if attempt and closed and attempt.get("value") == closed.get("value"):
            attempt["note"] = "its programme failed inside it: this is its closed form"
        yield {"layers": layers, "width": width, "methods": found}


def _timed(method: Callable[[], object]) -> dict[str, Any]:
    """The value, and the seconds of the faster of two calls."""
    seconds, value = float("inf"), None
    for _ in range(2):
        start = time.perf_counter()
        try:
            value = float(method())  # type: ignore[arg-type]
        except NotApplicableError as error:
            return {"note": str(error)}
        except Exception as error:  # of the other library
            return {"note": f"{type(error).__name__}: {error}"[:120]}
        seconds = min(seconds, time.perf_counter() - start)
        if seconds > 20:
            break
    return {"value": value, "seconds": round(seconds, 4)}


def _eclipse_nn(weights: list[Tensor], *, slow: bool) -> dict[str, Callable[[], object]]:
    try:
        from eclipse_nn.LipConstEstimator import LipConstEstimator
    except ImportError:
        return {}
    estimator = LipConstEstimator(weights=weights)
    methods: dict[str, Callable[[], object]] = {
        "eclipse-nn, Fast": partial(estimator.estimate, "ECLipsE_Fast")
    }
    if slow:
        methods["eclipse-nn, ECLipsE"] = partial(estimator.estimate, "ECLipsE")
    return methods


def random_weights(layers: int, width: int) -> list[Tensor]:
    """As published: seeded, each weight with a norm between 0.4 and 1.8."""
    random = np.random.RandomState(width * 7 + layers * 13)
    sizes = [4, *[width] * (layers - 1), 1]
    weights = []
    for columns, outputs in itertools.pairwise(sizes):
        norm = random.uniform(0.4, 1.8)
        weight = torch.from_numpy(random.randn(outputs, columns))
        weights.append(weight * (norm / torch.linalg.matrix_norm(weight, 2)))
    return weights


def chain_of(weights: list[Tensor]) -> Chain:
    relu = Elementwise.of(nn.ReLU())
    return Chain(tuple(Block(Dense(weight), relu) for weight in weights[:-1]), Dense(weights[-1]))


if __name__ == "__main__":
    main()
