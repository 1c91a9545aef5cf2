"""1-Lipschitz layers, one published method per file."""

from onelip.errors import keep_old_names
from onelip.layers._bjorck import BjorckLinear, CholeskyLinear
from onelip.layers._computed_once import computed_once
from onelip.layers._singular_values import singular_values
from onelip.layers.absolute import Abs, HalfAbs
from onelip.layers.accumulated import Accumulated
from onelip.layers.adjoint_residual import AdjointResidual
from onelip.layers.aoc import AOCConv2d
from onelip.layers.aoc_1d import AOCConv1d
from onelip.layers.aoc_transposed import AOCConvTranspose2d
from onelip.layers.aol import AOLConv1d, AOLConv2d, AOLConvTranspose2d, AOLLinear
from onelip.layers.averaged import Averaged, HorizontalFlip, Shift
from onelip.layers.bcop import BCOPConv1d, BCOPConv2d
from onelip.layers.bro import BROConv2d, BROLinear
from onelip.layers.cayley import CayleyConv2d, CayleyLinear
from onelip.layers.centering import BatchCentering, LayerCentering
from onelip.layers.channel_max import ChannelMaxPool
from onelip.layers.channels import (
    ChannelShuffle,
    InvertibleDownsampling,
    InvertibleUpsampling,
    TruncateChannels,
    ZeroPadChannels,
)
from onelip.layers.convex_potential import ConvexPotentialConv2d, ConvexPotentialLinear
from onelip.layers.fixed_conv import FixedConv2d
from onelip.layers.fourier_layer import FixedFourierConv2d
from onelip.layers.frobenius import FrobeniusConv2d, FrobeniusLinear
from onelip.layers.gradient_step import GradientStep
from onelip.layers.group_sort import GroupSort, MaxMin
from onelip.layers.householder import Householder
from onelip.layers.invertible_residual import InvertibleResidual
from onelip.layers.lipschitz_extension import LipschitzExtension
from onelip.layers.liresnet import LiResNetConv2d
from onelip.layers.lot import LOTConv2d
from onelip.layers.lp_relu import LPReLU
from onelip.layers.mlp_head import MLPHead
from onelip.layers.monotone import Monotone
from onelip.layers.n_activation import NActivation
from onelip.layers.normalize import Normalize
from onelip.layers.orthogonal import bjorck, cholesky_qr
from onelip.layers.ossn import OSSNConv2d, ProjectedOSSNConv2d
from onelip.layers.pooling import (
    ScaledAdaptiveAvgPool2d,
    ScaledAdaptiveL2NormPool2d,
    ScaledAvgPool2d,
    ScaledL2NormPool2d,
    ScaledMaxPool2d,
)
from onelip.layers.projection_pool import CurvePool2d, ProjectionPool2d
from onelip.layers.rescale import Rescale
from onelip.layers.residual import (
    Concatenated,
    MeanSquareResidual,
    Residual,
    Split,
    WeightedResidual,
)
from onelip.layers.rko import RKOConv1d, RKOConv2d, RKOConvTranspose2d
from onelip.layers.sandwich import Sandwich, SandwichLinear
from onelip.layers.skew_exponential import FixedSOCConv2d
from onelip.layers.sll import SLLConv2d, SLLLinear
from onelip.layers.soc import SOCConv2d
from onelip.layers.soft_huber import SoftHuber
from onelip.layers.svcm import SVCMConv2d, project
from onelip.layers.unit_norm_linear import UnitNormLinear

__all__ = [
    "AOCConv1d",
    "AOCConv2d",
    "AOCConvTranspose2d",
    "AOLConv1d",
    "AOLConv2d",
    "AOLConvTranspose2d",
    "AOLLinear",
    "Abs",
    "Accumulated",
    "AdjointResidual",
    "Averaged",
    "BCOPConv1d",
    "BCOPConv2d",
    "BROConv2d",
    "BROLinear",
    "BatchCentering",
    "BjorckLinear",
    "CayleyConv2d",
    "CayleyLinear",
    "ChannelMaxPool",
    "ChannelShuffle",
    "CholeskyLinear",
    "Concatenated",
    "ConvexPotentialConv2d",
    "ConvexPotentialLinear",
    "CurvePool2d",
    "FixedConv2d",
    "FixedFourierConv2d",
    "FixedSOCConv2d",
    "FrobeniusConv2d",
    "FrobeniusLinear",
    "GradientStep",
    "GroupSort",
    "HalfAbs",
    "HorizontalFlip",
    "Householder",
    "InvertibleDownsampling",
    "InvertibleResidual",
    "InvertibleUpsampling",
    "LOTConv2d",
    "LPReLU",
    "LayerCentering",
    "LiResNetConv2d",
    "LipschitzExtension",
    "MLPHead",
    "MaxMin",
    "MeanSquareResidual",
    "Monotone",
    "NActivation",
    "Normalize",
    "OSSNConv2d",
    "ProjectedOSSNConv2d",
    "ProjectionPool2d",
    "RKOConv1d",
    "RKOConv2d",
    "RKOConvTranspose2d",
    "Rescale",
    "Residual",
    "SLLConv2d",
    "SLLLinear",
    "SOCConv2d",
    "SVCMConv2d",
    "Sandwich",
    "SandwichLinear",
    "ScaledAdaptiveAvgPool2d",
    "ScaledAdaptiveL2NormPool2d",
    "ScaledAvgPool2d",
    "ScaledL2NormPool2d",
    "ScaledMaxPool2d",
    "Shift",
    "SoftHuber",
    "Split",
    "TruncateChannels",
    "UnitNormLinear",
    "WeightedResidual",
    "ZeroPadChannels",
    "bjorck",
    "cholesky_qr",
    "computed_once",
    "project",
    "singular_values",
]

keep_old_names(
    __name__,
    {
        "Absolute": "onelip.layers.Abs",
        "FirstChannels": "onelip.layers.TruncateChannels",
        "HouseHolder": "onelip.layers.Householder",
        "LastLayer": "onelip.layers.UnitNormLinear",
    },
)
