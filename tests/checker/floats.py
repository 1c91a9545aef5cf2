"""Hand-made bundles at level float: networks of float32 numbers with norms that hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from onelip.checker import check
from tests.checker.crafted import write
from tests.checker.executions import Exact

Array = np.ndarray[Any, Any]
Record = dict[str, Any]
FLOAT32 = {"kind": "float", "numbers": "float32", "sums": "float32"}
WIDE = FLOAT32 | {"sums": "float64"}
FLOAT64 = {"kind": "float", "numbers": "float64", "sums": "float64"}
ROOM = 1 + 1e-9


def numbers(rng: np.random.Generator, *shape: int, spread: int = 0) -> Array:
    """Normal numbers in float32, times powers of two up to ``2^spread``."""
    scale = 2.0 ** rng.integers(-spread, spread + 1, size=shape)
    return (rng.normal(size=shape) * scale).astype(np.float32)


class Crafted:
    """A network part by part, and its tensors."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.tensors = list(shape), dict[str, Array]()
        self.blocks: list[Record] = []
        self.last: list[Record] = []

    def add(self, a: Any) -> str:
        """Keep a tensor; its name."""
        self.tensors[f"t{len(self.tensors)}"] = np.asarray(a)
        return f"t{len(self.tensors) - 1}"

    def dense(self, w: Array, bias: Array | None = None) -> Record:
        """A matrix."""
        norm = float(np.linalg.norm(w.astype(np.float64), 2)) * ROOM
        name = None if bias is None else self.add(bias)
        return {"map": "dense", "norm": norm.hex(), "weight": self.add(w), "bias": name}

    def convolution(self, w: Array, inputs: Any, bias: Array | None = None, **how: Any) -> Record:
        """A convolution, with the norm of its matrix."""
        name = None if bias is None else self.add(bias)
        usual = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
        record = {"map": "convolution", "weight": self.add(w), "bias": name, "circular": False}
        record |= {**usual, "witness": "matrix", "norm": "0x0p+0"} | how
        return record | {"norm": (norm_of(record, self.tensors, inputs) * ROOM).hex()}

    def block(self, inner: list[Record], activation: Record, **rest: Any) -> None:
        """A block with a sum or a step, whose bound is what the page asks for."""
        act = 1.0
        if activation["kind"] == "leaky-relu":
            slopes = self.tensors[activation["slopes"]].astype(np.float64)
            act = float(max(1.0, np.abs(slopes).max()))
        if activation["kind"] == "max-pool":
            pairs = zip(activation["size"], activation["stride"], strict=True)
            act = float(np.prod([-(-k // s) for k, s in pairs])) ** 0.5
        c = norms(inner)
        if "step" in rest:
            bound = max(1.0, float.fromhex(rest["step"]) * c * c * act - 1)
            bound = max(bound, 1 + float.fromhex(rest["step"]) * c * c)
        else:
            rest = {"outer": [], "skip": None} | rest
            bound = act * c * norms(rest["outer"])
            bound += norms(rest["skip"]) if rest["skip"] is not None else 0.0
        part = {"inner": inner, "activation": activation, "bound": (bound * ROOM).hex()}
        self.blocks.append(part | rest)

    def leaky(self, slopes: Any) -> Record:
        """An activation with these slopes."""
        return {"kind": "leaky-relu", "slopes": self.add(np.asarray(slopes, np.float32))}

    def record(self, x: Array, radii: list[float], level: Any = FLOAT32) -> Record:
        """The bundle's record, with predictions by exact values."""
        name = self.add(x)
        network = {"blocks": self.blocks, "last": self.last, "method": None}
        bounds = [float.fromhex(block["bound"]) for block in self.blocks]
        found = {
            **{"format": "onelip proof", "version": 1, "level": level, "about": "by hand"},
            **{"input": self.shape, "network": network},
            "bound": (float(np.prod(bounds)) * norms(self.last) * ROOM).hex(),
        }
        exact = Exact(tensors=self.tensors)
        predictions = [int(exact(found, sample).argmax()) for sample in x]
        ends = self.last and self.last[-1]["map"] == "dense"
        found["samples"] = {
            **{"inputs": name, "predictions": predictions},
            **{"radii": [radius.hex() for radius in radii]},
            "head": "pairs" if ends else "network",
        }
        return found


def norms(records: list[Record]) -> float:
    """Product of claims."""
    return float(np.prod([float.fromhex(record["norm"]) for record in records]))


def norm_of(record: Record, tensors: dict[str, Array], inputs: Any) -> float:
    """Norm of a map as a matrix."""
    exact, count = Exact(tensors=tensors), int(np.prod(inputs))
    basis = np.eye(count).reshape(-1, *inputs)
    zero = exact.linear(record, np.zeros(inputs))
    matrix = np.stack([(exact.linear(record, e) - zero).reshape(-1) for e in basis])
    return float(np.linalg.norm(matrix, 2))


def reason(folder: Path, record: Record, tensors: dict[str, Array]) -> str:
    """What check.py says of a bundle; empty for VALID."""
    write(folder, json.loads(json.dumps(record)), tensors)
    try:
        check.check(folder, say=lambda _: None)
    except check.Invalid as error:
        return str(error)
    return ""


def errors(record: Record, tensors: dict[str, Array], x: Array, radius: float) -> list[float]:
    """E of the checker after the last map, for each sample."""
    import safetensors.numpy

    data = safetensors.numpy.save({k: np.ascontiguousarray(a) for k, a in tensors.items()})
    held, level = check.Tensors(data), record["level"]
    network = check.Network(record["network"], held, tuple(record["input"]), lambda _: None)
    sizes = check.KINDS["sums"].arithmetics(level["numbers"], level["sums"])
    rounding = check.KINDS["rounding"].Rounding(check, held, *sizes)
    grid, rules = check.Grid.of(x.astype(np.float64), check.VALUE), []
    for part in network.parts:
        grid, rule = rounding.block(part, grid)
        rules.append(rule)
    _, more = rounding.through(network.last, grid)
    along, start = check.KINDS["rounding"].along, rounding.flushed(x[0].size)
    claim = check.Fraction(radius)
    return [float(along([*rules, *more], at, claim, start)[1]) for at in range(len(x))]
