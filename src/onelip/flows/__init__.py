"""Dynamical systems (Meunier et al., ICML 2022): convex potentials, skew parts and schemes."""

from onelip.flows.exact import ExactFlow
from onelip.flows.explicit import ExplicitEuler, ExplicitEulerSkew
from onelip.flows.flow import Flow, Piece
from onelip.flows.implicit import ImplicitEuler
from onelip.flows.potential import Potential
from onelip.flows.quadratic import QuadraticPotential
from onelip.flows.rational import ImplicitEulerSkew, Midpoint
from onelip.flows.ridge import RidgeConv2d, RidgeLinear
from onelip.flows.skew import SkewConv2d, SkewLinear, SkewPart
from onelip.flows.sum_potential import SumPotential

__all__ = [
    "ExactFlow",
    "ExplicitEuler",
    "ExplicitEulerSkew",
    "Flow",
    "ImplicitEuler",
    "ImplicitEulerSkew",
    "Midpoint",
    "Piece",
    "Potential",
    "QuadraticPotential",
    "RidgeConv2d",
    "RidgeLinear",
    "SkewConv2d",
    "SkewLinear",
    "SkewPart",
    "SumPotential",
]
