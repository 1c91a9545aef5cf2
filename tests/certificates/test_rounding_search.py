"""A search for predictions that rounding changes within certified radii."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip import layers
from tests.certificates.summation import ORDERS, run

TRIES = 10_000


def cancelling() -> tuple[nn.Sequential, Tensor]:
    """Two large rows that differ little: sums of 30 or so whose difference is the margin."""
    torch.manual_seed(0)
    row = 3 * torch.randn(64)
    model = nn.Sequential(nn.Linear(64, 2, bias=False)).eval().requires_grad_(False)
    model[0].weight.copy_(torch.stack([row, row + 1e-3 * torch.randn(64)]))
    return model, torch.rand(200, 64)


def two_layers() -> tuple[nn.Sequential, Tensor]:
    """An orthogonal network: along its gradient the radius is nearly used up."""
    torch.manual_seed(1)
    first, last = nn.Linear(24, 16), nn.Linear(16, 2)
    nn.init.orthogonal_(first.weight)
    nn.init.orthogonal_(last.weight)
    last.weight.data = F.normalize(last.weight.data[:1] + 1e-3 * last.weight.data, dim=1)
    model = nn.Sequential(first, layers.MaxMin(), last).eval().requires_grad_(False)
    last.bias.sub_(model(torch.rand(500, 24)).mean(0))
    return model, torch.rand(200, 24)


def boundary(model: nn.Module, x: Tensor, radius: Tensor, prediction: Tensor) -> Tensor:
    """Float32 inputs within the radii, as far as they reach against the gradient of the margin."""
    start = x.double().requires_grad_()
    twin = onelip.export(model).double()
    logits = twin(start)
    rival = logits.detach().scatter(1, prediction[:, None], -math.inf).argmax(1)
    rows = torch.arange(len(x))
    margin = logits[rows, prediction] - logits[rows, rival]
    (gradient,) = torch.autograd.grad(margin.sum(), start)
    far = start.detach() - F.normalize(gradient, dim=1) * radius[:, None]
    return far.float()


def walked(x: Tensor, generator: torch.Generator, steps: int) -> Tensor:
    """Neighbours in float32: a few units in the last place in random entries."""
    moved = x.clone()
    for _ in range(steps):
        up = torch.rand(x.shape, generator=generator) < 0.5
        there = torch.rand(x.shape, generator=generator) < 0.3
        target = torch.where(up, torch.full_like(x, math.inf), torch.full_like(x, -math.inf))
        moved = torch.where(there, torch.nextafter(moved, target), moved)
    return moved


def changed(model: nn.Sequential, x: Tensor, level: str, orders: dict, tries: int = TRIES) -> int:
    """Count predictions that differ within the radii of a level, over so many tries.

    A try is a float32 input inside a ball, tested in float64, and a way to compute its logits:
    torch's own in a batch or alone, with one or two threads, or another order of the sums.
    """
    certificate = onelip.certify(model, x, level=level)
    sure = certificate.radius > 0
    x, radius = x[sure], certificate.radius[sure]
    prediction = certificate.prediction[sure]
    assert len(x) > 50
    generator, done, found, seed = torch.Generator().manual_seed(0), 0, 0, 0
    far = boundary(model, x, radius, prediction)
    while done < tries:
        near = walked(far if seed % 3 else x, generator, seed % 5)
        for share in (1.0, 0.9999, 0.99):  # back towards the sample until it is inside
            inside = (x.double() + share * (near.double() - x.double())).float()
            distance = (inside.double() - x.double()).norm(dim=1) * (1 + 1e-12)
            within = distance < radius
            if not within.any():
                continue
            points, expected = inside[within], prediction[within]
            for logits in computed(model, points, orders, seed):
                found += int((logits.argmax(1) != expected).sum())
                done += len(points)
        seed += 1
    return found


def computed(model: nn.Sequential, x: Tensor, orders: dict, seed: int):
    """Logits as different programs would compute them."""
    yield model(x)
    yield torch.cat([model(one) for one in x.split(1 + seed % 3)])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 + seed % 2)
        yield model(x)
    finally:
        torch.set_num_threads(threads)
    columns = torch.randperm(
        model[0].weight.shape[1], generator=torch.Generator().manual_seed(seed)
    )
    first = nn.Linear(*model[0].weight.shape[::-1], bias=model[0].bias is not None)
    first.requires_grad_(False).weight.copy_(model[0].weight[:, columns])
    if model[0].bias is not None:
        first.bias.copy_(model[0].bias)
    yield nn.Sequential(first, *model[1:])(x[:, columns])
    for order in orders:
        yield run(model, x, order, seed, fused=bool(seed % 2), flush=bool(seed % 3))


@pytest.mark.parametrize("build", [cancelling, two_layers])
def test_rounding_changes_predictions_within_radii_of_level_real_and_none_of_level_float(build):
    model, x = build()
    assert changed(model, x, "float", ORDERS) == 0
    assert changed(model, x, "real", ORDERS) > 0


@pytest.mark.parametrize("build", [cancelling, two_layers])
def test_none_within_radii_of_float64_accumulation(build):
    model, x = build()
    model = onelip.export(model, accumulate=torch.float64)
    plain = onelip.certify(build()[0], x, level="float").radius
    assert bool((onelip.certify(model, x, level="float").radius >= plain).all())
    assert changed_accumulated(model, x) == 0


def changed_accumulated(model: nn.Sequential, x: Tensor) -> int:
    """The same search with torch's own orders, at the boundary of larger balls."""
    certificate = onelip.certify(model, x, level="float")
    sure = certificate.radius > 0
    x, radius, prediction = x[sure], certificate.radius[sure], certificate.prediction[sure]
    generator, done, found, seed = torch.Generator().manual_seed(0), 0, 0, 0
    far = boundary(model, x, radius, prediction)
    while done < TRIES:
        near = walked(far, generator, seed % 5)
        inside = (near.double() - x.double()).norm(dim=1) * (1 + 1e-12) < radius
        outputs = model(near), torch.cat([model(one) for one in near.split(1 + seed % 3)])
        for logits in outputs:
            found += int((logits.argmax(1) != prediction)[inside].sum())
        done += max(1, 2 * int(inside.sum()))
        seed += 1
    return found


RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "rounding_search.json"


def test_the_stored_demonstration_is_one() -> None:
    """In fractions the radius is right and the input inside; float32 gives another class."""
    record = json.loads(RECORD.read_text())
    found = record["demonstration"]
    w = [[float.fromhex(text) for text in row] for row in found["weight"]]
    sample, x = ([float.fromhex(t) for t in found[name]] for name in ("sample", "input"))
    own, radius = found["prediction"], Fraction(float.fromhex(found["radius"]))

    def dot(a, b) -> Fraction:
        return sum((Fraction(p) * Fraction(q) for p, q in zip(a, b, strict=True)), Fraction(0))

    apart = [Fraction(p) - Fraction(q) for p, q in zip(w[own], w[1 - own], strict=True)]
    step = [Fraction(p) - Fraction(q) for p, q in zip(x, sample, strict=True)]
    assert dot(apart, sample) > 0
    assert radius**2 * dot(apart, apart) <= dot(apart, sample) ** 2
    assert dot(step, step) < radius**2
    assert dot(apart, x) > 0
    order = found["order of the sums"]
    assert sorted(order) == list(range(len(x)))
    totals = []
    for row in w:
        total = np.float32(0)
        for k in order:
            total = np.float32(total + np.float32(row[k]) * np.float32(x[k]))
        totals.append(total)
    assert [float(total).hex() for total in totals] == found["logits"]
    assert totals[1 - own] >= totals[own]
    differ = {row["level"]: [] for row in record["rows"]}
    for row in record["rows"]:
        assert row["tries"] >= TRIES
        differ[row["level"]].append(row["predictions that differ"])
    assert min(differ["real"]) > 0
    assert max(differ["float"]) == 0
