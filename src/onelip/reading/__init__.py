"""Reading networks: torch modules, exported programs and ONNX files, as chains."""

from onelip.reading import own_blocks as _own_blocks
from onelip.reading import torch_layers as _torch_layers
from onelip.reading.load import load
from onelip.reading.modules import read
from onelip.reading.onnx_file import read_onnx
from onelip.reading.program import read_program

__all__ = ["load", "read", "read_onnx", "read_program"]
del _own_blocks, _torch_layers
