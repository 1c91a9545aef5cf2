"""Rules of the page, one after the other: bundles that break one each, and valid ones beside them.

Each is a function that gives ``(name, reason, why, files)``; a reason is a class of reasons, or
several that are right, with spaces between, or None for VALID. To add more, write a function like
them and name it in ``RULES``.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from tests.checker.corpus import exact
from tests.checker.corpus import features as f
from tests.checker.corpus.features import Bundle, numbers
from tests.checker.corpus.levels import Level

Files = dict[str, bytes]
Case = tuple[str, str | None, str, Files]
Features = dict[str, Bundle]
GONE = object()


def changed(bundle: Bundle, *way: Any) -> Files:
    """Files after one value of the record, at the end of a way, was replaced or is ``GONE``."""
    return altered(bundle, *way).files()


def altered(bundle: Bundle, *way: Any) -> Bundle:
    """The same as a bundle, for more changes."""
    *path, last, value = way
    other = bundle.copy()
    entry: Any = other.record
    for key in path:
        entry = entry[key]
    if value is GONE:
        del entry[last]
    else:
        entry[last] = value
    return other


def loose(bundle: Bundle) -> Bundle:
    """A bundle with claims far above the truth and no samples: only what does not fit is wrong."""
    other = altered(bundle, "samples", None)

    def raised(entry: Any, norm: int) -> None:
        for key, value in entry.items() if isinstance(entry, dict) else ():
            entry[key] = {"norm": f"0x1p+{norm}", "bound": "0x1p+80"}.get(key, value)
            for each in value if isinstance(value, list) else [value]:
                raised(each, 9 if key == "of" else norm)

    raised(other.record, 20)
    other.record["bound"] = "0x1p+400"
    return other


def with_tensor(bundle: Bundle, name: str, a: np.ndarray) -> Files:
    """Files after a tensor was replaced."""
    other = bundle.copy()
    other.tensors[name] = a
    return other.files()


def text(bundle: Bundle, old: str, new: str) -> Files:
    """Files after a text of the proof was replaced, once."""
    found = bundle.files()
    proof = found["proof.json"].decode()
    assert old in proof, old
    return found | {"proof.json": proof.replace(old, new, 1).encode()}


def listed(bundle: Bundle, **files: str) -> Files:
    """Files after entries of ``files`` were replaced or added."""
    found = bundle.files()
    record = json.loads(found["proof.json"])
    record["files"] |= {name.replace("__", "."): digest for name, digest in files.items()}
    return found | {"proof.json": json.dumps(record).encode()}


FIRST, LAST = ("network", "blocks", 0), ("network", "last", 0)


def json_and_fields(all_: Features) -> Iterator[Case]:
    """What is not JSON, and fields that are missing, added or of another type."""
    b = all_["activation-leaky-relu"]
    good = b.files()
    proof = good["proof.json"]
    yield "json-cut", "json", "proof.json ends too early", good | {"proof.json": proof[:-1]}
    yield "json-more", "json", "something follows the object", good | {"proof.json": proof + b"x"}
    yield "json-empty", "json", "proof.json is empty", good | {"proof.json": b""}
    yield (
        *("json-utf-8", "json", "a byte that is no UTF-8"),
        good | {"proof.json": proof.replace(b'"about":"', b'"about":"\xff')},
    )
    yield (
        *("json-mark", "json", "a byte order mark before the object"),
        good | {"proof.json": b"\xef\xbb\xbf" + proof},
    )
    yield (
        *("json-name-twice", "json", "a name twice in an object"),
        text(b, '"version":1', '"version":1,"version":1'),
    )
    yield (
        *("json-name-twice-escaped", "json", "a name twice, once with an escape"),
        text(b, '"version":1', '"version":1,"versio\\u006e":1'),
    )
    yield (
        *("json-name-twice-inside", "json", "a name twice in an activation"),
        text(b, '"slopes":"a"', '"slopes":"zero","slopes":"a"'),
    )
    yield (
        *("json-nested", "json", "lists in each other, 300 deep"),
        text(b, '"about":""', '"about":' + "[" * 300),
    )
    yield "json-list", "schema", "proof.json is a list", good | {"proof.json": b"[]"}
    yield (
        *("valid-json-spaces", None, "spaces between what stands in proof.json"),
        good | {"proof.json": json.dumps(json.loads(proof), indent=1).encode()},
    )
    places: dict[str, tuple[Any, ...]] = {
        "proof": (),
        "network": ("network",),
        "block": FIRST,
        "map": (*FIRST, "inner", 0),
        "activation": (*FIRST, "activation"),
        "samples": ("samples",),
    }
    for name, way in places.items():
        entry: Any = b.record
        for key in way:
            entry = entry[key]
        last = [key for key in entry if key not in ("map", "kind", "step")][-1]
        yield f"field-missing-{name}", "schema", f"no {last}", changed(b, *way, last, GONE)
        yield f"field-added-{name}", "schema", "a field more", changed(b, *way, "more", None)
    step = all_["block-step-within"]
    yield (
        *("field-step-and-outer", "schema", "a gradient step with outer maps"),
        changed(step, *FIRST, "outer", []),
    )
    wrong: dict[str, tuple[Any, ...]] = {
        "format": ("format", "onelip proofs"),
        "version-2": ("version", 2),
        "version-real": ("version", 1.0),
        "version-true": ("version", True),
        "level": ("level", "exact"),
        "level-sums": ("level", {"kind": "float", "numbers": "float64", "sums": "float32"}),
        "level-numbers": ("level", {"kind": "float", "numbers": "float16", "sums": "float32"}),
        "level-field": ("level", {"kind": "float", "numbers": "float32"}),
        "about": ("about", None),
        "input-number": ("input", 4),
        "input-real": ("input", [4.0]),
        "input-text": ("input", ["4"]),
        "blocks": ("network", "blocks", {}),
        "block": ("network", "blocks", [7]),
        "last": ("network", "last", None),
        "inner": (*FIRST, "inner", {}),
        "map": (*FIRST, "inner", [7]),
        "predictions": ("samples", "predictions", {}),
        "prediction-real": ("samples", "predictions", 0, 1.0),
        "prediction-true": ("samples", "predictions", 0, True),
        "prediction-negative": ("samples", "predictions", 0, -1),
        "prediction-above": ("samples", "predictions", 0, 3),
        "samples": ("samples", []),
    }
    for name, way in wrong.items():
        reason = "schema kind" if name in ("map", "level") else "schema"
        yield f"type-{name}", reason, f"another value than is asked: {way[-1]}", changed(b, *way)


def kinds(all_: Features) -> Iterator[Case]:
    """Kinds that stand in no table."""
    b, image = all_["activation-leaky-relu"], all_["map-convolution-matrix"]
    unknown: dict[str, tuple[Bundle, tuple[Any, ...]]] = {
        "map": (b, (*FIRST, "inner", 0, "map", "low-rank")),
        "map-upper-case": (b, (*FIRST, "inner", 0, "map", "Dense")),
        "map-not-text": (b, (*FIRST, "inner", 0, "map", ["dense"])),
        "activation": (b, (*FIRST, "activation", {"kind": "prelu"})),
        "witness": (image, (*LAST, "witness", "fft")),
        "method": (b, ("network", "method", {"kind": "trust", "weights": []})),
        "head": (b, ("samples", "head", "logits")),
        "head-object": (b, ("samples", "head", {"kind": "flat", "bends": "w"})),
        "of": (all_["map-adjoint"], (*LAST, "of", "map", "dense")),
        "of-exponential": (all_["map-exponential"], (*LAST, "of", "map", "scale")),
    }
    for name, (bundle, way) in unknown.items():
        yield f"kind-{name}", "kind", "a kind that no table has", changed(bundle, *way)


def claims(all_: Features) -> Iterator[Case]:
    """How numbers are written, and tensors whose numbers are not finite."""
    b = all_["activation-leaky-relu"]
    for name, claim, why in (
        ("rounded", "0x1.00000000000001p+6", "a claim that float64 has to round"),
        ("underflow", "0x1p-1075", "a claim that float64 rounds to 0"),
        ("infinite", "0x1p+1024", "a claim above the range of float64"),
        ("rounds-to-infinity", "0x1.fffffffffffff8p+1023", "a claim that rounds to infinity"),
        ("long", "0x" + "0" * 36 + "9p+1", "a claim of 40 characters or more"),
        ("upper-prefix", "0X1p+9", "0X in upper case"),
        ("upper-digits", "0x1.Ap+9", "a digit in upper case"),
        ("upper-exponent", "0x1.8P+9", "P in upper case"),
        ("no-prefix", "1.8p+9", "no 0x"),
        ("no-exponent", "0x1.8", "no p"),
        ("negative", "-0x1p+9", "a sign"),
        ("positive", "+0x1p+9", "a sign"),
        ("space", " 0x1p+9", "a space"),
        ("line", "0x1p+9\n", "a line end"),
        ("decimal", "512.0", "a decimal number"),
        ("nan", "nan", "no number"),
        ("no-digits", "0xp+9", "no digits"),
        ("digits", "0x1p+\u0669", "a digit of another script"),
        ("no-digit", "0x.8p+9", "no digit before the point"),
        ("underscore", "0x1_0p+9", "an underscore, which some languages read"),
        ("number", 512.0, "a number of JSON"),
        ("null", None, "a null"),
    ):
        reasons = "number" if isinstance(claim, str) else "number schema"
        yield f"claim-{name}", reasons, why, changed(b, "bound", claim)
    yield (
        *("claim-norm", "number", "a norm that float64 has to round"),
        changed(b, *FIRST, "inner", 0, "norm", "0x1.00000000000001p+6"),
    )
    yield (
        *("claim-radius", "number", "a negative radius"),
        changed(b, "samples", "radii", 0, "-0x1p-9"),
    )
    whole = exact.at_least(exact.product(b.record["network"]["blocks"], "bound") * 64)
    mantissa, exponent = whole.hex()[4:].split("p")
    for name, claim in (
        ("integer", "0x18p+9"),
        ("point", "0x1.8p9"),
        ("zeros", "0x0001.8000p+09"),
        ("usual", f"0x1.{mantissa}p{exponent}"),
    ):
        yield f"valid-claim-{name}", None, f"{claim} is exact", changed(b, "bound", claim)
    for name, value in (("nan", np.nan), ("infinite", np.inf), ("minus-infinite", -np.inf)):
        for tensor in ("w", "b", "a", "x") if name == "nan" else ("w", "x"):
            a = b.tensors[tensor].copy()
            a.flat[0] = value
            why = "a tensor with a number that is not finite"
            yield f"number-{name}-{tensor}", "number", why, with_tensor(b, tensor, a)
    for name, size in (("tiny", -1000), ("huge", 900)):
        factor = 2.0**size
        other = f.fill(
            (4,),
            [],
            [f.dense("w"), f.dense("v")],
            {
                "w": numbers(4, 4, seed=7).astype(np.float64) * factor,
                "v": numbers(3, 4, seed=2).astype(np.float64) / factor,
                "x": numbers(1, 4, seed=1),
            },
        )
        yield f"valid-{name}", None, f"weights near 2^{size}, and their inverses", other.files()
    low = f.fill((2,), [], [f.dense("w")], {"w": np.array([[1.0, 2.0], [3.0, 4.0]]) * 2.0**-1074})
    yield "valid-subnormal", None, "weights that are subnormal numbers", low.files()


def digests(all_: Features) -> Iterator[Case]:
    """Files and their digests."""
    b = all_["activation-leaky-relu"]
    good = b.files()
    digest = hashlib.sha256(good["tensors.safetensors"]).hexdigest()
    flipped = bytearray(good["tensors.safetensors"])
    flipped[-1] ^= 1
    yield (
        *("digest-flipped", "digest", "a bit of the tensors after the digest was taken"),
        good | {"tensors.safetensors": bytes(flipped)},
    )
    yield "digest-upper", "digest", "upper case", listed(b, tensors__safetensors=digest.upper())
    yield "digest-short", "digest", "half a digest", listed(b, tensors__safetensors=digest[:32])
    other = b.copy()
    other.more = {"network.onnx": b"anything"}
    yield "valid-file", None, "a file whose content is not looked at", other.files()
    yield (
        *("digest-file", "digest", "another file was changed"),
        other.files() | {"network.onnx": b"anythinG"},
    )
    yield (
        *("digest-file-gone", "digest", "a file that is listed is not there"),
        {name: data for name, data in other.files().items() if name != "network.onnx"},
    )
    here = {"../tensors.safetensors": digest, "./tensors.safetensors": digest, "": digest}
    for name, path in zip(("parent", "path", "empty"), here, strict=True):
        record = json.loads(good["proof.json"])
        record["files"][path] = digest
        yield (
            *(f"digest-name-{name}", "digest", f"a path, not a name: {path!r}"),
            good | {"proof.json": json.dumps(record).encode()},
        )
    record = json.loads(good["proof.json"]) | {"files": {}}
    yield (
        *("digest-none", "digest", "tensors.safetensors is not among the files"),
        good | {"proof.json": json.dumps(record).encode()},
    )
    record["files"] = {"proof.json": digest}
    yield (
        *("digest-other", "digest", "only another file is listed"),
        good | {"proof.json": json.dumps(record).encode()},
    )
    yield "digest-no-tensors", "digest", "no file of tensors", {"proof.json": good["proof.json"]}


def tensors(all_: Features) -> Iterator[Case]:
    """Bytes of the file of tensors, and tensors of another type."""
    b = all_["activation-leaky-relu"]
    data = f.packed(b.tensors)
    size = 8 + int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8:size]), data[size:]

    def sealed(changes: Any, body: bytes = body) -> Files:
        return b.with_tensors(f.sealed(header | changes, body))

    def entry(name: str, **changes: Any) -> Files:
        return sealed({name: header[name] | changes})

    first, last = header["x"]["data_offsets"]
    yield "tensors-empty", "tensors", "an empty file", b.with_tensors(b"")
    yield "tensors-short", "tensors", "less than the length of a header", b.with_tensors(data[:7])
    yield "tensors-cut", "tensors", "the last byte is missing", b.with_tensors(data[:-1])
    yield "tensors-more", "tensors", "a byte after the last tensor", b.with_tensors(data + b"\0")
    long = (1 << 63).to_bytes(8, "little") + data[8:]
    yield "tensors-long-header", "tensors", "a header longer than the file", b.with_tensors(long)
    listless = f.sealed({}, b"").replace(b"{}", b"[]")
    yield "tensors-header-list", "tensors", "a header that is a list", b.with_tensors(listless)
    broken = data.replace(b'"dtype"', b'"dtype ', 1)
    yield "tensors-header-json", "json", "a header that is no JSON", b.with_tensors(broken)
    twice = data[8:size].rstrip(b" ")
    twice = twice[:-1] + b',"w":' + json.dumps(header["w"]).encode() + b"}"
    yield (
        *("tensors-name-twice", "json", "a tensor's name twice"),
        b.with_tensors(len(twice).to_bytes(8, "little") + twice + body),
    )
    yield (
        "tensors-gap",
        "tensors",
        "eight bytes of no tensor",
        sealed(
            {
                "end": header["end"]
                | {"data_offsets": [at + 8 for at in header["end"]["data_offsets"]]}
            },
            body + bytes(8),
        ),
    )
    yield (
        *("tensors-overlap", "tensors", "two names for the same bytes"),
        sealed({"again": header["w"]}),
    )
    yield (
        *("tensors-size", "tensors", "fewer bytes than the shape has"),
        entry("x", shape=[3, 4]),
    )
    yield (
        *("tensors-backwards", "tensors", "an end before the start"),
        entry("x", data_offsets=[last, first]),
    )
    yield (
        "tensors-type",
        "tensors",
        "F16 is not among the types",
        entry("x", dtype="F16", shape=[2, 8]),
    )
    yield "tensors-field", "schema", "a field more in the header", entry("x", more=1)
    yield (
        "tensors-no-shape",
        "schema",
        "no shape",
        sealed({"x": {k: v for k, v in header["x"].items() if k != "shape"}}),
    )
    yield (
        *("tensors-side", "schema tensors", "a side above 2^26, of a tensor without entries"),
        sealed({"none": {"dtype": "F64", "shape": [0, (1 << 26) + 1], "data_offsets": [0, 0]}}),
    )
    turned = dict(reversed(header.items())) | {"__metadata__": {"by": "hand"}}
    yield (
        *("valid-tensors-order", None, "a header in another order, with __metadata__"),
        b.with_tensors(f.sealed(turned, body)),
    )
    single = b.copy()
    for name in single.tensors:
        single.tensors[name] = single.tensors[name].astype(np.float64)
    yield "valid-tensors-f64", None, "F64 has the same numbers", single.files()
    unaligned = b"".join((b" ", data[8:size], b" " * 4))
    yield (
        *("valid-tensors-spaces", None, "spaces around the header"),
        b.with_tensors(len(unaligned[1:]).to_bytes(8, "little") + unaligned[1:] + body),
    )
    parts = {name: np.rint(4 * b.tensors[name]) for name in ("w", "b", "a", "x", "end")}
    slopes = {"kind": "leaky-relu", "slopes": "a"}
    dense, end = f.dense("w", "b"), f.dense("end")
    rounded = f.fill((4,), [f.block([dense], slopes)], [end], parts)
    for name in ("w", "b", "a", "x"):
        a = rounded.tensors[name].astype(np.int64)
        why = "a tensor of whole numbers where floating-point numbers are asked"
        yield f"fit-whole-{name}", "fit", why, with_tensor(rounded, name, a)
    taken = all_["map-take"]
    index = taken.tensors["i"]
    yield (
        *("fit-index-floating", "fit", "an index of floating-point numbers"),
        with_tensor(taken, "i", index.astype(np.float64)),
    )
    short = altered(taken, "samples", None)
    short.tensors["i"] = np.array([0, 1, 2, 3, 3], np.uint8)
    yield "valid-index-u8", None, "an index of U8", short.files()
    for field, way in {
        "weight": (*FIRST, "inner", 0, "weight"),
        "bias": (*FIRST, "inner", 0, "bias"),
        "slopes": (*FIRST, "activation", "slopes"),
        "inputs": ("samples", "inputs"),
    }.items():
        yield f"fit-no-tensor-{field}", "fit", "no such tensor", changed(b, *way, "none")


def fits(all_: Features) -> Iterator[Case]:
    """What does not fit together."""
    b, image, pool = (
        all_[name]
        for name in ("activation-leaky-relu", "map-convolution-matrix", "activation-max-pool")
    )
    sampled, b, image, pool = b, loose(b), loose(image), loose(pool)
    for name, value in (("empty", []), ("zero", [0]), ("negative", [-4])):
        why = "an input that has no shape"
        reason = "fit" if name == "empty" else "schema"
        yield f"fit-input-{name}", reason, why, changed(b, "input", value)
    record = b.record | {"input": [4097, 4096], "samples": None, "bound": "0x1p+0"}
    record["network"] = {"blocks": [], "last": [], "method": None}
    yield (
        *("fit-input-large", "fit", "an input of more than 2^24 entries"),
        Bundle(record, {"a": np.zeros(1)}).files(),
    )
    nothing = Bundle(record | {"input": [4096, 4096]}, {"a": np.zeros(1)})
    yield "valid-nothing", None, "2^24 inputs, and a network that is the identity", nothing.files()
    yield (
        *("claim-identity", "claim", "the identity has the constant 1"),
        changed(nothing, "bound", "0x1.fffffffffffffp-1"),
    )
    yield "fit-dense-input", "fit", "a matrix of other columns", changed(b, "input", [2, 3])
    matrix = altered(b, "input", [2, 2])
    matrix.tensors["x"] = matrix.tensors["x"].reshape(2, 2, 2)
    yield "valid-dense-flattens", None, "a matrix flattens its input", matrix.files()
    w = b.tensors
    yield "fit-dense-vector", "fit", "no matrix", with_tensor(b, "w", w["w"][0])
    yield "fit-dense-bias", "fit", "a bias of another length", with_tensor(b, "b", w["b"][:3])
    yield "fit-dense-bias-one", "fit", "a bias does not broadcast", with_tensor(b, "b", w["b"][:1])
    yield "fit-slopes", "fit", "slopes do not broadcast", with_tensor(b, "a", w["a"][:3])
    yield (
        *("fit-slopes-axes", "fit", "slopes with more axes than their input"),
        with_tensor(b, "a", w["a"][None]),
    )
    yield "fit-samples", "fit", "samples of another shape", with_tensor(sampled, "x", w["x"][:, :3])
    yield (
        "fit-samples-axes",
        "fit",
        "one sample without a batch",
        with_tensor(sampled, "x", w["x"][0]),
    )
    fewer = "another number than there are samples"
    yield "fit-predictions", "fit schema", fewer, changed(sampled, "samples", "predictions", [0])
    yield "fit-radii", "fit", fewer, changed(sampled, "samples", "radii", ["0x0p+0"] * 3)

    k = image.tensors["k"]
    conv = LAST
    for name, way in {
        "stride": (*conv, "stride", [0, 1]),
        "stride-single": (*conv, "stride", [1]),
        "padding": (*conv, "padding", [-1, 1]),
        "dilation": (*conv, "dilation", [1, 0]),
        "groups": (*conv, "groups", 0),
        "circular": (*conv, "circular", 1),
    }.items():
        reason = "schema fit" if name == "circular" else "schema"
        yield f"schema-convolution-{name}", reason, "not what conv2d takes", changed(image, *way)
    yield "fit-convolution-groups", "fit", "groups do not fit", changed(image, *conv, "groups", 2)
    yield (
        *("fit-convolution-odd-groups", "fit", "groups do not divide the channels"),
        changed(image, *conv, "groups", 3),
    )
    yield (
        *("fit-convolution-kernel", "fit", "a kernel that is larger than the padded image"),
        changed(image, *conv, "dilation", [3, 1]),
    )
    yield "fit-convolution-axes", "fit", "a kernel of three axes", with_tensor(image, "k", k[0])
    yield (
        *("fit-convolution-bias", "fit", "a bias of another length"),
        with_tensor(image, "b", numbers(3)),
    )
    yield (
        *("fit-convolution-vector", "fit", "the input is no image"),
        changed(image, "input", [18]),
    )
    circular = loose(all_["map-convolution-circular"])
    yield (
        *("fit-circular-padding", "fit", "more circular padding than image"),
        changed(circular, *conv, "padding", [1, 3]),
    )
    wide = f.convolution("k", padding=[4000, 4000], witness="kernel", norm="0x1p+1")
    record = nothing.record | {"input": [1, 1, 1], "bound": "0x1p+1"}
    record["network"] = {"blocks": [], "last": [wide], "method": None}
    one = {"k": np.ones((1, 1, 1, 1)), "x": np.ones((1, 1, 1, 1))}
    yield (
        *("fit-convolution-large", "fit", "more than 2^24 outputs"),
        Bundle(record, one).files(),
    )
    record = json.loads(json.dumps(record))
    record["network"]["last"][0]["padding"] = [32, 32]
    record["samples"] = {"inputs": "x", "predictions": [0], "radii": ["0x0p+0"], "head": "network"}
    yield (
        *("fit-outputs", "fit", "samples, and more than 4096 outputs"),
        Bundle(record, one).files(),
    )
    yield (
        *("valid-outputs", None, "samples, and 4095 outputs"),
        changed(Bundle(record, one), *LAST, "padding", [31, 32]),
    )

    scaled = loose(all_["map-scale"])
    for name in ("f", "s"):
        why = "does not broadcast onto the input"
        yield f"fit-scale-{name}", "fit", why, with_tensor(scaled, name, numbers(3))
    yield (
        *("fit-scale-onto", "fit", "a factor that would make the input larger"),
        with_tensor(scaled, "f", numbers(2, 4)),
    )
    taken, same = loose(all_["map-take"]), loose(all_["map-take-reshapes"])
    for name, value in (("below", -2), ("above", 4)):
        index = taken.tensors["i"].copy()
        index[0] = value
        yield f"fit-index-{name}", "fit", "no such entry", with_tensor(taken, "i", index)
    pairs = taken.tensors["i"][:4].reshape(2, 2)
    yield (
        *("fit-index-axes", "fit", "an index of two axes"),
        with_tensor(altered(taken, *LAST, "outputs", [2, 2]), "i", pairs),
    )
    yield (
        "fit-take-outputs",
        "fit",
        "another number of entries",
        changed(taken, *LAST, "outputs", [6]),
    )
    yield (
        "fit-take-null",
        "fit",
        "another number of entries",
        changed(same, *LAST, "outputs", [2, 3]),
    )
    yield "fit-take-empty", "schema", "a side of 0", changed(same, *LAST, "outputs", [0, 2])
    zero = f.fill((4,), [], [f.take("i", [2])], {"i": np.full(2, -1)})
    zero_text = zero.record["network"]["last"][0]["norm"]
    assert float.fromhex(zero_text) == 0
    yield "valid-take-nothing", None, "no entry is taken: a norm of 0", zero.files()

    adjoint = loose(all_["map-adjoint"])
    yield (
        *("fit-adjoint-inputs", "fit", "the convolution does not give this input"),
        changed(adjoint, *LAST, "inputs", [2, 5, 5]),
    )
    yield (
        "fit-adjoint-bias",
        "fit",
        "a bias of another length",
        with_tensor(adjoint, "b", numbers(3)),
    )
    yield (
        "fit-sort",
        "fit",
        "groups do not divide the channels",
        changed(loose(all_["activation-sort"]), *FIRST, "activation", "size", 3),
    )
    yield (
        "schema-sort",
        "schema fit",
        "descending is true or false",
        changed(loose(all_["activation-sort"]), *FIRST, "activation", "descending", 1),
    )
    yield (
        "fit-pool",
        "fit",
        "a window larger than the image",
        changed(pool, *FIRST, "activation", "size", [4, 1]),
    )
    yield (
        "schema-pool",
        "schema",
        "a stride of 0",
        changed(pool, *FIRST, "activation", "stride", [0, 1]),
    )
    vector = {"kind": "max-pool", "size": [1, 1], "stride": [1, 1]}
    yield "fit-pool-vector", "fit", "a pool of no image", changed(b, *FIRST, "activation", vector)
    skip = loose(all_["block-outer-and-skip"])
    yield (
        *("fit-skip", "fit", "a way around of another shape"),
        changed(skip, *FIRST, "skip", [skip.record["network"]["last"][0]]),
    )


def structure(all_: Features) -> Iterator[Case]:
    """Parts that may not stand where they do."""
    within, image = loose(all_["block-step-within"]), loose(all_["block-step-convolution"])
    inner = within.record["network"]["blocks"][0]["inner"]
    yield "fit-step-maps", "fit", "a step of two maps", changed(within, *FIRST, "inner", inner * 2)
    factor = f.scale("zero") | {"norm": "0x1p+0"}
    yield (
        *("fit-step-scale", "fit", "a step of a scale"),
        changed(within, *FIRST, "inner", [factor]),
    )
    for name, way in {
        "stride": (*FIRST, "inner", 0, "stride", [3, 3]),
        "size": (*FIRST, "inner", 0, "padding", [0, 0]),
    }.items():
        why = "a step of a convolution that changes the size of images"
        yield f"fit-step-{name}", "fit", why, changed(image, *way)
    grouped = altered(image, *FIRST, "inner", 0, "groups", 2)
    grouped.tensors["k"] = numbers(2, 1, 3, 3)
    grouped.tensors["b"] = numbers(2)
    yield "fit-step-groups", "fit", "a step of a convolution in groups", grouped.files()
    for name in ("adjoint", "exponential"):
        bias = altered(loose(all_[f"map-{name}"]), *LAST, "of", "bias", "c")
        bias.tensors["c"] = numbers(2)
        yield f"fit-{name}-of-bias", "fit", "the convolution has a bias", bias.files()
    skew = loose(all_["map-exponential"])
    for name, way in {
        "stride": (*LAST, "of", "stride", [2, 1]),
        "padding": (*LAST, "of", "padding", [1, 2]),
    }.items():
        yield f"fit-exponential-{name}", "fit", "not a square map", changed(skew, *way)
    grouped = altered(skew, *LAST, "of", "groups", 2)
    grouped.tensors["k"] = grouped.tensors["k"][:, :1]
    yield "fit-exponential-groups", "fit", "a convolution in groups", grouped.files()
    k = skew.tensors["k"].astype(np.float64)
    k[0, 1, 0, 0] = exact.after(k[0, 1, 0, 0])
    yield "fit-exponential-skew", "fit", "a kernel that is not skew", with_tensor(skew, "k", k)
    k = skew.tensors["k"].copy()
    k[0, 0, 1, 1] = 2.0**-60
    yield (
        *("fit-exponential-centre", "fit", "2^-60 at the centre of a skew kernel"),
        with_tensor(skew, "k", k),
    )
    yield "schema-terms", "schema", "a series without terms", changed(skew, *LAST, "terms", 0)
    circular = all_["map-convolution-circular"]
    odd = altered(loose(circular), *LAST, "stride", [3, 1])
    odd.tensors["end"] = numbers(3, 8, seed=4)
    yield (
        *("fit-torus-stride", "fit", "circular padding and a stride that does not divide"),
        odd.files(),
    )
    repeated = altered(circular, *LAST, "padding", [1, 2])
    repeated.tensors["end"] = numbers(3, 16, seed=4)
    yield (
        *("claim-torus-repeats", "claim fit", "outputs that repeat: the torus does not see them"),
        repeated.files(),
    )

    flat = all_["activation-leaky-relu"]
    yield (
        *("fit-pairs", "fit kind", "pairs, and no matrix at the end"),
        changed(altered(flat, "samples", "head", "pairs"), "network", "last", []),
    )
    curved = all_["head-curvature-tanh"]
    end = curved.record["network"]["last"][0]
    wide = altered(curved, "bound", "0x1p+20")
    yield (
        *("fit-curvature-elu", "fit", "an activation without second derivatives"),
        changed(curved, "network", "blocks", 1, "activation", {"kind": "elu"}),
    )
    yield (
        *("fit-curvature-skip", "fit", "the last block has a way around"),
        changed(
            altered(wide, "network", "blocks", 1, "bound", "0x1p+9"),
            *("network", "blocks", 1, "skip", []),
        ),
    )
    yield (
        *("fit-curvature-outer", "fit", "the last block has a map outside"),
        changed(
            altered(wide, "network", "blocks", 1, "bound", "0x1p+9"),
            *("network", "blocks", 1, "outer", [f.take(None, [4]) | {"norm": "0x1p+0"}]),
        ),
    )
    yield (
        *("fit-curvature-last", "fit", "a map between the last block and the matrix"),
        changed(curved, "network", "last", [f.take(None, [4]) | {"norm": "0x1p+0"}, end]),
    )
    yield (
        *("fit-curvature-blocks", "fit", "no block"),
        changed(curved, "network", "blocks", []),
    )
    n = curved.tensors["n"]
    yield "fit-bends", "fit", "not a number for each pair", with_tensor(curved, "n", n[:2])
    yield "fit-bends-negative", "fit", "a negative number", with_tensor(curved, "n", n - 99)

    method = all_["method-multipliers"]
    yield (
        *("fit-multipliers-few", "fit", "multipliers for one block of two"),
        changed(method, "network", "method", "weights", ["t0"]),
    )
    short = loose(method)
    short.tensors["end"] = numbers(3, 3)
    yield (
        *("fit-multipliers-none", "fit", "multipliers, and no blocks"),
        changed(
            altered(short, "network", "blocks", []),
            *("network", "method", "weights", []),
        ),
    )
    t = method.tensors["t1"]
    yield "fit-multipliers", "fit", "one number less", with_tensor(method, "t1", t[:3])
    yield "fit-multipliers-negative", "fit", "a negative number", with_tensor(method, "t1", -t)
    way = ("network", "blocks", 1)
    roomy = loose(method)
    for name, part in {
        "skip": (*way, "skip", []),
        "outer": (*way, "outer", [f.take(None, [4]) | {"norm": "0x1p+0"}]),
        "sort": (*way, "activation", {"kind": "sort", "size": 2, "descending": False}),
        "smooth": (*way, "activation", {"kind": "tanh"}),
        "inner": (*way, "inner", 0, f.take(None, [4]) | {"norm": "0x1p+0"}),
    }.items():
        yield (
            *(f"fit-multipliers-{name}", "fit", f"a block that is not plain: {name}"),
            changed(roomy, *part),
        )
    end = method.record["network"]["last"][0]
    yield (
        *("fit-multipliers-last", "fit", "two maps at the end"),
        changed(method, "network", "last", [f.take(None, [4]) | {"norm": "0x1p+0"}, end]),
    )
    yield (
        *("claim-multipliers-zero", "claim", "multipliers of 0 show nothing"),
        with_tensor(method, "t0", 0 * method.tensors["t0"]),
    )
    yield (
        *("claim-multipliers-slopes", "claim", "steeper slopes than the multipliers are for"),
        with_tensor(
            altered(method, "network", "blocks", 0, "bound", "0x1p+9"), "a", np.full(4, -4.0)
        ),
    )


FLOAT = {"kind": "float", "numbers": "float64", "sums": "float64"}


def fourier_maps(all_: Features) -> Iterator[Case]:
    """What a matrix for each frequency has to fit, and which norms count."""
    whole = all_["map-fourier"]
    bundle = loose(altered(whole, *LAST, "bias", None))
    bundle.record["network"]["last"].pop()
    weight = bundle.tensors["f"]
    yield "valid-fourier-odd", None, "widths 4 and 5 have 3", changed(bundle, "input", [2, 4, 5])
    for name, shape, why in (
        ("wide", [2, 4, 6], "3 frequencies across a width of 6"),
        ("narrow", [2, 4, 3], "3 frequencies across a width of 3"),
        ("height", [2, 3, 4], "another height"),
        ("channels", [1, 4, 4], "another number of channels"),
        ("vector", [32], "the input is no image"),
    ):
        yield f"fit-fourier-{name}", "fit", why, changed(bundle, "input", shape)
    for name, value, why in (
        ("real", weight[..., :1], "no imaginary parts"),
        ("axes", weight[..., 0], "a weight of four axes"),
        ("empty", weight[:, :, :0], "a map to no channels"),
        ("whole", (8 * weight).astype(np.int64), "a weight of whole numbers"),
    ):
        yield f"fit-fourier-{name}", "fit", why, with_tensor(bundle, "f", value)
    biased = altered(bundle, *LAST, "bias", "b")
    for n in (1, 3):
        why = "not one number for each output channel"
        yield f"fit-fourier-bias-{n}", "fit", why, with_tensor(biased, "b", numbers(n))
    side = altered(bundle, "input", [1, 1, 1024])
    side.tensors["f"] = numbers(1, 513, 1, 1, 2)
    yield "valid-fourier-side", None, "a side of 2^10", side.files()
    yield (
        *("fit-fourier-side", "fit", "a side above 2^10"),
        changed(side, "input", [1, 1, 1025]),
    )
    yield (
        *("kind-level-fourier", "kind", "level float does not know the map"),
        changed(bundle, "level", FLOAT),
    )
    one = altered(bundle, "input", [1, 4, 4])
    for place in ((0, 0), (0, 2), (3, 1)):
        one.tensors["f"] = np.zeros((4, 3, 1, 1, 2), np.float32)
        one.tensors["f"][(*place, 0, 0)] = (1.0, 0.0)
        yield (
            "claim-fourier-{}-{}".format(*place),
            "claim",
            f"only the matrix of frequency {place} is above the claim",
            changed(one, *LAST, "norm", exact.after(1.0, -1).hex()),
        )
    opposite = one.copy()
    opposite.tensors["f"] = np.zeros((4, 3, 1, 1, 2), np.float32)
    opposite.tensors["f"][1, 0, 0, 0], opposite.tensors["f"][3, 0, 0, 0] = (1.0, 0.0), (-1.0, 0.0)
    yield (
        *("claim-fourier-opposite", "claim", "two matrices whose mean is 0: the larger one counts"),
        changed(opposite, *LAST, "norm", "0x1p-1"),
    )
    roomy = altered(opposite, *LAST, "norm", f.roomy(Fraction(1)))
    yield "valid-fourier-opposite", None, "the same with the norm of a matrix", roomy.files()


def pools(all_: Features) -> Iterator[Case]:
    """What an index of groups has to fit, and how often it may name an entry."""
    bundle = loose(all_["activation-pool-maximum"])
    index = bundle.tensors["i"]
    act = (*FIRST, "activation")
    for name, place, value, why in (
        ("above", (0, 0), 4, "no such entry"),
        ("below", (0, 0), -2, "no such entry"),
        ("nothing", (1, 1), -1, "a row that names no entry"),
    ):
        other = index.copy()
        other[place] = value
        yield f"fit-pool-index-{name}", "fit", why, with_tensor(bundle, "i", other)
    for name, value, why in (
        ("axes", index[:, :, None], "an index of three axes"),
        ("vector", index[:, 0], "an index of one axis"),
        ("rows", index[:2], "fewer rows than the result has entries"),
        ("columns", index[:, :0], "no columns"),
        ("floating", index.astype(np.float64), "an index of floating-point numbers"),
    ):
        yield f"fit-pool-index-{name}", "fit", why, with_tensor(bundle, "i", value)
    unsigned = with_tensor(bundle, "i", np.abs(index).astype(np.uint8))
    yield "valid-pool-index-u8", None, "an index of U8", unsigned
    yield (
        "fit-pool-outputs",
        "fit",
        "another number of entries",
        changed(bundle, *act, "outputs", [4]),
    )
    yield "schema-pool-outputs", "schema", "a side of 0", changed(bundle, *act, "outputs", [3, 0])
    yield "kind-pool", "kind", "a pool of no kind", changed(bundle, *act, "of", "mean")
    yield (
        *("kind-level-pool", "kind", "level float does not know the activation"),
        changed(altered(bundle, "level", FLOAT), *LAST, "norm", "0x1p+20"),
    )
    for of in ("maximum", "length"):
        tensors = {"i": np.array([[0, 0], [1, 2]]), "end": numbers(3, 2, seed=3)}
        part = f.block([], f.pool(of, "i", [2]))
        twice = f.fill((3,), [part], [f.dense("end")], tensors)
        yield f"valid-pool-twice-{of}", None, "a row names an entry twice", twice.files()
        yield (
            *(f"claim-pool-twice-{of}", "claim", "a row names an entry twice: it counts twice"),
            changed(twice, *FIRST, "bound", "0x1.6a09e667f3bccp+0"),
        )
    step = loose(all_["block-step-pool"])
    yield (
        *("fit-step-pool", "fit schema", "a step whose activation gives another shape"),
        changed(step, *act, "outputs", [2, 2]),
    )
    step.tensors["i"] = step.tensors["i"][:3]
    yield (
        *("fit-step-pool-fewer", "fit schema", "a step whose activation gives fewer numbers"),
        changed(step, *act, "outputs", [3]),
    )


def comparisons(all_: Features) -> Iterator[Case]:
    """Claims that are compared with other claims, and radii at the boundary."""
    b, adjoint, skew = (
        all_[name] for name in ("activation-leaky-relu", "map-adjoint", "map-exponential")
    )
    whole = float.fromhex(b.record["bound"])
    yield (
        *("claim-network", "claim", "the bound of the network is an ulp below the product"),
        changed(b, "bound", exact.after(whole, -1).hex()),
    )
    less = exact.after(exact.norm(exact.fractions(b.tensors["end"])), -2)
    yield (
        *("claim-last", "claim", "the norm of the last matrix is an ulp or two too small"),
        changed(b, *LAST, "norm", less.hex()),
    )
    for name, bundle in (("adjoint", adjoint), ("exponential", skew)):
        of, shape = bundle.record["network"]["last"][0]["of"], tuple(bundle.record["input"])
        shape = (2, 3, 3)
        truth = exact.norm(exact.matrix(of, bundle.tensors, shape)[0])
        yield (
            *(f"claim-of-{name}", "claim", "the norm of the convolution inside is too small"),
            changed(bundle, *LAST, "of", "norm", exact.after(truth, -2).hex()),
        )
    zero = with_tensor(altered(b, *LAST, "norm", "0x0p+0"), "end", b.tensors["end"])
    yield "claim-zero", "claim", "a norm of 0 of a matrix that is not", zero
    wrong = altered(b, "samples", "radii", ["0x0p+0"] * 2)
    other = [(p + 1) % 3 for p in b.record["samples"]["predictions"]]
    yield (
        *("valid-radius-zero", None, "a radius of 0 claims nothing, whatever is predicted"),
        changed(wrong, "samples", "predictions", other),
    )
    yield (
        *("radius-prediction", "radius", "a tiny radius around a prediction that is wrong"),
        changed(altered(b, "samples", "predictions", other), "samples", "radii", ["0x1p-1000"] * 2),
    )
    tie = f.fill((2,), [], [f.dense("w")], {"w": np.array([[3.0, 0.0], [0.0, 4.0]])})
    tie.tensors["x"] = np.array([[1.0, 0.75]])
    samples = {"inputs": "x", "predictions": [0], "radii": ["0x1p-1074"], "head": "network"}
    tie.record["samples"] = samples
    yield "radius-tie", "radius", "two outputs are equal: no radius above 0", tie.files()
    # rows 5 apart, a margin of 5: the radius 1 times 5 is not below it
    equal = tie.copy()
    equal.tensors["x"] = np.array([[1.0, -0.5]])
    equal.record["samples"] = samples | {"head": "pairs", "radii": ["0x1p+0"]}
    yield (
        "radius-equal",
        "radius",
        "radius times constant is the margin: not strictly",
        equal.files(),
    )
    near = changed(equal, "samples", "radii", [(1 - 5 * 2.0**-20).hex()])
    yield "valid-radius-equal", None, "the same with the room of the page", near
    null = changed(b, "samples", None)
    yield "valid-no-samples", None, "no samples", null
    second = b.copy()
    second.record["samples"]["radii"].reverse()
    radii = [float.fromhex(text) for text in second.record["samples"]["radii"]]
    assert radii[0] != radii[1]
    yield "radius-order", "radius", "the radii of two samples, the other way round", second.files()


LEVELS = {
    f"{numbers}-{sums}": {"kind": "float", "numbers": numbers, "sums": sums}
    for numbers, sums in (("float32",) * 2, ("float32", "float64"), ("float64",) * 2)
}


def shapes(all_: Features) -> Iterator[Case]:
    """Tensors of activations that do not fit, and constants of activations at their ends."""
    act = (*FIRST, "activation")
    for name in f.SHAPES:
        bundle = loose(all_[f"activation-{name}"])
        record = bundle.record["network"]["blocks"][0]["activation"]
        fields = [key for key in record if key not in ("kind", "of")]
        yield (
            f"field-{name}",
            "schema",
            "a field is missing",
            changed(bundle, *act, fields[-1], GONE),
        )
        for field in fields if name in ("fold", "rays", "polygon", "piecewise-bends") else ():
            whole = altered(bundle, *act, field, "whole")
            whole.tensors["whole"] = np.ones_like(bundle.tensors[record[field]], np.int64)
            why = f"{field} of whole numbers"
            yield f"fit-{name}-whole-{field}", "fit", why, whole.files()

    def unfit(of: str, name: str, why: str, *changes: tuple[str, np.ndarray]) -> Case:
        bundle = loose(all_[f"activation-{of}"])
        for tensor, a in changes:
            bundle.tensors[tensor] = a
        return f"fit-{of}-{name}", "fit", why, bundle.files()

    scaled = loose(all_["activation-scaled-silu"])
    yield "kind-scaled", "kind fit", "no such function", changed(scaled, *act, "of", "swish")
    yield "kind-scaled-relu", "kind fit", "it has fields", changed(scaled, *act, "of", "leaky-relu")
    yield unfit("scaled-silu", "shapes", "numbers of two shapes", ("d", numbers(1)))
    yield unfit("scaled-silu", "inner", "it does not broadcast", ("i", numbers(3)))
    yield unfit("scaled-silu", "outer", "they do not broadcast", *((n, numbers(3)) for n in "ad"))
    below = all_["activation-scaled-sigmoid"].tensors["d"].astype(np.float64)
    below[-1] = exact.after(below[-1])
    yield unfit("scaled-sigmoid", "jump", "it would jump at 0, by an ulp", ("d", below))
    zero = changed(altered(scaled, *act, "of", "softplus"), *act, "below", "a")
    yield "valid-scaled-softplus", None, "equal numbers, as they are one tensor", zero

    yield unfit("fold", "peaks", "fewer peaks than rays", ("p", numbers(2, 2)))
    yield unfit("fold", "axes", "one axis", ("r", numbers(2)), ("p", numbers(2)))
    yield unfit("fold", "empty", "no rays", *((n, np.zeros((0, 2))) for n in "rp"))
    yield unfit("fold", "pairs", "one pair of two", ("r", numbers(3, 1)), ("p", numbers(3, 1)))
    yield unfit("rays", "pairs", "one pair of two", ("r", numbers(1)))
    yield unfit("rays", "axes", "two axes", ("r", numbers(1, 2)))
    far = exact.after(1024.0)
    for of, name in (("fold", "r"), ("fold", "p"), ("rays", "r")):
        angles = loose(all_[f"activation-{of}"]).tensors[name].astype(np.float64)
        angles.flat[-1] = -far
        yield unfit(of, f"far-{name}", "an angle above 2^10", (name, angles))
        angles.flat[-1] = 1024.0
        good = loose(all_[f"activation-{of}"])
        yield f"valid-{of}-far-{name}", None, "an angle of 2^10", with_tensor(good, name, angles)
    yield unfit("polygon", "pairs", "one pair of two", ("k", numbers(3, 2, 1)))
    yield unfit("polygon", "sides", "three coordinates", ("k", numbers(3, 3, 2)))
    yield unfit("polygon", "axes", "two axes", ("k", numbers(3, 4)))
    yield unfit("polygon", "empty", "no corners", ("k", np.zeros((0, 2, 2))))
    three = altered(loose(all_["activation-rays"]), *FIRST, "inner", [])
    why = "an odd number of channels"
    yield "fit-rays-odd", "fit", why, changed(three, "input", [3])
    step = loose(all_["block-step-fold"])
    step = altered(step, *act, {"kind": "rays", "angles": "angles"})
    why = "a step whose activation gives fewer numbers"
    yield "fit-step-rays", "fit schema", why, with_tensor(step, "angles", numbers(2))

    pieces, bent = "piecewise", "piecewise-bends"
    knots = all_[f"activation-{bent}"].tensors["k"].astype(np.float64)
    down = knots.copy()
    down[1, 0] = np.nextafter(down[0, 0], -1.0)
    yield unfit(bent, "order", "a knot an ulp below the one before", ("k", down))
    yield unfit(bent, "few-slopes", "as many slopes as knots", ("s", numbers(3, 4)))
    yield unfit(bent, "many-bends", "as many bends as knots", ("c", numbers(3, 4)))
    yield unfit(bent, "columns", "a value of another shape", ("v", numbers(1)))
    yield unfit(
        pieces,
        "columns",
        "two columns",
        ("k", numbers(1, 2)),
        ("s", numbers(2, 2)),
        ("v", numbers(2)),
    )
    yield unfit(pieces, "scalar", "knots without axes", ("k", np.float32(1.0) * np.ones(())))
    none = (("k", np.zeros((0, 1))), ("s", numbers(1, 1)))
    yield unfit(pieces, "empty", "no knots", *none)
    for count in (4096, 4097):
        bundle = loose(all_[f"activation-{pieces}"])
        bundle.tensors |= {
            "k": np.zeros((count, 1), np.float32),
            "s": np.zeros((count + 1, 1), np.float32),
        }
        if count == 4096:
            yield "valid-piecewise-knots", None, "2^12 equal knots", bundle.files()
        else:
            yield "fit-piecewise-knots", "fit", "more than 2^12 knots", bundle.files()
    one = loose(all_[f"activation-{pieces}"])
    one.tensors |= {"k": numbers(1, 1), "s": numbers(2, 1), "none": np.zeros((0, 1))}
    yield "valid-piecewise-one", None, "one knot", one.files()
    yield (
        *("fit-piecewise-one-bends", "fit", "bends, and one knot"),
        changed(one, *act, "bends", "none"),
    )
    # Slopes 1 at all knots; the last piece of the second column ends with the slope -5/4.
    end = all_[f"activation-{bent}"].copy()
    end.tensors |= {
        "k": np.array([[0.0] * 4, [1.0, 2.0, 1.0, 1.0]]),
        "s": np.ones((3, 4)),
        "c": np.array([[-1.0, -1.125, -2.0, 0.0]]),
    }
    refilled = f.fill(
        (4,), end.record["network"]["blocks"], end.record["network"]["last"], end.tensors
    )
    yield (
        "valid-piecewise-end",
        None,
        "the steepest slope is at the end of a piece",
        refilled.files(),
    )
    less = refilled.record["network"]["blocks"][0]
    least = exact.at_least(exact.bound_of_block(less, refilled.tensors))
    yield (
        *("claim-piecewise-end", "claim", "the steepest slope is at the end of a piece"),
        changed(refilled, *FIRST, "bound", exact.after(least, -2).hex()),
    )


def levels(all_: Features) -> Iterator[Case]:
    """Level float: radii by what rounding does, numbers of a format, kinds that it lacks."""
    tensors = {
        "w": numbers(4, 4, seed=7),
        "b": numbers(4),
        "a": np.array([0.0, -1.5, 0.25, 1.25], np.float32),
        "u": numbers(4, 4, seed=8),
        "x": numbers(2, 4, seed=1),
        "end": numbers(3, 4, seed=3),
    }
    blocks = [
        f.block([f.dense("w", "b")], {"kind": "leaky-relu", "slopes": "a"}),
        f.block([f.dense("u")], {"kind": "sort", "size": 2, "descending": False}),
    ]
    for name, level in LEVELS.items():
        numbers_, sums = str(level["numbers"]), str(level["sums"])
        for head, last in (("pairs", [f.dense("end")]), ("network", [])):
            bundle = f.fill((4,), json.loads(json.dumps(blocks)), last, dict(tensors), head)
            bundle.record["level"] = level
            counted = Level(numbers_, sums, bundle.tensors)

            radii = bundle.record["samples"]["radii"]
            for i in range(len(radii)):
                found = _lasting(bundle, counted, i, 1 + 2.0**-9, f.MARGIN_ROOM)
                radii[i] = exact.after(found, -1).hex()
            false = _lasting(bundle, counted, 1, 0.5, Fraction(0))
            yield (
                *(
                    f"valid-level-{name}-{head}",
                    None,
                    f"radii for sums in {sums}, as the page counts",
                ),
                bundle.files(),
            )
            yield (
                *(f"level-{name}-{head}-radius", "radius"),
                "half the error of the page is above the margin",
                changed(bundle, "samples", "radii", -1, false.hex()),
            )
            if head == "pairs":
                good = bundle
        if numbers_ == "float32":
            for tensor in ("w", "b", "a", "x", "end"):
                a = good.tensors[tensor].astype(np.float64)
                a.flat[abs(a).argmax()] += 2.0**-30
                why = f"a number of {tensor} has more digits than float32"
                quiet = altered(loose(good), "level", level)
                yield (
                    f"level-{name}-digits-{tensor}",
                    "number schema",
                    why,
                    with_tensor(quiet, tensor, a),
                )
        tiny = {"float32": 2.0**-126, "float64": 2.0**-1022}[numbers_]
        for size, why in ((tiny, "the least normal number"), (tiny / 2, "a subnormal number")):
            b = good.tensors["b"].astype(np.float64)
            b[0] = size
            quiet = with_tensor(altered(_claiming(good), "level", level), "b", b)
            if size == tiny:
                yield f"valid-level-{name}-normal", None, why, quiet
            else:
                yield f"level-{name}-subnormal", "number", why, quiet
    level = LEVELS["float64-float64"]
    for name in (*exact.SMOOTH, *f.SHAPES):
        bundle = altered(_claiming(all_[f"activation-{name}"]), "level", level)
        yield (
            f"level-kind-{name}",
            "kind",
            "level float does not know the activation",
            bundle.files(),
        )
    for name, bundle in (
        ("curvature", all_["head-curvature-tanh"]),
        ("multipliers", all_["method-multipliers"]),
    ):
        why = "level float does not know it"
        yield f"level-kind-{name}", "kind", why, changed(_claiming(bundle), "level", level)


def _lasting(bundle: Bundle, level: Level, i: int, share: float, room: Fraction) -> float:
    """The least radius of sample i at which margins are no more than what they lose.

    Of what rounding does, a share is taken, as it is at the radius that would do without.
    """
    x, found = exact.fractions(bundle.tensors["x"][i]), 0.0
    for _ in range(2):
        wrong = partial(level.wrong, bundle.record, x, found)
        less = partial(_times, share, wrong)
        found = exact.radius(bundle.record, bundle.tensors, i, room, less)
    return found


def _times(share: float, wrong: Callable[[int, int], float], own: int, rival: int) -> Fraction:
    return Fraction(share * wrong(own, rival))


def _claiming(bundle: Bundle) -> Bundle:
    """A bundle without radii."""
    return altered(bundle, "samples", "radii", ["0x0p+0"] * len(bundle.record["samples"]["radii"]))


def work(_: Features) -> Iterator[Case]:
    """What asks for too much."""
    side = 1 << 11
    of = f.convolution("k", witness="kernel", norm="0x1.1p+0", stride=[side, side])
    wide = f.adjoint(of, [1, side, side]) | {"norm": "0x1.1p+0"}
    pool = {"kind": "max-pool", "size": [side // 2] * 2, "stride": [1, 1]}
    ends = f.take("i", [2]) | {"norm": "0x1p+0"}
    part = f.block([wide], pool) | {"bound": "0x1p+60"}
    record = {"format": "onelip proof", "version": 1, "level": "real", "about": "", "files": {}}
    record |= {"input": [1, 1, 1], "bound": "0x1p+60"}
    record |= {"network": {"blocks": [part], "last": [ends], "method": None}}
    samples = {"inputs": "x", "predictions": [0], "radii": ["0x1p-90"], "head": "network"}
    one = {"k": np.ones((1, 1, 1, 1)), "x": np.ones((1, 1, 1, 1)), "i": np.array([0, -1])}
    yield (
        *("work-windows", "work", "2^40 numbers under windows, for one sample"),
        Bundle(record | {"samples": samples}, one).files(),
    )


RULES: tuple[Callable[[Features], Iterator[Case]], ...] = (
    json_and_fields,
    kinds,
    claims,
    digests,
    tensors,
    fits,
    structure,
    fourier_maps,
    pools,
    comparisons,
    shapes,
    levels,
    work,
)


def cases() -> Iterator[Case]:
    """All of the corpus: features, what is false of them, and rules."""
    found = f.features()
    for name, bundle in found.items():
        kind, _, what = name.partition("-")
        yield name, None, f"the {kind} {what}", bundle.files()
        for false, why, other in f.false_claims(name, bundle):
            reason = "radius" if false.endswith("-radius") else "claim"
            yield false, reason, why, other.files()
    yield from itertools.chain.from_iterable(rules(found) for rules in RULES)
