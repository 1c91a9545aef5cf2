"""Curvature heads and smooth activations, of both checkers: true, false and hostile bundles."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checker.crafted import write
from tests.checker.programs import python_verdict, verdict
from tests.checker.truth import false_claims

ENDS = {"softplus": (0.0, 0.25), "tanh": (-0.77, 0.77), "sigmoid": (-0.097, 0.097)}
PHI: dict[str, tuple[Callable, Callable]] = {
    "softplus": (lambda x: np.logaddexp(x, 0), lambda x: 0.5 + np.tanh(x / 2) / 2),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (
        lambda x: 0.5 + np.tanh(x / 2) / 2,
        lambda x: (1 - np.tanh(x / 2) ** 2) / 4,
    ),
}
"""Functions and their derivatives."""
CLASSES, WIDTH = 3, 5
Bundle = tuple[dict[str, Any], dict[str, Any]]


def network(seed: int = 0) -> dict[str, Any]:
    """Tensors of two blocks and a matrix, and samples."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (WIDTH, 4), "u": (WIDTH, WIDTH), "v": (CLASSES, WIDTH), "x": (4, 4)}
    tensors = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    tensors |= {"a": rng.normal(size=WIDTH), "b": rng.normal(size=WIDTH), "c": np.zeros(CLASSES)}
    return tensors | {"s": np.array([0.25])}


def curvature(t: dict[str, Any], kind: str, i: int, j: int) -> float:
    d = t["v"][i] - t["v"][j]
    a = np.sqrt(np.maximum(0, np.maximum(-d * ENDS[kind][0], -d * ENDS[kind][1])))
    weighted = a[:, None] * t["u"]
    if not np.isfinite(weighted).all():
        return math.inf
    norm = float(np.linalg.norm(weighted, 2))
    return norm * norm


def claimed(t: dict[str, Any], kind: str, room: float = 1e-4) -> Bundle:
    """A record of the network with radii that are right by so much, and its tensors."""

    def dense(weight: str, bias: str) -> dict[str, Any]:
        top = np.abs(t[weight]).max()
        norm = top and float(np.linalg.norm(t[weight] / top, 2)) * top * (1 + 1e-9)
        return {"map": "dense", "norm": float(norm).hex(), "weight": weight, "bias": bias}

    def block(weight: str, bias: str, activation: dict[str, Any], steep: float) -> dict[str, Any]:
        entry = dense(weight, bias)
        bound = float.fromhex(entry["norm"]) * steep * (1 + 1e-9)
        return {
            **{"inner": [entry], "activation": activation, "outer": [], "skip": None},
            "bound": bound.hex(),
        }

    blocks = [
        block("w", "a", {"kind": "leaky-relu", "slopes": "s"}, 1.0),
        block("u", "b", {"kind": kind}, 0.25 if kind == "sigmoid" else 1.0),
    ]
    last = dense("v", "c")
    bends = np.array(
        [[curvature(t, kind, i, j) for j in range(CLASSES)] for i in range(CLASSES)]
    ) * (1 + room)
    z = t["x"] @ t["w"].T + t["a"]
    z = np.where(z > 0, z, 0.25 * z)
    hidden = z @ t["u"].T + t["b"]
    phi, slope = PHI[kind]
    logits = phi(hidden) @ t["v"].T + t["c"]
    own = logits.argmax(1)
    radii = []
    for k, i in enumerate(own):
        reach = math.inf
        for j in set(range(CLASSES)) - {int(i)}:
            steep = np.linalg.norm((slope(hidden[k]) * (t["v"][i] - t["v"][j])) @ t["u"])
            margin = logits[k, i] - logits[k, j]
            root = math.sqrt(steep) * math.sqrt(steep)  # hypot: no square overflows
            root = math.hypot(root, math.sqrt(2 * bends[i, j]) * math.sqrt(max(margin, 0)))
            reach = min(reach, 2 * margin / (steep + root) if margin > 0 else 0.0)
        radii.append(float(reach / float.fromhex(blocks[0]["bound"]) * (1 - room)).hex())
    bounds = [float.fromhex(part["bound"]) for part in blocks]
    record = {
        **{"format": "onelip proof", "version": 1, "level": "real", "about": "crafted"},
        **{"files": {}, "input": [4]},
        "network": {"blocks": blocks, "last": [last], "method": None},
        "bound": (math.prod(bounds) * float.fromhex(last["norm"]) * (1 + 1e-9)).hex(),
        "samples": {
            **{"inputs": "x", "predictions": own.tolist(), "radii": radii},
            "head": {"kind": "curvature", "bends": "n"},
        },
    }
    return record, t | {"n": bends}


def said(go: Path, folder: Path, record: dict[str, Any], tensors: dict[str, Any]) -> list[str]:
    """What both checkers say, empty for VALID; no false claim is VALID."""
    write(folder, record, tensors)
    found = [verdict(go, folder), python_verdict(folder)]
    if not all(found):
        assert not false_claims(folder)
    return found


@pytest.mark.parametrize("kind", ENDS)
def test_true_claims(kind: str, go: Path, tmp_path) -> None:
    for seed in range(4):
        record, tensors = claimed(network(seed), kind)
        assert any(float.fromhex(radius) > 1e-3 for radius in record["samples"]["radii"])
        assert said(go, tmp_path, record, tensors) == ["", ""]
    t = network() | {"b": np.zeros(WIDTH)}
    record, tensors = claimed(t, kind)
    record["network"]["blocks"][1]["inner"][0]["bias"] = None
    assert said(go, tmp_path, record, tensors) == ["", ""]


@pytest.mark.parametrize("kind", ENDS)
def test_bends_and_radii_that_are_a_little_false(kind: str, go: Path, tmp_path) -> None:
    record, tensors = claimed(network(), kind)
    used = {(i, j) for i in record["samples"]["predictions"] for j in range(CLASSES)}
    for i, j in sorted(pair for pair in used if pair[0] != pair[1]):
        for wrong in (curvature(tensors, kind, i, j) * (1 - 1e-6), 0.0, 5e-324):
            bends = tensors["n"].copy()
            if curvature(tensors, kind, i, j) == 0:
                continue
            bends[i, j] = wrong
            assert all(said(go, tmp_path, record, tensors | {"n": bends})), (i, j, wrong)
    for k, radius in enumerate(record["samples"]["radii"]):
        for factor in (1 + 2.1e-4, 3.0, 1e300):
            record["samples"]["radii"][k] = min(float.fromhex(radius) * factor, 1e308).hex()
            assert all(said(go, tmp_path, record, tensors)), (k, factor)
        record["samples"]["radii"][k] = radius
    record["samples"]["predictions"] = [(i + 1) % 3 for i in record["samples"]["predictions"]]
    assert all(said(go, tmp_path, record, tensors))


def _tensor(change: Callable[[Any], Any]) -> Callable[[Any, Any], None]:
    def changed(record: Any, tensors: Any) -> None:
        tensors["n"] = change(tensors["n"])

    return changed


def _block(**fields: Any) -> Callable[[Any, Any], None]:
    def changed(record: Any, tensors: Any) -> None:
        block = record["network"]["blocks"][1]
        block |= fields | {"bound": "0x1p+10"}
        record["bound"] = "0x1p+30"

    return changed


def _head(head: Any) -> Callable[[Any, Any], None]:
    return lambda record, tensors: record["samples"].update(head=head)


def _step(record: Any, tensors: Any) -> None:
    block = record["network"]["blocks"][1]
    del block["outer"], block["skip"]
    block |= {"step": "0x1p-10", "bound": "0x1p+10"}
    record["bound"] = "0x1p+30"


def _last(change: Callable[[list], list]) -> Callable[[Any, Any], None]:
    def changed(record: Any, tensors: Any) -> None:
        record["network"]["last"] = change(record["network"]["last"])
        record["bound"] = "0x1p+30"

    return changed


def _no_blocks(record: Any, tensors: Any) -> None:
    record["network"]["blocks"] = []
    tensors["v"] = tensors["v"][:, :4].copy()


def _at(value: float, entry: tuple[int, int] = (0, 0)) -> Callable[[Any, Any], None]:
    def change(n: Any) -> Any:
        n = n.copy()
        n[entry] = value
        return n

    return _tensor(change)


TAKE = {"map": "take", "norm": "0x1p+0", "index": None, "outputs": [WIDTH]}
HOSTILE = {
    "NaN": _at(math.nan),
    "infinite": _at(math.inf),
    "infinite, not asked for": _at(math.inf, (1, 1)),
    "negative": _at(-1.0),
    "barely negative": _at(-5e-324, (2, 2)),
    "flat": _tensor(lambda n: n.reshape(-1)),
    "a row less": _tensor(lambda n: n[:-1]),
    "a column less": _tensor(lambda n: n[:, :-1].copy()),
    "a class more": _tensor(lambda n: np.pad(n, (0, 1))),
    "an axis more": _tensor(lambda n: n[None]),
    "one number": _tensor(lambda n: n.max().reshape(())),
    "no numbers": _tensor(lambda n: n[:0]),
    "whole numbers": _tensor(lambda n: np.ceil(n).astype(np.int64)),
    "bytes": _tensor(lambda n: np.ceil(n).astype(np.uint8)),
    "transposed": _tensor(lambda n: n.T.copy()),
    "zeros": _tensor(np.zeros_like),
    "an identity around": _block(skip=[]),
    "a map around": _block(skip=[TAKE]),
    "a map outside": _block(outer=[TAKE]),
    "two maps inside": _block(inner=[TAKE, TAKE]),
    "no map inside": _block(inner=[]),
    "no matrix inside": _block(inner=[TAKE]),
    "elu": _block(activation={"kind": "elu"}),
    "silu": _block(activation={"kind": "silu"}),
    "leaky-relu": _block(activation={"kind": "leaky-relu", "slopes": "s"}),
    "a field of an activation": _block(activation={"kind": "tanh", "slopes": "s"}),
    "a step": _step,
    "nothing at the end": _last(lambda _: []),
    "one more at the end": _last(lambda maps: [TAKE, *maps]),
    "no matrix at the end": _last(lambda _: [TAKE]),
    "no blocks": _no_blocks,
    "no bends": _head({"kind": "curvature"}),
    "null": _head({"kind": "curvature", "bends": None}),
    "no such tensor": _head({"kind": "curvature", "bends": "m"}),
    "a list": _head({"kind": "curvature", "bends": ["n"]}),
    "a field more": _head({"kind": "curvature", "bends": "n", "more": 1}),
    "another kind": _head({"kind": "curves", "bends": "n"}),
    "no kind": _head({"bends": "n"}),
    "a kind that is none": _head({"kind": ["curvature"], "bends": "n"}),
    "only its name": _head("curvature"),
    "nothing": _head(None),
    "empty": _head({}),
    "a list of heads": _head([{"kind": "curvature", "bends": "n"}]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_heads(name: str, go: Path, tmp_path) -> None:
    record, tensors = claimed(network(), "softplus")
    record, tensors = json.loads(json.dumps(record)), dict(tensors)
    HOSTILE[name](record, tensors)
    assert all(said(go, tmp_path, record, tensors))


def finite(record: dict[str, Any], tensors: dict[str, Any]) -> bool:
    """Whether float64 has all the numbers."""
    numbers = json.dumps(record)
    return "nan" not in numbers and '"inf' not in numbers and bool(np.isfinite(tensors["n"]).all())


SIZES = (5e-324, 1e-310, 1e-300, 1e-150, 1e-20, 1e-8, 700.0, 800.0, 1e8, 1e20, 1e150, 1e300)


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("size", SIZES)
def test_numbers_of_all_sizes(size: float, kind: str, go: Path, tmp_path) -> None:
    """What is true by far is VALID, unless what is small drowns beside what is large."""
    for names in ("x", "xab", "u", "ub", "w", "wxb", "v", "vc", "c"):
        t = network()
        with np.errstate(all="ignore"):
            t |= {name: np.clip(t[name] * size, -1e300, 1e300) for name in names}
            record, tensors = claimed(t, kind, room=0.1)
        if not finite(record, tensors):
            continue
        found = said(go, tmp_path, record, tensors)
        small = 1e-9 < size < 1e5
        assert not small or found == ["", ""], (names, found)
        assert bool(found[0]) == bool(found[1]) or "claimed" in found[1], (names, found)


@pytest.mark.parametrize("kind", ["softplus", "tanh", "sigmoid", "elu", "silu"])
@pytest.mark.parametrize("size", SIZES)
def test_smooth_networks_of_all_sizes(size: float, kind: str, go: Path, tmp_path) -> None:
    for names in ("x", "xa", "u", "w", "v"):
        t = network()
        with np.errstate(all="ignore"):
            t |= {name: np.clip(t[name] * size, -1e300, 1e300) for name in names}
            record, tensors = claimed(t, "softplus", room=0.1)
        record["samples"]["head"] = "network"
        for part in record["network"]["blocks"]:
            part["activation"] = {"kind": kind}
            part["bound"] = (float.fromhex(part["bound"]) * 1.11).hex()
        record["bound"] = (float.fromhex(record["bound"]) * 1.3).hex()
        if not finite(record, tensors):
            continue
        for factor in (1e-30, 1e-3, 1.0):
            changed = json.loads(json.dumps(record))
            radii = [float.fromhex(radius) * factor for radius in record["samples"]["radii"]]
            changed["samples"]["radii"] = [radius.hex() for radius in radii]
            found = said(go, tmp_path, changed, tensors)
            assert bool(found[0]) == bool(found[1]) or "claimed" in found[1], (names, found)
