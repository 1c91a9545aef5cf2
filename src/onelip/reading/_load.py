"""Files of networks, by their suffix."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from onelip.chains import Chain, Shape
from onelip.errors import UsageError
from onelip.reading._read import read
from onelip.reading.aten.program import read_program
from onelip.reading.onnx.file import read_onnx
from onelip.reading.suffixes import suffix_of
from onelip.reading.weights import module_with_weights


def load(
    path: str | Path,
    *,
    trust: bool = False,
    input: str | None = None,
    output: str | None = None,
    shapes: Mapping[str, int] | None = None,
    fixed: Mapping[str, Any] | None = None,
    factory: str | Callable[[], nn.Module] | None = None,
    input_shape: Shape | None = None,
) -> Chain:
    """The network of a file as a chain; ``chain.forward`` computes it.

    Args:
        path: ``.pt2``, written by ``torch.export.save``, ``.onnx``, or ``.safetensors`` with the
            weights of a module.
        trust: open parts of a ``.pt2`` file that may run code.
        input: of an ONNX file, as the next three: where the chain starts; see ``read_onnx``.
        output: where it ends.
        shapes: sizes of open dimensions, by name.
        fixed: arrays for the other inputs, by name.
        factory: of weights, builds their module; see ``module_with_weights``.
        input_shape: of weights: that of one input of their module, without the batch.

    Raises:
        UnboundedModuleError: nothing is proved for a part; the message names it.
        UsageError: the file is missing or cannot be read.
    """
    path = Path(path)
    suffix = suffix_of(path, (".pt2", ".onnx", ".safetensors"))
    if suffix == ".onnx":
        return read_onnx(path, input=input, output=output, shapes=shapes, fixed=fixed)
    if input or output or shapes or fixed:
        raise UsageError(
            f"{path}: inputs and outputs are chosen in .onnx files; a {suffix} file has one of each"
        )
    if suffix == ".pt2":
        return read_program(path, trust=trust)
    if factory is None or input_shape is None:
        raise UsageError(
            f"{path} holds weights and no network: name the function that builds it and the shape "
            "of one input, as in --factory package.module:function --input-shape 3,32,32"
        )
    return read(module_with_weights(path, factory), input_shape)
