"""Claim: no bound of 10,000 small networks is below their brute-force constant.

A network is written as all matrices that it can be (``small_networks.py``). The largest norm of
these is what every method is compared with. Where a bound is below it in float64, the quotient
|M v| / |v| of the worst matrix decides, in exact rational arithmetic. For local bounds it is the
largest Jacobian at points of the ball. A control shows that a millionth too little is seen.
"""

import copy
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from harness import save
from small_networks import Drawn, Network, Residual
from torch import Tensor, nn

from onelip.bounds import METHODS, Best, BoundMethod, Exact, LipLT, Local, Product
from onelip.chains import Block, Chain, Dense, Elementwise, identity
from onelip.errors import NotApplicableError
from onelip.reading import read

NETWORKS = 10_000
OTHERS = {"liplt, sll": 4, "best": 20}  # of so many networks one: they take longer
RADII = (0.05, 0.5)  # in turn
POINTS = 24  # in the ball around a sample
CONTROL = "control: exact, and a millionth less"
WRONG = 1 - 1e-6


@dataclass
class Tally:
    """Comparisons of one method."""

    networks: int = 0
    below: list[int] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def row(self, method: str) -> dict[str, Any]:
        """As it is stored."""
        ratios = self.ratios or [float("nan")]
        return {
            "method": method,
            "networks": self.networks,
            "below": len(self.below),
            "first_below": self.below[:5],
            "median_ratio": round(statistics.median(ratios), 6),
            "largest_ratio": float(f"{max(ratios):.6g}"),
        }


def compare(seed: int, tallies: dict[str, Tally]) -> None:
    """Every method on one network."""
    network = Drawn(seed).whole()
    model, products = network.model, network.products()
    wide = copy.deepcopy(model).double()
    chain = chain_of(network, model)
    norms = torch.linalg.matrix_norm(products, 2)
    worst = int(norms.argmax())
    exact, direction = float(norms[worst]), torch.linalg.svd(products[worst]).Vh[0]
    rows = torch.eye(products.shape[1], dtype=torch.float64)
    for name, method in methods(seed).items():
        try:
            bound = float(method.bound(chain))
        except NotApplicableError:
            continue
        _count(tallies[name], seed, bound, exact)
        if bound < exact * (1 + 1e-12) and network.is_below(bound, worst, rows, direction):
            tallies[name].below.append(seed)
        if name == Exact.name and exact:
            _count(tallies[CONTROL], seed, bound * WRONG, exact)
            if network.is_below(bound * WRONG, worst, rows, direction):
                tallies[CONTROL].below.append(seed)
    if len(rows) > 1 and seed % 2:
        _compare_pairs(seed, network, chain, products, tallies)
    _compare_locally(seed, network, wide, chain, tallies)


def chain_of(network: Network, model: nn.Sequential) -> Chain:
    """As the library reads it; residual blocks, which have no module of torch, as a chain."""
    if network.kind != "residual":
        return read(model, network.shape)
    *parts, last = model
    blocks = [
        Block(
            Dense(part.inner.weight, part.inner.bias),
            Elementwise.of(part.activation),
            Dense(part.outer.weight),
            identity(network.shape),
        )
        for part in parts
        if isinstance(part, Residual)
    ]
    assert isinstance(last, nn.Linear)
    return Chain(tuple(blocks), Dense(last.weight, last.bias))


def methods(seed: int) -> dict[str, BoundMethod]:
    """All global ones, and a variant."""
    found = {name: method for name, method in METHODS.items() if name not in ("local", "best")}
    found |= {"liplt, sll": LipLT(refinement="sll"), "best": Best(seconds=0.5)}
    return {name: method for name, method in found.items() if seed % OTHERS.get(name, 1) == 0}


def _count(tally: Tally, seed: int, bound: float, exact: float) -> None:
    tally.networks += 1
    assert bound < inf, seed
    if exact:
        tally.ratios.append(bound / exact)


def _compare_pairs(
    seed: int, network: Network, chain: Chain, products: Tensor, tallies: dict[str, Tally]
) -> None:
    """Constants of differences of two outputs."""
    count = products.shape[1]
    norms = (products[:, :, None] - products[:, None]).norm(dim=3)
    exact, worst = norms.max(0)
    for name in ("product", "liplt"):
        try:
            pairs = METHODS[name].logit_bounds(chain).pairwise
        except NotApplicableError:
            continue
        tally = tallies[f"{name}, pairs of outputs"]
        _count(tally, seed, float(pairs.max()), float(exact.max()))
        for i, j in (pairs < exact * (1 + 1e-12)).nonzero().tolist():
            if i != j:
                index, rows = int(worst[i, j]), torch.zeros(1, count, dtype=torch.float64)
                rows[0, i], rows[0, j] = 1, -1
                direction = products[index, i] - products[index, j]
                if network.is_below(float(pairs[i, j]), index, rows, direction):
                    tally.below.append(seed)
                    break


def _compare_locally(
    seed: int, network: Network, wide: nn.Module, chain: Chain, tallies: dict[str, Tally]
) -> None:
    """Constants of balls against Jacobians at points inside."""
    centres = torch.randn(2, *network.shape, dtype=torch.float64)
    radius = RADII[seed % 2]
    try:
        bounds = Local(cap=Product()).around(chain, centres, radius)
    except NotApplicableError:
        return
    tally = tallies["local"]
    for bound, centre in zip(bounds.tolist(), centres, strict=True):
        steps = torch.randn(POINTS, *network.shape, dtype=torch.float64)
        lengths = steps.flatten(1).norm(dim=1).view(-1, *[1] * len(network.shape))
        points = centre + radius * steps / lengths * torch.rand_like(lengths) ** 0.5
        found = float(torch.linalg.matrix_norm(_jacobians(wide, points), 2).max())
        _count(tally, seed, bound, found)
        if bound < found * (1 - 1e-12):
            tally.below.append(seed)


def _jacobians(model: nn.Module, points: Tensor) -> Tensor:
    """``(points, outputs, inputs)``."""
    points = points.clone().requires_grad_()
    values = model(points)
    rows = [torch.autograd.grad(values[:, k].sum(), points, retain_graph=True)[0].flatten(1)
            for k in range(values.shape[1])]  # fmt: skip
    return torch.stack(rows, 1)


def rows(count: int) -> Iterator[dict[str, Any]]:
    """One for each method, after all networks."""
    names = [*methods(0), *(f"{name}, pairs of outputs" for name in ("product", "liplt"))]
    tallies = {name: Tally() for name in [*names, "local", CONTROL]}
    kinds: dict[str, int] = {}
    for seed in range(count):
        compare(seed, tallies)
        if seed % 500 == 499:
            below = {name: t.below for name, t in tallies.items() if t.below and name != CONTROL}
            print(seed + 1, below, file=sys.stderr, flush=True)
        kind = Drawn(seed).network.kind
        kinds[kind] = kinds.get(kind, 0) + 1
    yield {"networks": count, **kinds}
    for name, tally in tallies.items():
        yield tally.row(name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = int(sys.argv[1]) if len(sys.argv) > 1 else NETWORKS
    save("fuzz", rows(chosen))
