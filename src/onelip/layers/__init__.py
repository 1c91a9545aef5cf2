"""1-Lipschitz layers, one published method per file."""

from onelip.activations import GroupSort, MaxMin
from onelip.layers.channels import FirstChannels, InvertibleDownsampling, ZeroPadChannels
from onelip.layers.convex_potential import ConvexPotentialConv2d, ConvexPotentialLinear
from onelip.layers.gradient_step import GradientStep
from onelip.layers.last_layer import LastLayer
from onelip.layers.normalize import Normalize
from onelip.layers.pooling import ScaledAvgPool2d, ScaledMaxPool2d
from onelip.layers.power_steps import batched_power_steps

__all__ = [
    "ConvexPotentialConv2d",
    "ConvexPotentialLinear",
    "FirstChannels",
    "GradientStep",
    "GroupSort",
    "InvertibleDownsampling",
    "LastLayer",
    "MaxMin",
    "Normalize",
    "ScaledAvgPool2d",
    "ScaledMaxPool2d",
    "ZeroPadChannels",
    "batched_power_steps",
]
