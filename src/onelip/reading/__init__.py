"""Reading networks: torch modules, exported programs and ONNX files, as chains."""

from onelip.reading import own_blocks as _own_blocks
from onelip.reading import torch_layers as _torch_layers
from onelip.reading._load import load
from onelip.reading.aten.program import read_program
from onelip.reading.modules import read
from onelip.reading.onnx.file import read_onnx

__all__ = ["load", "read", "read_onnx", "read_program"]
del _own_blocks, _torch_layers
