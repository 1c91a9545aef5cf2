"""Claim: ONNX files of other tools are read, compute what onnxruntime does, and are bounded.

``python benchmarks/onnx_files.py PATH... [--size 64] [--seconds 60]`` goes through files and
folders; ``pip download --no-deps`` and ``unzip`` make folders of packages. Each output of a file is
tried from each input of real numbers, the other inputs being 0. Open dimensions but the batch have
``--size`` numbers, or those of ``SIZES`` for files that need others. The first reading that
succeeds is compared with onnxruntime on three inputs; of a file that cannot be read the reason is
kept.
"""

import argparse
import contextlib
import itertools
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch
from harness import RESULTS, save

from onelip.bounds import Product
from onelip.chains import Chain
from onelip.errors import OnelipError
from onelip.reading import read_onnx


class Stopped(BaseException):
    """The time is over; no ``Exception``, which readers turn into a refusal."""


SIZES: dict[str, dict[str, int]] = {
    "silero_vad.onnx": {"input.1": 512, "state.1": 1},
    "silero_vad_16k_op15.onnx": {"sequence": 512, "batch": 1},
    "silero_vad_half.onnx": {"sequence": 512, "batch": 1},
    "silero_vad_op18_ifless.onnx": {"sequence": 512, "batch": 1},
    "ch_PP-OCRv4_rec_infer.onnx": {"x.2": 48, "p2o.DynamicDimension.1": 96},
}
"""Sizes of open dimensions by the name of a file."""

FIXED: dict[str, dict[str, float]] = {
    name: {"sr": 16000}
    for name in ("silero_vad.onnx", "silero_vad_16k_op15.onnx", "silero_vad_op18_ifless.onnx")
}
"""Numbers other than 0 that inputs are fixed to, by the name of a file."""

_MAGIKA = "jax2tf_get_logits_/pjit_get_logits_/MagikaV2/"
INPUTS: dict[str, str] = {"standard_v3_3/model.onnx": f"{_MAGIKA}Dense_0/einsum/Einsum:0"}
"""Names of tensors inside that a reading starts from, by the folder and name of a file."""


def main() -> None:
    """All files, one row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each file")
    parser.add_argument("--add", action="store_true", help="keep the rows of other files")
    parser.add_argument("--name", default="onnx_files", help="of the stored result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    save(options.name, _rows(options))


def _rows(options: Any) -> Iterator[dict[str, Any]]:
    """Rows of files, with ``--add`` after those of other files that were stored before."""
    stored = RESULTS / f"{options.name}.json"
    new = {_name(path, root) for root in options.paths for path in _files(root)}
    if options.add and stored.is_file():
        rows = json.loads(stored.read_text())["rows"]
        yield from (row for row in rows if row["file"] not in new)
    for root in options.paths:
        for path in _files(root):
            yield {"file": _name(path, root), **_tried(path, options)}


def _files(root: Path) -> list[Path]:
    return [root] if root.is_file() else sorted(root.rglob("*.onnx"))


def _name(path: Path, root: Path) -> str:
    """Package or folder, and the path inside."""
    return path.name if path == root else str(Path(root.name) / path.relative_to(root))


def _tried(path: Path, options: Any) -> dict[str, Any]:
    """Whether a file can be read, and what is wrong if not."""
    signal.signal(signal.SIGALRM, _stop)
    try:
        runtime: Runtime = _onnxruntime(path)
    except Exception:  # onnxruntime has many, of no common base
        try:
            runtime = _evaluator(path)
        except Exception as error:
            return {"read": False, "why not": f"nothing runs it: {_line(error)}"}
    reasons = []
    for settings in _settings(path, runtime, options.size):
        seconds = time.perf_counter()
        try:
            with _limit(options.seconds):
                chain = read_onnx(path, **settings)
        except OnelipError as error:
            reasons.append(str(error).replace(str(path), path.name))
            continue
        except Stopped:
            return {"read": False, "why not": f"reading takes more than {options.seconds:g} s"}
        row = {"read": True, "input": settings["input"], "output": settings["output"]}
        row |= {"shape": list(chain.inputs), "blocks": len(chain.blocks)}
        row["seconds to read"] = round(time.perf_counter() - seconds, 2)
        row |= _compared(runtime, chain, settings)
        return row | _bounded(chain, options.seconds)
    return {"read": False, "why not": next(iter(reasons), "no output")}


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _settings(path: Path, runtime: "Runtime", size: int) -> Iterator[dict[str, Any]]:
    """Readings to try: of each output from each input of real numbers, then of whole numbers."""
    sizes = SIZES.get(path.name, {})
    shapes = {name: sizes.get(name, size) for name in _open(path, runtime.inputs)}
    inside = INPUTS.get(str(Path(path.parent.name) / path.name))
    real = sorted(runtime.inputs, key=lambda name: "int" in runtime.inputs[name].type)
    for output, start in itertools.product(runtime.outputs, [inside] if inside else real):
        fixed = {n: FIXED.get(path.name, {}).get(n, 0) for n in runtime.inputs if n != start}
        yield {"output": output, "input": start, "shapes": shapes, "fixed": fixed}


def _bounded(chain: Chain, seconds: float) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        with _limit(seconds):
            return {
                "product bound": float(Product().bound(chain)),
                "seconds to bound": round(time.perf_counter() - start, 2),
            }
    except Stopped:
        return {"product bound": None, "why not": f"takes more than {seconds:g} s"}
    except OnelipError as error:
        return {"product bound": None, "why not": str(error)}


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    signal.alarm(math.ceil(seconds))
    try:
        yield
    finally:
        signal.alarm(0)


def _stop(*_: Any) -> None:
    raise Stopped


@dataclass(frozen=True)
class Runtime:
    """What runs a file: its name, the file's inputs and outputs, and a call with both."""

    name: str
    inputs: dict[str, Any]
    outputs: list[str]
    run: Callable[[list[str], dict[str, Any]], Any]


def _onnxruntime(path: Path) -> Runtime:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {entry.name: entry for entry in session.get_inputs()}
    return Runtime("onnxruntime", inputs, [o.name for o in session.get_outputs()], session.run)


def _evaluator(path: Path) -> Runtime:
    """The evaluator of the package of the format, for operators too old for onnxruntime."""
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    graph = onnx.load(path).graph
    stored = {part.name for part in graph.initializer}
    inputs = {}
    for entry in graph.input:
        kind = entry.type.tensor_type
        shape = [side.dim_value or side.dim_param or None for side in kind.shape.dim]
        name = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        name = {"float32": "float", "float64": "double"}.get(name, name)
        if entry.name not in stored:
            inputs[entry.name] = SimpleNamespace(shape=shape, type=f"tensor({name})")
    outputs = [entry.name for entry in graph.output]
    evaluator = ReferenceEvaluator(str(path))
    return Runtime("onnx.reference", inputs, outputs, evaluator.run)


def _open(path: Path, entries: dict[str, Any]) -> list[str]:
    """Names of open dimensions but the batch, as ``read_onnx`` wants them."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    found = []
    for entry in graph.input:
        if entry.name in entries:
            for place, side in enumerate(entry.type.tensor_type.shape.dim):
                if place and side.dim_value < 1:
                    found.append(side.dim_param or f"{entry.name}.{place}")
    return sorted(set(found))


def _compared(runtime: Runtime, chain: Chain, settings: dict[str, Any]) -> dict[str, Any]:
    """The largest difference to the runtime, relative to the largest number."""
    start, generator = settings["input"], np.random.default_rng(0)
    entry = runtime.inputs.get(start)
    if entry is None or entry.type not in ("tensor(float)", "tensor(double)", "tensor(float16)"):
        return {"compared": "no: the chain starts inside"}
    worst = own = 0.0
    exact = chain.exact()
    for scale in (0.1, 1.0, 10.0):
        feeds = {name: _fed(runtime, name, settings) for name in runtime.inputs}
        drawn = scale * generator.normal(size=feeds[start].shape)
        feeds[start] = drawn.astype(feeds[start].dtype)
        (expected,) = runtime.run([settings["output"]], feeds)
        wide = np.float64 if feeds[start].dtype == np.float64 else np.float32
        x = torch.from_numpy(feeds[start].astype(wide)).reshape(-1, *chain.inputs)
        found = chain.forward(x).numpy().reshape(expected.shape)
        worst = max(worst, _difference(found, expected))
        double = exact.forward(x.double()).numpy().reshape(expected.shape)
        own = max(own, _difference(found, double))
    return {
        "compared": runtime.name,
        "largest relative difference": worst,
        "of the chain to itself in double precision": own,
    }


def _difference(found: Any, expected: Any) -> float:
    """The largest, relative to the largest number."""
    wide = expected.astype(float)
    return float(np.abs(found.astype(float) - wide).max() / max(np.abs(wide).max(), 1e-30))


def _fed(runtime: Runtime, name: str, settings: dict[str, Any]) -> Any:
    """An input filled with its fixed number."""
    entry, sizes = runtime.inputs[name], settings["shapes"]
    whole = [
        side
        if isinstance(side, int) and side > 0
        else sizes.get(str(side), sizes.get(f"{name}.{place}", 1))
        for place, side in enumerate(entry.shape)
    ]
    kinds = {"float": "float32", "double": "float64"}
    kind = entry.type.removeprefix("tensor(").removesuffix(")")
    return np.full(whole, settings["fixed"].get(name, 0), kinds.get(kind, kind))


if __name__ == "__main__":
    main()
