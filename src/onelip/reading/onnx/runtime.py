"""ONNX files as what predicts, in onnxruntime."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from onelip.errors import UsageError, missing_extra

_DTYPES = {"tensor(float)": torch.float32, "tensor(double)": torch.float64}


def onnx_runner(path: Path) -> tuple[Callable[[Tensor], Tensor], torch.dtype]:
    """Return a function that runs a file on the CPU, and the dtype of its input.

    A file for a batch of 1 runs on a sample at a time.

    Raises:
        UsageError: onnxruntime is not installed or refuses the file, or the file has another number
            of inputs or outputs than one, or a larger batch.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx") from error
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"onnxruntime does not run {path}: {reason}") from error
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    outputs = ["logits"] if sorted(outputs) == ["logits", "radius"] else outputs
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type not in _DTYPES:
        raise UsageError(
            f"{path} has {len(inputs)} inputs and {len(outputs)} outputs: a file that predicts has "
            "one of each, with numbers of 32 or 64 bits"
        )
    (entry,), batch = inputs, inputs[0].shape[0]
    if isinstance(batch, int) and batch != 1:
        raise UsageError(f"{path} takes batches of {batch}: export for one of 1, or dynamic")

    def run(x: Tensor) -> Tensor:
        parts = x.split(1) if batch == 1 and len(x) else [x]
        results = [session.run(outputs, {entry.name: part.cpu().numpy()})[0] for part in parts]
        return torch.cat([torch.from_numpy(result) for result in results])

    return run, _DTYPES[entry.type]
