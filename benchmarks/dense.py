"""Claim: orthogonalising a dense weight costs a fraction of Bjorck's iteration, and O(n m^2).

Forward and backward of: our Cholesky factor, 20 Bjorck iterations, and torch's own orthogonal
parametrizations, for square and long weights. The exponents say how the time grows.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness import alternate, save, summary, without_slow
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from onelip.layers import BjorckLinear, BROLinear, CayleyLinear, CholeskyLinear

SHAPES = ((256, 256), (512, 512), (1024, 1024), (784, 512), (1568, 512), (3136, 512))
_SECONDS = 1.0  # slower functions are timed once


def main() -> None:
    """Every shape, ratios to the Cholesky factor."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    save(f"dense_{device}", _rows(device))


def _rows(device: str) -> Iterator[dict[str, Any]]:
    rows = []
    for n, m in SHAPES:
        rows.append(_row(n, m, device))
        yield rows[-1]
    yield from _growth(rows)


def _row(n: int, m: int, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {
        "cholesky": CholeskyLinear(n, m),
        "cayley": CayleyLinear(n, m),
        "bro": BROLinear(n, m),
        "bjorck 20": BjorckLinear(n, m),
        "torch default": orthogonal(nn.Linear(n, m)),  # matrix_exp, or householder if not square
        "torch cayley": orthogonal(nn.Linear(n, m), orthogonal_map="cayley"),
    }
    calls = {name: _call(layer.to(device)) for name, layer in layers.items()}
    fast, slow = without_slow(calls, _SECONDS)
    row = {"n": n, "m": m, **summary(alternate(fast, rounds=7, warm_up=0), "cholesky")}
    row |= {"once_ms": slow} if slow else {}
    return row


def _call(layer: nn.Module) -> Callable[[], None]:
    def run() -> None:
        layer.zero_grad()
        weight: Tensor = layer.weight  # type: ignore[assignment]
        (weight * weight.detach().flip(0)).sum().backward()

    return run


def _growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    long = [row for row in rows if row["m"] == 512 and row["n"] > 512]
    square = [row for row in rows if row["n"] == row["m"]]
    return [
        {
            "exponent_of": what,
            **{
                name: round(
                    math.log(group[-1]["median_ms"][name] / group[0]["median_ms"][name])
                    / math.log(group[-1]["n"] / group[0]["n"]),
                    2,
                )
                for name in group[0]["median_ms"]
                if name in group[-1]["median_ms"]
            },
        }
        for what, group in (("n, m = 512", long), ("n = m", square))
    ]


if __name__ == "__main__":
    main()
