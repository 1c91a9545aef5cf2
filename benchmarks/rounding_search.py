"""Claim: rounding changes predictions within radii of level real, and none within level float's.

A search as that of Jin, Ohrimenko and Rubinstein (2022): float32 inputs near the end of a radius,
walked by units in the last place, and float32 programs that add in other orders, other batches or
with more threads. The record has one hit with all its numbers; ``tests/certificates`` checks it
in fractions.

    python benchmarks/rounding_search.py
"""

import json
import math
from collections.abc import Iterator
from operator import mul
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import RESULTS, machine
from torch import Tensor, nn

import onelip
from onelip import layers

TRIES = 10_000
ORDERS = "as given", "reversed", "shuffled", "largest first", "halves", "pairs"


def cancelling() -> nn.Sequential:
    """Two large rows that differ little: long sums whose difference is the margin."""
    row = 3 * torch.randn(64)
    weight = torch.stack([row, row + 1e-3 * torch.randn(64)])
    single = nn.Linear(64, 2, bias=False).requires_grad_(False)
    single.weight.copy_(weight)
    return nn.Sequential(single)


def orthogonal() -> nn.Sequential:
    """An orthogonal network: along its gradient a radius is nearly used up."""
    first, last = nn.Linear(24, 16), nn.Linear(16, 2)
    nn.init.orthogonal_(first.weight)
    rows = torch.randn(2, 16)
    last.weight.data = F.normalize(rows[:1] + 1e-3 * rows, dim=1)
    model = nn.Sequential(first, layers.MaxMin(), last).requires_grad_(False)
    logits: Tensor = model(torch.rand(500, 24))
    last.bias.sub_(logits.mean(0))
    return model


NETWORKS = {"two rows that cancel": (cancelling, 64), "orthogonal": (orthogonal, 24)}


def main() -> None:
    """All networks at both levels."""
    threads = torch.get_num_threads()
    rows, shown = [], None
    for name, (build, size) in NETWORKS.items():
        torch.manual_seed(0)
        model, x = build().eval(), torch.rand(200, size)
        for level in ("real", "float"):
            row, hit = search(model, x, level)
            rows.append({"network": name, "level": level} | row)
            print(json.dumps(rows[-1]), flush=True)
            shown = shown or (hit if len(model) == 1 else None)
    torch.set_num_threads(threads)
    found = {"machine": machine(), "rows": rows, "demonstration": shown}
    (RESULTS / "rounding_search.json").write_text(json.dumps(found, indent=1) + "\n")


def search(model: nn.Sequential, x: Tensor, level: Any) -> tuple[dict[str, Any], Any]:
    """Count predictions that differ within radii, by program, and give the first in a set order."""
    certificate = onelip.certify(model, x, level=level)
    sure = certificate.radius > 0
    x, radius, prediction = x[sure], certificate.radius[sure], certificate.prediction[sure]
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    far, tries, walk, shown = ends(model, x, radius, prediction), 0, 0, None
    hits: dict[str, int] = {}
    weight = next(iter(model.parameters()))
    while tries < TRIES:
        near = walked(far, generator, walk % 5)
        back = x.double() + (1 - 10.0 ** -(3 + walk % 4)) * (near.double() - x.double())
        inside = back.float()
        within = (inside.double() - x.double()).norm(dim=1) * (1 + 1e-12) < radius
        points, expected = inside[within], prediction[within]
        for program, order, logits in computed(model, points, rng):
            wrong = (logits.argmax(1) != expected).nonzero().flatten().tolist()
            hits[program] = hits.get(program, 0) + len(wrong)
            tries += len(points)
            if order is None or shown is not None or len(model) > 1:
                continue
            for at in wrong:
                sample = int(within.nonzero()[at])
                if not holds(weight, x[sample], points[at], radius[sample]):
                    continue
                shown = {
                    "weight": hexadecimal(weight),
                    "sample": hexadecimal(x[sample]),
                    "radius": float(radius[sample]).hex(),
                    "prediction": int(expected[at]),
                    "input": hexadecimal(points[at]),
                    "order of the sums": order.tolist(),
                    "logits": hexadecimal(logits[at]),
                }
                break
        walk += 1
    row = {"samples": len(x), "tries": tries, "predictions that differ": sum(hits.values())}
    return row | {"by program": hits}, shown


def holds(weight: Tensor, sample: Tensor, point: Tensor, radius: Tensor) -> bool:
    """Whether a radius is right of the exact function, so that only the program is to blame.

    Level real takes the logits that torch computes as exact, so some radii are a little too large.
    """
    apart = (weight[0].double() - weight[1].double()).tolist()
    margins = [math.fsum(map(mul, apart, at.tolist())) for at in (sample, point)]
    right = float(radius) * math.hypot(*apart) * (1 + 1e-12) < abs(margins[0])
    return right and margins[0] * margins[1] > 0


def ends(model: nn.Sequential, x: Tensor, radius: Tensor, prediction: Tensor) -> Tensor:
    """Inputs a radius away, against the gradient of the margin."""
    start = x.double().requires_grad_()
    logits = onelip.export(model).double()(start)
    rows = torch.arange(len(x))
    margin = logits[rows, prediction] - logits[rows, 1 - prediction]
    (gradient,) = torch.autograd.grad(margin.sum(), start)
    found: Tensor = start.detach() - F.normalize(gradient, dim=1) * radius[:, None]
    return found.float()


def walked(x: Tensor, generator: torch.Generator, steps: int) -> Tensor:
    """Neighbours in float32: some units in the last place, in random entries."""
    for _ in range(steps):
        drawn = torch.rand(x.shape, generator=generator)
        target = torch.where(drawn < 0.15, math.inf, torch.where(drawn > 0.85, -math.inf, x))
        x = torch.nextafter(x, target.float())
    return x


def computed(
    model: nn.Sequential, x: Tensor, rng: np.random.Generator
) -> Iterator[tuple[str, Any, Tensor]]:
    """Logits by programs that are all right: a name, the order of the last sums, the logits."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        yield f"torch, {threads} threads", None, model(x)
    torch.set_num_threads(1)
    for size in (1, 3):
        yield f"torch, batches of {size}", None, torch.cat([model(part) for part in x.split(size)])
    for name in ORDERS:
        y, order = x, None
        for part in model:
            if isinstance(part, nn.Linear):
                order = ordered(name, part.weight.numpy(), rng)
                y = summed(part, y, order)
            else:
                y = part(y)
        yield f"sums {name}", order, y


def ordered(name: str, weight: np.ndarray[Any, Any], rng: np.random.Generator) -> Any:
    """An order of the terms of a sum."""
    plain = np.arange(weight.shape[1])
    return {
        "as given": plain,
        "reversed": plain[::-1],
        "shuffled": rng.permutation(plain),
        "largest first": np.argsort(-weight[0]),
        "halves": np.concatenate([plain[::2], plain[1::2]]),
        "pairs": np.concatenate(list(zip(plain[: len(plain) // 2], plain[::-1], strict=False))),
    }[name]


def summed(layer: nn.Linear, x: Tensor, order: np.ndarray[Any, Any]) -> Tensor:
    """A linear layer whose products and sums are rounded to float32, one after the other."""
    terms = layer.weight.numpy()[None][..., order] * x.numpy()[:, None][..., order]
    total = np.add.accumulate(terms, axis=-1, dtype=np.float32)[..., -1]
    bias = 0 if layer.bias is None else layer.bias.numpy()
    return torch.from_numpy(total + np.float32(bias))


def hexadecimal(a: Tensor) -> list[Any]:
    """Numbers of a tensor, exact."""
    return [hexadecimal(row) if row.ndim else float(row).hex() for row in a]


if __name__ == "__main__":
    main()
