"""Reading networks: torch modules, exported programs and ONNX files, as chains."""
