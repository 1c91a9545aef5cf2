"""ONNX files as chains."""
