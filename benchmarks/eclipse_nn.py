"""Claim: ``Best(seconds=10)`` is tighter than the package eclipse-nn 0.1.7 on all 45 networks.

40 random ReLU networks of the kind that the package was published on (4 inputs, 1 output) and five
that are trained on the digits of scikit-learn. Theirs is what it returns: its semidefinite modes
end in its closed form, ECLipsE-Fast, in plain float64. Ours is proved. The seconds of our
ECLipsE-Fast are beside theirs, taken in turns in one process.

``python benchmarks/eclipse_nn.py [first] [last]`` runs some of the networks and keeps the others'
rows. Where the package is not installed, its closed form is computed from the paper's formula, and
the row says so.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, alternate, save
from network_bounds import chain_of, random_weights
from torch import Tensor

from onelip.bounds import Best, ECLipsE

NAME = "eclipse_nn"
WIDTHS = (20, 40, 60, 80, 100)
LAYERS = (2, 5, 10, 20, 30, 50, 75, 100)
TRAINED = ((32,), (64, 64), (32, 32, 32), (100, 100), (16, 16, 16, 16, 16, 16))
SECONDS = 10.0


def main() -> None:
    """Run the networks that the arguments choose."""
    Best(seconds=0.1).report(chain_of(random_weights(2, 20)))  # torch imports at its first gradient
    first, last = (int(a) for a in (*sys.argv[1:], "0", "1000")[:2])
    path, rows = RESULTS / f"{NAME}.json", list[dict[str, Any]]()
    if path.exists():
        rows = json.loads(path.read_text())["rows"]
    kept = {row["network"]: row for row in rows}
    for name, weights in itertools.islice(networks(), first, last):
        kept[name] = {"network": name, **compared(weights())}
        save(NAME, (kept[network] for network, _ in networks() if network in kept))


def networks() -> Iterator[tuple[str, Callable[[], list[Tensor]]]]:
    """Names and weights."""
    for width, layers in itertools.product(WIDTHS, LAYERS):
        name = f"random, {layers} layers of {width}"
        yield name, lambda w=width, n=layers: random_weights(n, w)  # type: ignore[misc]
    for hidden in TRAINED:
        yield f"digits, {hidden}", lambda h=hidden: trained(h)  # type: ignore[misc]


def compared(weights: list[Tensor]) -> dict[str, Any]:
    """Both bounds of one network, and the seconds of both closed forms."""
    chain, (source, theirs) = chain_of(weights), their_closed_form(weights)
    start = time.perf_counter()
    found = Best(seconds=SECONDS).report(chain)
    seconds = time.perf_counter() - start
    rounds = 9 if len(weights) < 20 else 3
    fast = ECLipsE(fast=True)
    times = alternate({"ours": lambda: fast.bound(chain), "theirs": theirs}, rounds=rounds)
    ratio = statistics.median(a / b for a, b in zip(times["ours"], times["theirs"], strict=True))
    bounds = {tried.method: tried.bound for tried in found.tried}
    other = float(theirs())
    return {
        "best": float(found.bound),
        "method": found.method,
        "seconds": round(seconds, 2),
        "eclipse-nn": other,
        "source": source,
        "best / eclipse-nn": float(found.bound) / other,
        "bounds": bounds,
        "fast, ms": round(1e3 * statistics.median(times["ours"]), 2),
        "theirs, ms": round(1e3 * statistics.median(times["theirs"]), 2),
        "fast / theirs, seconds": round(ratio, 2),
        "lower estimate": found.lower.bound,
    }


def their_closed_form(weights: list[Tensor]) -> tuple[str, Callable[[], float]]:
    """Closed form of the package if it is there, or of the paper's formula."""
    path = sys.path.copy()
    try:  # not this file, which has its name
        sys.path[:] = [folder for folder in path if folder != str(Path(__file__).parent)]
        from eclipse_nn.LipConstEstimator import LipConstEstimator
    except ImportError:
        return "formula of the paper, float64", lambda: published(weights)
    finally:
        sys.path[:] = path
    estimator = LipConstEstimator(weights=weights)
    return "eclipse-nn 0.1.7", lambda: float(estimator.estimate("ECLipsE_Fast"))


def published(weights: list[Tensor]) -> float:
    """ECLipsE-Fast for ReLU: one multiplier per layer, in plain float64."""
    known = torch.eye(weights[0].shape[1], dtype=torch.float64)
    for weight in weights[:-1]:
        moment = weight @ torch.linalg.solve(known, weight.mT)
        number = 2 / torch.linalg.matrix_norm(moment, 2)
        known = number * torch.eye(len(weight)).double() - number**2 / 4 * moment
    last = weights[-1]
    return float(torch.linalg.matrix_norm(last @ torch.linalg.solve(known, last.mT), 2).sqrt())


def trained(hidden: tuple[int, ...]) -> list[Tensor]:
    """Weights of a ReLU network trained on the digits."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels).float() / 16, torch.from_numpy(labels)
    torch.manual_seed(0)
    sizes = [64, *hidden, 10]
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    parts = [part for layer in layers for part in (layer, torch.nn.ReLU())][:-1]
    model = torch.nn.Sequential(*parts)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    right = float((model(x).argmax(1) == y).float().mean())
    assert right > 0.9, right  # it has learnt something
    return [layer.weight.detach().double() for layer in layers]


if __name__ == "__main__":
    main()
