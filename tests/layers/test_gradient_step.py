"""Gradient steps of plain modules."""

import torch

from onelip import norms
from onelip.layers.gradient_step import norm_bound_once_rounded


def test_room_for_taps_that_are_all_rounded_upwards():
    """A kernel of 81 equal taps: each is off by the same, and the norm by 81 times that."""
    kernel = torch.full((1, 1, 9, 9), 1 + 2**-24 + 2**-40, dtype=torch.float64)
    rounded = kernel.float()
    assert (rounded > kernel).all()
    room = norm_bound_once_rounded(kernel, (10, 10), "circular", torch.float32)
    norm = norms.convolution(rounded, image_size=(10, 10), padding=4, padding_mode="circular")
    assert float(norm) <= float(room) <= float(norm) * (1 + 1e-6)
