"""Activations that keep the norm of gradients."""

from onelip.activations.absolute import Absolute
from onelip.activations.group_sort import GroupSort, MaxMin
from onelip.activations.householder import HouseHolder
from onelip.activations.n_activation import NActivation

__all__ = ["Absolute", "GroupSort", "HouseHolder", "MaxMin", "NActivation"]
