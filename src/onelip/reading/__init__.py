"""Reading networks: torch modules, exported programs and ONNX files, as chains."""

from onelip.reading._load import load
from onelip.reading._read import read
from onelip.reading.aten.program import read_program
from onelip.reading.onnx.file import read_onnx
from onelip.reading.traced import Predictor, Traced, readable
from onelip.reading.weights import module_with_weights

__all__ = [
    "Predictor",
    "Traced",
    "load",
    "module_with_weights",
    "read",
    "read_onnx",
    "read_program",
    "readable",
]
