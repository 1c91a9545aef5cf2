"""Reading networks: torch modules, exported programs and ONNX files, as chains."""

from onelip.reading import own_layers as _own_layers
from onelip.reading import torch_layers as _torch_layers
from onelip.reading.modules import read

__all__ = ["read"]
del _own_layers, _torch_layers
