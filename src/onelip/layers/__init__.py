"""1-Lipschitz layers, one published method per file."""

from onelip.activations import GroupSort, MaxMin
from onelip.layers.aoc import AOCConv2d
from onelip.layers.bcop import BCOPConv2d
from onelip.layers.bjorck import BjorckLinear, CholeskyLinear
from onelip.layers.channels import FirstChannels, InvertibleDownsampling, ZeroPadChannels
from onelip.layers.computed_once import computed_once
from onelip.layers.constrained import FixedConv2d
from onelip.layers.convex_potential import ConvexPotentialConv2d, ConvexPotentialLinear
from onelip.layers.gradient_step import GradientStep
from onelip.layers.last_layer import LastLayer
from onelip.layers.normalize import Normalize
from onelip.layers.orthogonal import bjorck, cholesky_qr
from onelip.layers.pooling import ScaledAvgPool2d, ScaledMaxPool2d
from onelip.layers.rko import RKOConv2d

__all__ = [
    "AOCConv2d",
    "BCOPConv2d",
    "BjorckLinear",
    "CholeskyLinear",
    "ConvexPotentialConv2d",
    "ConvexPotentialLinear",
    "FirstChannels",
    "FixedConv2d",
    "GradientStep",
    "GroupSort",
    "InvertibleDownsampling",
    "LastLayer",
    "MaxMin",
    "Normalize",
    "RKOConv2d",
    "ScaledAvgPool2d",
    "ScaledMaxPool2d",
    "ZeroPadChannels",
    "bjorck",
    "cholesky_qr",
    "computed_once",
]
