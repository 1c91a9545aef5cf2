"""Tensors of a bundle, each stored once, by names that say where they belong."""

import torch
from torch import Tensor


class TensorStore:
    """Named tensors on the CPU; equal ones share a name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> str:
        """Keep a tensor of floats in float64 or float32, or of indices in int64; its name."""
        wanted = {torch.float32: torch.float32, torch.float64: torch.float64}
        whole = not tensor.is_floating_point()
        dtype = torch.int64 if whole else wanted.get(tensor.dtype, torch.float32)
        kept = tensor.detach().to("cpu", dtype).contiguous().clone()
        for known, other in self.tensors.items():
            if other.dtype == kept.dtype and other.shape == kept.shape and torch.equal(other, kept):
                return known
        while name in self.tensors:
            name += "_"
        self.tensors[name] = kept
        return name
