"""Networks as files that other programs run, proved again before they appear."""

import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.atomic_files import atomic_write
from onelip.bounds import Product
from onelip.chains import Shape
from onelip.errors import OnelipError, UsageError, missing_extra
from onelip.quiet import quiet
from onelip.reading import load, read

_CLOSE = 1e-4  # relative and absolute, of outputs in float32 by another runtime


def save(model: nn.Module, path: str | Path, input_shape: Shape) -> Tensor:
    """Write ``onelip.export(model)`` as a ``.pt2`` or an ``.onnx`` file with a dynamic batch.

    The file is read again before it gets its name: it has to be one that onelip can prove a bound
    of, and its outputs have to be those of the network, an ONNX file's in onnxruntime, or in the
    reference evaluator of the format where that is not installed. TorchScript is deprecated and no
    format of ours.

    Cost: about a second per layer for ONNX.

    Args:
        model: what ``onelip.export`` takes.
        path: of the file; one that exists is replaced, but not by something that is refused.
        input_shape: of one input, without the batch.

    Returns:
        The product of norms as it is proved of the file, a 0-d float64 tensor. It is that of the
        network, but for ``Sandwich`` layers, whose two maps are taken one by one.

    Raises:
        UsageError: another suffix, or a network that the format cannot hold or that cannot be
            proved there; the message says what is the matter, and nothing is written.

    Example:
        >>> import onelip, tempfile
        >>> net = nn.Sequential(onelip.layers.UnitNormLinear(4, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bound = onelip.save(net, Path(folder) / "net.pt2", (4,))
        >>> float(bound) <= 1.000001
        True
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise UsageError(f"{path}: name a file that ends in {' or '.join(_WRITERS)}")
    network = export(model)
    read(network, input_shape)  # a fault of the network itself is named as such, not as the file's
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"network{path.suffix}"
        try:
            _WRITERS[path.suffix](network, file, _inputs(network, input_shape, 2))
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
        for count in (1, 3):
            x = _inputs(network, input_shape, count)
            with torch.no_grad():
                expected = network(x)
            found = _RUNNERS[path.suffix](file, x)
            if not torch.allclose(found, expected, rtol=_CLOSE, atol=_CLOSE):
                off = float((found - expected).abs().max())
                raise UsageError(f"the file computes something else, by {off:.3g}: please report")
        with atomic_write(path) as temporary:
            temporary.write_bytes(file.read_bytes())
    return bound


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
    torch.export.save(torch.export.export(network, (x,), dynamic_shapes=dynamic), file)


def _write_onnx(network: nn.Module, file: Path, x: Tensor) -> None:
    try:
        import onnxscript  # noqa: F401  torch's exporter is written in it
    except ImportError as error:
        raise missing_extra("onnxscript", "onnx") from error
    dynamic = ({0: torch.export.Dim("batch")},)
    with quiet("onnxscript", "torch.onnx"):  # its progress, and its own deprecations
        torch.onnx.export(
            network,
            (x,),
            file,
            dynamo=True,
            dynamic_shapes=dynamic,
            external_data=False,
            input_names=["input"],
            output_names=["output"],
            verbose=False,
        )


def _run_program(file: Path, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = torch.export.load(file).module()(x)
    return y


def _run_onnx(file: Path, x: Tensor) -> Tensor:
    inputs = {"input": x.numpy()}
    if x.dtype == torch.float32 and find_spec("onnxruntime"):  # it has no float64 convolutions
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotThere

        try:
            return torch.from_numpy(onnxruntime.InferenceSession(file).run(None, inputs)[0])
        except NotThere:  # sums of a convolution are accumulated in float64
            pass
    from onnx.reference import ReferenceEvaluator

    found: Any = ReferenceEvaluator(str(file)).run(None, inputs)
    return torch.from_numpy(found[0])


_WRITERS = {".pt2": _write_program, ".onnx": _write_onnx}
_RUNNERS = {".pt2": _run_program, ".onnx": _run_onnx}
