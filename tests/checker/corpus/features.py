"""A bundle for each map, activation, block, method and head: valid, and false by an ulp or two."""

import copy
import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from tests.checker.corpus import exact

Record = dict[str, Any]
NORM_ROOM = 1 + Fraction(1, 1 << 32)  # above the true norm
BEND_ROOM = 1 + Fraction(1, 1 << 16)
FORM_ROOM = Fraction(1, 1 << 34)  # of the form of multipliers, which the page asks 2^-36 of
MARGIN_ROOM = Fraction(1, 1 << 20)  # of the largest logit


@dataclass
class Bundle:
    """A record and tensors, and what is to be done to the bytes."""

    record: Record
    tensors: dict[str, np.ndarray]
    more: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> "Bundle":
        """Another one, to be changed."""
        return copy.deepcopy(self)

    def files(self) -> dict[str, bytes]:
        """Bytes by name, with the digests of all but the proof."""
        return self.with_tensors(packed(self.tensors))

    def with_tensors(self, data: bytes) -> dict[str, bytes]:
        """The same with another file of tensors."""
        found = {"tensors.safetensors": data} | self.more
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
        text = json.dumps(self.record | {"files": digests}, separators=(",", ":"))
        return {"proof.json": text.encode()} | found


KINDS = {"f8": "F64", "f4": "F32", "i8": "I64", "u1": "U8"}


def packed(tensors: dict[str, np.ndarray], **changes: Any) -> bytes:
    """A file of tensors, in their order; changes are more entries of the header, by name."""
    header: Record = {}
    body = b""
    for name, a in tensors.items():
        end = len(body) + a.nbytes
        kind = KINDS[a.dtype.str[1:]]
        header[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": [len(body), end]}
        body += np.ascontiguousarray(a).tobytes()
    return sealed(header | changes, body)


def sealed(header: Record, body: bytes) -> bytes:
    """A header and what follows it."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


# Numbers that look drawn, and are multiples of 1/8 without a generator.


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Multiples of 1/8 between -1 and 1, in float32, which keeps the files small."""
    i = np.arange(math.prod(shape)) + 31 * seed
    found: np.ndarray = ((7 * i * i + 11 * i + 3 * seed) % 17 - 8) / np.float32(8)
    return found.astype(np.float32).reshape(shape)


# Records, whose claims are filled in later.


def dense(weight: str, bias: str | None = None) -> Record:
    """A matrix."""
    return {"map": "dense", "norm": "", "weight": weight, "bias": bias}


def convolution(weight: str, bias: str | None = None, **changes: Any) -> Record:
    """A convolution."""
    usual = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    record = {"map": "convolution", "norm": "", "weight": weight, "bias": bias} | usual
    return record | {"circular": False, "witness": "matrix"} | changes


def scale(factor: str, shift: str | None = None) -> Record:
    """Factors and shifts."""
    return {"map": "scale", "norm": "", "factor": factor, "shift": shift}


def take(index: str | None, outputs: list[int]) -> Record:
    """Entries that are taken."""
    return {"map": "take", "norm": "", "index": index, "outputs": outputs}


def adjoint(of: Record, inputs: list[int], bias: str | None = None) -> Record:
    """The adjoint of a convolution."""
    return {"map": "adjoint", "norm": "", "of": of, "inputs": inputs, "bias": bias}


def exponential(of: Record, terms: int = 3) -> Record:
    """A truncated exponential."""
    return {"map": "exponential", "norm": "", "of": of, "terms": terms}


def fourier(weight: str, bias: str | None = None) -> Record:
    """A matrix for each frequency."""
    return {"map": "fourier", "norm": "", "weight": weight, "bias": bias}


def pool(of: str, index: str, outputs: list[int]) -> Record:
    """The maximum or the length of each group of entries."""
    return {"kind": "pool", "of": of, "index": index, "outputs": outputs}


RELU = {"kind": "leaky-relu", "slopes": "zero"}


def block(inner: list[Record], activation: Record = RELU, **changes: Any) -> Record:
    """A block without skip."""
    usual: Record = {"outer": [], "skip": None, "bound": ""}
    return {"inner": inner, "activation": activation} | usual | changes


def step(inner: Record, activation: Record = RELU, size: float = 0.5) -> Record:
    """A gradient step."""
    return {"inner": [inner], "activation": activation, "step": size.hex(), "bound": ""}


# Claims.


def roomy(x: Fraction, room: Fraction = NORM_ROOM) -> str:
    """A claim with room above a number."""
    return exact.at_least(x * room).hex()


def fill_maps(records: list[Record], tensors: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Claim norms with the room of the page; the shape that comes out."""
    for record in records:
        if "of" in record:
            inside = tuple(record["inputs"]) if record["map"] == "adjoint" else shape
            fill_maps([record["of"]], tensors, inside)
        record["norm"] = roomy(exact.claimed_norm(record, tensors, shape))
        shape = exact.matrix(record, tensors, shape)[2]
    return shape


def fill(
    shape: tuple[int, ...],
    blocks: list[Record],
    last: list[Record],
    tensors: dict[str, np.ndarray],
    head: str | Record = "network",
    method: Record | None = None,
) -> Bundle:
    """A bundle of a network, with the least claims that the page lets a checker expect."""
    if "'zero'" in str(blocks):
        tensors = {"zero": np.zeros(1)} | tensors
    used = shape
    for part in blocks:
        hidden = fill_maps(part["inner"], tensors, used)
        hidden = exact.activated(
            part["activation"], tensors, exact.fractions(np.zeros(hidden))
        ).shape
        if "step" not in part:
            if part["skip"] is not None:
                fill_maps(part["skip"], tensors, used)
            used = fill_maps(part["outer"], tensors, hidden)
        part["bound"] = roomy(exact.bound_of_block(part, tensors))
    used = fill_maps(last, tensors, used)
    network = {"blocks": blocks, "last": last, "method": method}
    whole = exact.product(blocks, "bound") * exact.product(last, "norm")
    record: Record = {"format": "onelip proof", "version": 1, "level": "real", "about": ""}
    record |= {"input": list(shape), "network": network, "bound": roomy(whole, Fraction(1))}
    record["samples"] = None
    bundle = Bundle(record, tensors)
    if method is not None:
        record["bound"] = exact.at_least(Fraction(least_constant(bundle, FORM_ROOM))).hex()
    if "x" in tensors:
        fill_samples(bundle, head)
    return bundle


def fill_samples(bundle: Bundle, head: str | Record) -> None:
    """Predict the largest outputs, and claim radii with the room of the page."""
    record, tensors = bundle.record, bundle.tensors
    inputs = exact.fractions(tensors["x"])
    outputs = [exact.network(record["network"], tensors, x).reshape(-1).tolist() for x in inputs]
    predictions = [row.index(max(row)) for row in outputs]
    radii = [(0.0).hex()] * len(outputs)
    samples = {"inputs": "x", "predictions": predictions, "radii": radii, "head": head}
    record["samples"] = samples
    if isinstance(head, dict):
        count = len(outputs[0])
        bends = np.zeros((count, count))
        for i in set(predictions):
            for j in set(range(count)) - {i}:
                n = Fraction(exact.bend(record["network"], tensors, i, j))
                bends[i, j] = exact.at_least(n * BEND_ROOM)
        tensors[head["bends"]] = bends
    for i in range(len(outputs)):
        radii[i] = exact.after(exact.radius(record, tensors, i, MARGIN_ROOM), -1).hex()


def least_constant(bundle: Bundle, margin: Fraction) -> float:
    """The least constant for which the form of multipliers has eigenvalues above a margin.

    The margin is of the diagonal: what is asked is that D^(1/2) times it can be taken away.
    """
    network, tensors = bundle.record["network"], bundle.tensors

    def holds(c: float) -> bool:
        form = quadratic_form(network, tensors, Fraction(c))
        less = exact.fractions(np.zeros(form.shape))
        np.fill_diagonal(less, form.diagonal() * margin)
        return exact.definite(form - less)

    return exact.least(holds, 1.0)


def quadratic_form(network: Record, tensors: Any, c: Fraction) -> Any:
    """The form of the page."""
    weights = [exact.fractions(tensors[b["inner"][0]["weight"]]) for b in network["blocks"]]
    last = exact.fractions(tensors[network["last"][0]["weight"]])
    sizes = [w.shape[1] for w in (*weights, last)]
    ends = np.cumsum([0, *sizes]).tolist()
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    form = exact.fractions(np.zeros((ends[-1], ends[-1])))
    index = np.arange(ends[-1])
    form[index[parts[0]], index[parts[0]]] = c**2
    names = network["method"]["weights"]
    rows = zip(weights, network["blocks"], names, strict=True)
    for k, (w, part, name) in enumerate(rows):
        t, (a, b) = exact.fractions(tensors[name]), (parts[k], parts[k + 1])
        slopes = exact.fractions(np.broadcast_to(tensors[part["activation"]["slopes"]], t.shape))
        low, high = np.minimum(slopes, Fraction(1)), np.maximum(slopes, Fraction(1))
        form[a, a] += 2 * w.T @ ((t * low * high)[:, None] * w)
        form[index[b], index[b]] += 2 * t
        form[b, a] -= (t * (low + high))[:, None] * w
        form[a, b] = form[b, a].T
    form[parts[-1], parts[-1]] -= last.T @ last
    return form


# The features.


def features() -> dict[str, Bundle]:
    """A valid bundle for each kind of the format, by its name."""
    v = {"x": numbers(2, 4, seed=1), "end": numbers(3, 4, seed=3)}
    image = {"x": numbers(1, 2, 3, 3, seed=1), "end": numbers(3, 18, seed=3)}
    kernel = numbers(2, 2, 3, 3, seed=2)
    skew = kernel - kernel[:, :, ::-1, ::-1].swapaxes(0, 1)
    padded = convolution("k", padding=[1, 1])
    found = {
        "map-dense": fill((4,), [], [dense("w", "b")], {"w": numbers(3, 4), "b": numbers(3), **v}),
        "map-scale": fill(
            (4,), [], [scale("f", "s"), dense("end")], {"f": numbers(4), "s": numbers(1), **v}
        ),
        "map-take": fill(
            (4,),
            [],
            [take("i", [5]), dense("w")],
            {"i": np.array([1, 3, 3, -1, 3]), "w": numbers(3, 5, seed=5), **v},
        ),
        "map-take-reshapes": fill(
            (4,), [], [take(None, [2, 2]), take(None, [4]), dense("end")], dict(v)
        ),
    }
    for witness in ("matrix", "torus", "kernel"):
        found[f"map-convolution-{witness}"] = fill(
            (2, 3, 3),
            [],
            [convolution("k", "b", padding=[1, 1], witness=witness), dense("end")],
            {"k": kernel, "b": numbers(2), **image},
        )
    strided = convolution("k", stride=[2, 1], padding=[1, 0], dilation=[1, 2], groups=2)
    for witness in ("matrix", "torus", "kernel"):
        found[f"map-convolution-strided-{witness}"] = fill(
            (4, 4, 4),
            [],
            [strided | {"witness": witness}, dense("end")],
            {
                "k": numbers(2, 2, 3, 2, seed=2),
                "x": numbers(1, 4, 4, 4, seed=2),
                "end": numbers(2, 8, seed=4),
            },
        )
    found["map-convolution-circular"] = fill(
        (2, 4, 2),
        [],
        [
            convolution("k", stride=[2, 1], padding=[1, 1], circular=True, witness="torus"),
            dense("end"),
        ],
        {
            "k": numbers(2, 2, 3, 3, seed=2),
            "x": numbers(1, 2, 4, 2, seed=2),
            "end": numbers(3, 8, seed=4),
        },
    )
    found["map-adjoint"] = fill(
        (2, 2, 2),
        [],
        [adjoint(convolution("k", stride=[2, 2], padding=[1, 1]), [2, 3, 3], "b"), dense("end")],
        {"k": kernel, "b": numbers(2), **image, "x": numbers(1, 2, 2, 2, seed=1)},
    )
    found["map-exponential"] = fill(
        (2, 3, 3),
        [],
        [exponential(convolution("k", padding=[1, 1])), dense("end")],
        {"k": skew, **image},
    )
    found["map-fourier"] = fill(
        (2, 4, 4),
        [],
        [fourier("f", "b"), dense("end")],
        {
            "f": numbers(4, 3, 2, 2, 2),
            "b": numbers(2),
            "x": numbers(1, 2, 4, 4, seed=1),
            "end": numbers(3, 32, seed=3),
        },
    )
    activations: dict[str, Record] = {
        "leaky-relu": {"kind": "leaky-relu", "slopes": "a"},
        "sort": {"kind": "sort", "size": 2, "descending": True},
        **{name: {"kind": name} for name in exact.SMOOTH},
    }
    for name, activation in activations.items():
        tensors = {"w": numbers(4, 4, seed=7), "b": numbers(4), **v}
        if name == "leaky-relu":
            tensors["a"] = np.array([0.0, -1.5, 0.25, 1.25])
        found[f"activation-{name}"] = fill(
            (4,), [block([dense("w", "b")], activation)], [dense("end")], tensors
        )
    found |= shapes()
    found["activation-max-pool"] = fill(
        (2, 3, 3),
        [block([copy.deepcopy(padded)], {"kind": "max-pool", "size": [2, 3], "stride": [1, 2]})],
        [dense("w")],
        {"k": kernel, "w": numbers(3, 4, seed=3), "x": image["x"]},
    )
    w = {"w": numbers(4, 4, seed=7), "b": numbers(4), "u": numbers(4, 4, seed=8)}
    index = np.array([[0, 1, 2], [-1, 3, -1], [2, -1, 1]])
    for of in ("maximum", "length"):
        found[f"activation-pool-{of}"] = fill(
            (4,),
            [block([dense("w", "b")], pool(of, "i", [3]))],
            [dense("three")],
            {"w": w["w"], "b": w["b"], "i": index, "three": numbers(3, 3, seed=4), "x": v["x"]},
        )
    found["block-outer-and-skip"] = fill(
        (4,),
        [block([dense("w", "b")], outer=[dense("u")], skip=[scale("f")])],
        [dense("end")],
        w | v | {"f": numbers(4, seed=2)},
    )
    found["block-identity"] = fill(
        (4,), [block([], outer=[dense("u")], skip=[])], [dense("end")], {"u": w["u"], **v}
    )
    steep = {"kind": "leaky-relu", "slopes": "a"}
    for name, slope, size in (
        ("below", -0.5, 0.25),
        ("above", 2.0, 2.0),
        ("within", 0.5, 0.0625),
    ):
        found[f"block-step-{name}"] = fill(
            (4,),
            [step(dense("w", "b"), steep, size)],
            [dense("end")],
            {"w": w["w"], "b": w["b"], "a": np.array([slope]), **v},
        )
    found["block-step-convolution"] = fill(
        (2, 3, 3),
        [step(convolution("k", "b", padding=[1, 1]), size=0.125)],
        [dense("end")],
        {"k": numbers(3, 2, 3, 3, seed=2), "b": numbers(3), **image},
    )
    found["block-step-max-pool"] = fill(
        (2, 2, 2),
        [
            step(
                convolution("k", "b"),
                {"kind": "max-pool", "size": [1, 1], "stride": [1, 1]},
                0.125,
            )
        ],
        [dense("w")],
        {
            "k": numbers(3, 2, 1, 1, seed=2),
            "b": numbers(3),
            "w": numbers(3, 8, seed=3),
            "x": numbers(1, 2, 2, 2, seed=1),
        },
    )
    found["block-step-pool"] = fill(
        (4,),
        [step(dense("w", "b"), pool("length", "i", [4]), 0.0625)],
        [dense("end")],
        {"w": w["w"], "b": w["b"], "i": np.array([[0, 1], [1, 2], [2, 3], [3, -1]]), **v},
    )
    found["head-pairs"] = fill(
        (4,),
        [block([dense("w", "b")])],
        [scale("f"), dense("end", "c")],
        {"w": w["w"], "b": w["b"], "f": numbers(4, seed=2), "c": numbers(3, seed=9), **v},
        head="pairs",
    )
    for kind in exact.BENDS:
        found[f"head-curvature-{kind}"] = fill(
            (4,),
            [block([dense("w", "b")]), block([dense("u", "b")], {"kind": kind})],
            [dense("end")],
            w | v,
            head={"kind": "curvature", "bends": "n"},
        )
    found["method-multipliers"] = fill(
        (3,),
        [block([dense("w", "b")], steep), block([dense("u", "b")])],
        [dense("end")],
        {
            "w": numbers(4, 3, seed=7),
            "b": w["b"],
            "u": w["u"],
            "a": np.array([-0.25, 0.5, 0.0, 0.75]),
            "t0": np.array([32.0, 24.0, 32.0, 40.0]),
            "t1": np.array([6.0, 8.0, 8.0, 7.0]),
            "end": v["end"],
            "x": numbers(2, 3, seed=5),
        },
        method={"kind": "multipliers", "weights": ["t0", "t1"]},
    )
    return found


SHAPES: dict[str, tuple[Record, dict[str, np.ndarray]]] = {
    "scaled-silu": (
        {"kind": "scaled", "of": "silu", "inner": "i", "above": "a", "below": "d"},
        {"i": numbers(4, seed=2), "a": numbers(4, seed=5), "d": numbers(4, seed=6)},
    ),
    "scaled-sigmoid": (
        {"kind": "scaled", "of": "sigmoid", "inner": "i", "above": "a", "below": "d"},
        {"i": np.array([-2.0]), "a": numbers(4, seed=5), "d": numbers(4, seed=5)},
    ),
    "fold": (
        {"kind": "fold", "rays": "r", "peaks": "p"},
        {"r": 4 * numbers(3, 2, seed=2), "p": numbers(3, 2, seed=4)},
    ),
    "rays": ({"kind": "rays", "angles": "r"}, {"r": np.array([1.25, -2.5])}),
    "polygon": (
        {"kind": "polygon", "corners": "k"},
        {"k": np.concatenate([numbers(3, 2, 2, seed=2), numbers(1, 2, 2, seed=2)])},
    ),
    "polygon-point": ({"kind": "polygon", "corners": "k"}, {"k": numbers(1, 2, 2, seed=2)}),
    "piecewise": (
        {"kind": "piecewise", "knots": "k", "slopes": "s", "bends": None, "value": "v"},
        {
            "k": np.array([[-0.5], [0.0], [0.0], [0.75]]),
            "s": numbers(5, 1, seed=2),
            "v": numbers(1, seed=3),
        },
    ),
    "piecewise-bends": (
        {"kind": "piecewise", "knots": "k", "slopes": "s", "bends": "c", "value": "v"},
        {
            "k": np.sort(numbers(3, 4, seed=2), axis=0),
            "s": numbers(4, 4, seed=4),
            "c": 2 * numbers(2, 4, seed=6),
            "v": numbers(4, seed=3),
        },
    ),
}
"""Activations with tensors of their own, for four channels."""


def shapes() -> dict[str, Bundle]:
    """Each of them in a block, and slopes of two of them in a step."""
    found = {}
    for name, (record, own) in SHAPES.items():
        given = {"w": numbers(4, 4, seed=7), "b": numbers(4), "x": numbers(2, 4, seed=1)}
        halved = record["kind"] in ("rays", "polygon")
        end = numbers(3, 2 if halved else 4, seed=3)
        found[f"activation-{name}"] = fill(
            (4,), [block([dense("w", "b")], record)], [dense("end")], {**given, "end": end, **own}
        )
        if name in ("scaled-silu", "piecewise-bends", "fold"):
            found[f"block-step-{name}"] = fill(
                (4,),
                [step(dense("w", "b"), record, 0.25)],
                [dense("end")],
                {**given, "end": end, **own},
            )
    return found


# What is false by an ulp or two.


def below_the_norm(bundle: Bundle, record: Record, shape: tuple[int, ...]) -> str:
    """The largest claim that is surely below the true norm of a map."""
    truth = exact.norm(exact.matrix(record, bundle.tensors, shape)[0])
    if record["map"] == "fourier":  # more is asked than the norm of the map
        truth = exact.fourier_norm(exact.fractions(bundle.tensors[record["weight"]]))
    return exact.after(truth, -2).hex()


def first_map(bundle: Bundle) -> Record:
    """The map that a feature is about."""
    network = bundle.record["network"]
    maps: list[Record] = network["blocks"][0]["inner"] if network["blocks"] else network["last"]
    return maps[0]


def false_claims(name: str, bundle: Bundle) -> Iterator[tuple[str, str, Bundle]]:
    """What is false of a feature: a name, why, and the bundle.

    Claims that follow from a smaller one stay as they are, so that one thing is wrong.
    """
    shape, network = tuple(bundle.record["input"]), bundle.record["network"]
    changed = bundle.copy()
    if name.startswith("map-"):
        record = first_map(changed)
        record["norm"] = below_the_norm(bundle, record, shape)
        yield f"{name}-norm", "the norm of the map is an ulp or two larger than claimed", changed
    elif name.startswith("method-"):
        changed.record["bound"] = exact.after(least_constant(bundle, Fraction(0)), -2).hex()
        yield f"{name}-bound", "with these multipliers the form has a negative value", changed
    elif name.startswith("head-curvature"):
        own = bundle.record["samples"]["predictions"][0]
        rival = (own + 1) % 3
        truth = exact.bend(network, bundle.tensors, own, rival)
        changed.tensors["n"][own, rival] = exact.after(truth, -2)
        yield f"{name}-bend", "a number of bends is an ulp or two below the curvature", changed
    elif name.startswith(("activation-", "block-")):
        part = changed.record["network"]["blocks"][0]
        least = exact.at_least(exact.bound_of_block(part, bundle.tensors))
        part["bound"] = exact.after(least, -2).hex()
        yield f"{name}-bound", "the bound of the block is an ulp or two too small", changed
    if bundle.record["samples"] is not None:
        changed = bundle.copy()
        radii = changed.record["samples"]["radii"]
        radii[-1] = exact.radius(bundle.record, bundle.tensors, len(radii) - 1, Fraction(0)).hex()
        yield (
            f"{name}-radius",
            "the last radius is the first float64 number that is not shown",
            changed,
        )
