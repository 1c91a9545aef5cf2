"""Tables of ``docs/known.md``: known properties of activations, torch's modules and layers.

``python -m onelip.testing.known`` prints them.
"""

from collections.abc import Callable
from typing import Any

from onelip import layers
from onelip.activations import ACTIVATIONS, Activation
from onelip.lipschitz import RECORDS, LipschitzModule, ModuleRecord

_ACTIVATIONS: dict[str, Callable[[Activation], object]] = {
    "slopes between two inputs": lambda known: known.pieces,
    "second derivative": lambda known: known.second_derivatives,
    "primitive": lambda known: known.homogeneous or known.primitive,
    "rounding": lambda known: known.forward_error,
    "in `.pt2`": lambda known: known.aten,
    "in `.onnx`": lambda known: known.onnx and known.onnx[0],
}
_MODULES: dict[str, Callable[[ModuleRecord], object]] = {
    "as a chain": lambda known: known.to_chain,
    "rounding": lambda known: known.forward_error,
}


_WITHOUT_ROUNDING: tuple[str, ...] = (
    "CayleyConv2d",
    "BROConv2d",
    "LOTConv2d",
    "FixedFourierConv2d",
)
"""Layers that compute by Fourier transforms, whose rounding is not known."""
_LAYERS: dict[str, Callable[[type[LipschitzModule]], object]] = {
    "as a chain": lambda kind: kind.to_chain is not LipschitzModule.to_chain,
    "rounding": lambda kind: kind.forward_error is not LipschitzModule.forward_error,
    "rounding after export": lambda kind: kind.__name__ not in _WITHOUT_ROUNDING,
}


def tables() -> str:
    """Return three Markdown tables: a line for each activation, torch module and public layer."""
    modules = {kind: known for kind, known in RECORDS.items() if kind not in ACTIVATIONS}
    named = (getattr(layers, name) for name in layers.__all__)
    ours = {kind: kind for kind in named if isinstance(kind, type)}
    return "\n\n".join(
        [
            _table("activation", _ACTIVATIONS, ACTIVATIONS),
            _table("module", _MODULES, modules),
            _table("layer", _LAYERS, ours),
        ]
    )


def _table(name: str, columns: dict[str, Callable[[Any], object]], rows: dict[Any, Any]) -> str:
    """Format a table with a line for each row, sorted by name."""
    lines = [[name, *columns], ["---"] * (len(columns) + 1)]
    for kind, known in sorted(rows.items(), key=lambda row: row[0].__name__):
        lines.append([f"`{kind.__name__}`", *(_cell(has(known)) for has in columns.values())])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: object) -> str:
    """Format a cell: text as code, else yes or nothing."""
    if isinstance(value, str):
        return f"`{value}`"
    return "yes" if value else ""


if __name__ == "__main__":
    print(tables())
