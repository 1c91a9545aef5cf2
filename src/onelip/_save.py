"""Networks as files that other programs run, proved again before they appear."""

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.atomic_files import atomic_write
from onelip.bounds import Product
from onelip.certificates.methods import Method
from onelip.certificates.with_radius import WithRadius
from onelip.certificates.with_radius import with_radius as _with_radius
from onelip.chains import Shape
from onelip.errors import OnelipError, UsageError, missing_extra
from onelip.quiet import quiet
from onelip.reading import load, read
from onelip.texts_inside import read_text, write_text

NOTES = "onelip.notes"
"""Name of the text inside a file that says what its radii rest on."""

_CLOSE = 1e-4  # relative and absolute, of outputs in float32 by another runtime


def save(
    model: nn.Module,
    path: str | Path,
    input_shape: Shape,
    *,
    with_radius: bool = False,
    method: Method | str = "product",
    reach: float | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Tensor:
    """Write ``onelip.export(model)`` as a ``.pt2`` or an ``.onnx`` file with a dynamic batch.

    The file is read again before it gets its name: it has to be one that onelip can prove a bound
    of, and its outputs have to be those of the network, an ONNX file's in onnxruntime, or in the
    reference evaluator of the format where that is not installed. TorchScript is deprecated and no
    format of ours.

    With radii the file has two outputs, ``logits`` and ``radius``, a dictionary in a ``.pt2`` file;
    see ``onelip.certificates.WithRadius``. What they rest on stands in the file, as JSON: under
    ``onelip.notes`` in the metadata of an ONNX file, in ``extra/onelip.notes`` of a ``.pt2`` file.

    Cost: about a second per layer for ONNX.

    Args:
        model: what ``onelip.export`` takes.
        path: of the file; one that exists is replaced, but not by something that is refused.
        input_shape: of one input, without the batch.
        with_radius: put the certified radius of each sample into the graph.
        method: of the radii; see ``onelip.certificates.with_radius``.
        reach: of the radii: length of the longest input, for level ``float``.
        notes: entries for the file beside what the radii rest on, as JSON takes them.

    Returns:
        The product of norms as it is proved of the file, a 0-d float64 tensor. It is that of the
        network, but for ``Sandwich`` layers, whose two maps are taken one by one.

    Raises:
        UsageError: another suffix, or a network that the format cannot hold or that cannot be
            proved there; the message says what is the matter, and nothing is written.
        NotApplicableError: the radii of the method depend on more than the logits.

    Example:
        >>> import onelip, tempfile
        >>> net = nn.Sequential(onelip.layers.UnitNormLinear(4, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bound = onelip.save(net, Path(folder) / "net.pt2", (4,))
        >>> float(bound) <= 1.000001
        True
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise UsageError(f"{path}: name a file that ends in {' or '.join(_FORMATS)}")
    network, entries = export(model), dict(notes or {})
    read(network, input_shape)  # a fault of the network itself is named as such, not as the file's
    if with_radius:
        network = _with_radius(network, input_shape, method=method, reach=reach)
        entries |= network.basis._asdict()
    elif reach is not None:
        raise UsageError("reach is about radii: with_radius=True, or --with-radius")
    form = _FORMATS[path.suffix]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"network{path.suffix}"
        try:
            form.write(network, file, _inputs(network, input_shape, 2))
        except Exception as error:  # an exporter can raise anything
            raise UsageError(
                f"{path.suffix} cannot hold this network ({_reason(error)}): save it as .pt2"
            ) from error
        try:
            bound = Product().bound(load(file))
        except OnelipError as error:
            raise UsageError(
                f"a bound cannot be proved of this network in {path.suffix} ({error}): save it as "
                ".pt2"
            ) from error
        _compare(network, form, file, input_shape)
        if entries:
            write_text(file, NOTES, json.dumps(entries))
        with atomic_write(path) as temporary:
            temporary.write_bytes(file.read_bytes())
    return bound


def _compare(network: nn.Module, form: "_Format", file: Path, shape: Shape) -> None:
    """Refuse a file that computes something else than its network."""
    for count in (1, 3):
        x = _inputs(network, shape, count)
        with torch.no_grad():
            (scores, *_) = _named(network(x)).values()
        found, *radius = form.run(file, x).values()
        pairs = [(found, scores, _CLOSE, _CLOSE)]
        if isinstance(network, WithRadius):  # of the logits of the file, in float64
            pairs.append((radius[0], network.radius(x, found), 1e-12, 0.0))
        for one, other, relative, absolute in pairs:
            if not torch.allclose(one, other, rtol=relative, atol=absolute):
                off = float((one - other).abs().max())
                raise UsageError(f"the file computes something else, by {off:.3g}: please report")


def _named(outputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs if isinstance(outputs, dict) else {"output": outputs}


def notes_of(path: Path) -> dict[str, Any]:
    """Return the notes that ``save`` wrote into a file; none of a file of somebody else.

    Raises:
        UsageError: the file cannot be read, or its notes are damaged.
    """
    text = read_text(path, NOTES)
    try:
        notes = json.loads(text or "{}")
    except ValueError as error:
        raise UsageError(f"{path}: its notes cannot be read: {error}") from error
    if not isinstance(notes, dict):
        raise UsageError(f"{path}: its notes are no object of JSON")
    return notes


def _reason(error: BaseException) -> str:
    """Name of the operator that an exporter misses, or the first line of its message."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for part in reversed(chain):
        operator = re.search(r"(?:No ONNX function|operator).*?((?:aten|prims)[.:]+\w+)", str(part))
        if operator:
            return f"it has no {operator[1]}"
    return str(error).partition("\n")[0]


def _inputs(network: nn.Module, shape: Shape, count: int) -> Tensor:
    """Random inputs in the dtype of the network, the same for the same count."""
    tensors = [*network.parameters(), *network.buffers()]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64).to(dtype)


def _write_program(network: nn.Module, file: Path, x: Tensor) -> None:
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (x,), dynamic_shapes=dynamic)
    torch.export.save(program, file)


def _write_onnx(network: nn.Module, file: Path, x: Tensor) -> None:
    try:
        import onnxscript  # noqa: F401  torch's exporter is written in it
    except ImportError as error:
        raise missing_extra("onnxscript", "onnx") from error
    dynamic = ({0: torch.export.Dim("batch")},)
    radii = isinstance(network, WithRadius)
    with quiet("onnxscript", "torch.onnx"):  # its progress, and its own deprecations
        torch.onnx.export(
            network,
            (x,),
            file,
            dynamo=True,
            dynamic_shapes=dynamic,
            external_data=False,
            input_names=["input"],
            output_names=["logits", "radius"] if radii else ["output"],
            optimize=not radii,  # it leaves out factors near 1, for which nothing was proved
            verbose=False,
        )


def _run_program(file: Path, x: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return _named(torch.export.load(file).module()(x))


def _run_onnx(file: Path, x: Tensor) -> dict[str, Tensor]:
    inputs = {"input": x.numpy()}
    if x.dtype == torch.float32 and find_spec("onnxruntime"):  # it has no float64 convolutions
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotThere

        try:
            session = onnxruntime.InferenceSession(file)
            names = [output.name for output in session.get_outputs()]
            return _tensors(names, session.run(names, inputs))
        except NotThere:  # sums of a convolution are accumulated in float64
            pass
    from onnx.reference import ReferenceEvaluator

    evaluator: Any = ReferenceEvaluator(str(file))
    return _tensors(evaluator.output_names, evaluator.run(None, inputs))


def _tensors(names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(array) for name, array in zip(names, arrays, strict=True)}


class _Format(NamedTuple):
    """How a format is written, and run."""

    write: Callable[[nn.Module, Path, Tensor], None]
    run: Callable[[Path, Tensor], dict[str, Tensor]]


_FORMATS = {
    ".pt2": _Format(_write_program, _run_program),
    ".onnx": _Format(_write_onnx, _run_onnx),
}
