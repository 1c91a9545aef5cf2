"""Lipschitz bounds of a run or of a file with a network, as a record and as text."""

import time
from pathlib import Path
from typing import Any

from onelip import bounds
from onelip._export import export
from onelip.deadline import Deadline
from onelip.errors import UsageError
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.threads import use_threads
from onelip.lipschitz import lipschitz_bound
from onelip.norms.rounding import product
from onelip.reading import load, read

_LEAST = 0.01  # seconds for the methods, where reading took all: the product is proved always


def _checked(seconds: float) -> float:
    if not seconds > 0:
        raise UsageError(f"--seconds must be positive, got {seconds}")
    return seconds


def bound_run(
    run: ClassificationFolder, *, seconds: float = 60.0, methods: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Prove bounds of the network as trained and as exported, by layer and as a whole.

    The result goes into the run's ``metrics.json``.

    Args:
        run: a trained run.
        seconds: for everything together.
        methods: see ``bounds.Best``.
    """
    start, deadline = time.perf_counter(), Deadline(_checked(seconds))
    use_threads(run.recipe.threads)
    model = run.load_model()
    exported = export(model)
    layers = {name: lipschitz_bound(part) for name, part in exported.named_children()}
    chain = read(exported, run.info.shape)
    result = {
        "as_trained": float(lipschitz_bound(model)),
        "exported": float(product(list(layers.values()))),
        "layers": {name: float(bound) for name, bound in layers.items()},
        **_record(bounds.Best(max(deadline.left, _LEAST), methods).report(chain)),
        "seconds": round(time.perf_counter() - start, 3),
    }
    run.write({"bound": result})
    return result


def bound_file(
    path: Path, *, seconds: float = 60.0, methods: tuple[str, ...] = (), **reading: Any
) -> dict[str, Any]:
    """Prove bounds of an exported program, an ONNX file, or weights with their module.

    Args:
        path: of the file.
        seconds: for everything together.
        methods: see ``bounds.Best``.
        **reading: arguments of ``onelip.reading.load``.

    Raises:
        UsageError: the file cannot be read.
        UnboundedModuleError: nothing is proved for a node; the message names it.
    """
    deadline = Deadline(_checked(seconds))
    chain = load(path, **reading)
    found = bounds.Best(max(deadline.left, _LEAST), methods).report(chain)
    return {"file": str(path), **_record(found)}


def bound_text(result: dict[str, Any]) -> str:
    """Format a table: layers, if they are known, methods, and the gap to the lower estimate."""
    lines = [f"{name:>6}  {value:.12f}" for name, value in result.get("layers", {}).items()]
    if lines:
        lines += [
            f"exported    {result['exported']:.12f}   product of the layers, images of any size",
            f"as trained  {result['as_trained']:.12f}   with the steps that training used last",
            "product, below, is for images of the size that the run has",
            "",
        ]
    lines.append(f"{'method':26}{'bound':>16}{'/ product':>10}{'seconds':>9}")
    product_bound = result["methods"][0]["bound"]
    for method in [*result["methods"], result["lower"]]:
        lines.append(_line(method, product_bound))
    lines += _up_to_each_layer(result.get("prefixes", []))
    lines += ["", f"proved: {result['best']:.9g} by {result['method']}"]
    if result["lower"]["bound"] > 0:
        gap = result["best"] / result["lower"]["bound"]
        lines[-1] += f", at most {gap:.3g} times the constant"
    return "\n".join(lines)


def _record(found: bounds.BestReport) -> dict[str, Any]:
    return {
        "best": float(found.bound),
        "method": found.method,
        "methods": [_entry(tried) for tried in found.tried],
        "lower": _entry(found.lower),
        "prefixes": [part._asdict() for part in found.prefixes],
    }


def _entry(tried: bounds.Tried) -> dict[str, Any]:
    return {
        "method": tried.method,
        "bound": tried.bound,
        "seconds": round(tried.seconds, 3),
        "note": tried.note,
        "more": tried.more,
    }


def _up_to_each_layer(prefixes: list[dict[str, Any]]) -> list[str]:
    """Format where the bound loses against what is seen."""
    if not prefixes:
        return []
    lines = ["", f"{'up to layer':26}{'product':>12}{'bound':>12}{'seen':>12}{'lost here':>12}"]
    for part in prefixes:
        numbers = (part[key] for key in ("product", "bound", "lower", "lost"))
        lines.append(f"{part['name'][:25]:26}" + "".join(f"{n:>12.4g}" for n in numbers))
    return lines


def _line(method: dict[str, Any], product_bound: float) -> str:
    if method["bound"] is None:
        return f"{method['method']:26}{'-':>16}{'':>10}{method['seconds']:>9.1f}  {method['note']}"
    share = f"{method['bound'] / product_bound:.4g}" if product_bound > 0 else ""
    line = f"{method['method']:26}{method['bound']:>16.9g}{share:>10}{method['seconds']:>9.1f}"
    return f"{line}  {method['more']}" if method.get("more") else line
