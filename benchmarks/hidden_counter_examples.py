"""Claim: no certificate reaches a planted counter-example that attacks miss; broken ones do.

Networks of ``onelip.testing.hidden_counter_examples``: what attacks find within the planted
distance, the distance over the radius of each method, of a proof that the checker accepts, and of
two radii that are wrong on purpose. A ratio of 1 or less is a counter-example to the radius.

    python benchmarks/hidden_counter_examples.py
"""

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, machine

import onelip
from onelip import attacks
from onelip.checker import check
from onelip.errors import NotApplicableError, UnboundedModuleError, UsageError
from onelip.testing import HiddenCounterExample, hidden_counter_examples
from onelip.testing.broken import one_step_radius, sampled_radius

METHODS = "product", "liplt", "eclipse-fast", "eclipse", "lipsdp", "local", "best", "curvature"
NOT_COVERED = NotApplicableError, UnboundedModuleError, UsageError
ATTACKS: dict[str, tuple[attacks.Attack, ...]] = {
    "fmn": (attacks.FMN(100),),
    "pgd": (attacks.PGD(40, 5, "margin"), attacks.PGD(40, 5, "cross-entropy")),
    "apgd": (attacks.APGD(steps=50, restarts=3, targets=2),),
    "square": (attacks.Square(),),
}
REACH = 1.01  # attacks may go a little further than the planted input


def main() -> None:
    """All networks, and what they say together."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for example in hidden_counter_examples():
        rows.append(_row(example))
        print(json.dumps(rows[-1]), flush=True)
    found = {"machine": machine(), "summary": _summary(rows), "rows": rows}
    (RESULTS / "hidden_counter_examples.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["summary"], indent=1))


def _row(example: HiddenCounterExample) -> dict[str, Any]:
    """What is found of one network."""
    model, x, distance = example.model, example.x, example.distance
    label = model(x).argmax(1)
    hits = {
        name: bool(attacks.attack(model, x, label, REACH * distance, tools).success)
        for name, tools in ATTACKS.items()
    }
    ratios: dict[str, float] = {}
    for method in METHODS:
        with contextlib.suppress(*NOT_COVERED):
            radius = float(onelip.certify(model, x, method=method).radius)
            ratios[method] = _ratio(distance, radius)
    with tempfile.TemporaryDirectory() as folder:
        record = onelip.prove(model, Path(folder) / "proof", x)
        check.check(Path(folder) / "proof", say=lambda _: None)
        ratios["prove"] = _ratio(distance, float.fromhex(record["samples"]["radii"][0]))
    broken = {
        "one power step": _ratio(distance, one_step_radius(model, x)),
        "sampled slopes": _ratio(distance, sampled_radius(model, x)),
    }
    return {
        "network": example.name,
        "planted distance": round(distance, 6),
        "attacks that find one": hits,
        "planted distance over radius": ratios,
        "the same of broken radii": broken,
    }


def _ratio(distance: float, radius: float) -> float:
    """A distance over a radius, rounded towards 0: never more than it is."""
    return math.floor(1e7 * distance / radius) / 1e7 if radius else math.inf


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Hit rates, the smallest ratio of each method, and what the broken radii certify."""

    def columns(field: str) -> Iterator[tuple[str, list[Any]]]:
        for name in dict.fromkeys(name for row in rows for name in row[field]):
            yield name, [row[field][name] for row in rows if name in row[field]]

    covered = dict(columns("planted distance over radius"))
    return {
        "networks": len(rows),
        "found by attacks": {n: sum(hits) for n, hits in columns("attacks that find one")},
        "networks covered": {name: len(found) for name, found in covered.items()},
        "smallest ratio": {name: min(found) for name, found in covered.items()},
        "radii above the planted distance": sum(r <= 1 for f in covered.values() for r in f),
        "broken radii above it": {
            name: sum(ratio <= 1 for ratio in found)
            for name, found in columns("the same of broken radii")
        },
    }


if __name__ == "__main__":
    main()
