"""Networks of the papers, as functions with the published sizes as defaults."""

from collections.abc import Callable

from torch import nn

from onelip.models._averaged import averaged
from onelip.models._lip_convnet import lip_convnet
from onelip.models._mcnf import c4f3, c6f2, c8f2, mcnf
from onelip.models._simple_convnet import (
    simple_convnet,
    simple_convnet_l,
    simple_convnet_m,
    simple_convnet_s,
    simple_convnet_xs,
)
from onelip.models.convex_potential import (
    convex_potential_network,
    cpl_digits,
    cpl_l,
    cpl_m,
    cpl_mnist,
    cpl_s,
    cpl_xl,
)
from onelip.models.critics import dcgan_critic, dense_critic, extension_critic
from onelip.models.generator import dcgan_generator, generate, latent_features, plain_critic
from onelip.models.kw import convolutional_network, fc3, kw3, kw_large, kw_small, mnist_dense

MODELS: dict[str, Callable[..., nn.Sequential]] = {
    "cpl_digits": cpl_digits,
    "cpl_mnist": cpl_mnist,
    "cpl_s": cpl_s,
    "cpl_m": cpl_m,
    "cpl_l": cpl_l,
    "cpl_xl": cpl_xl,
    "kw_small": kw_small,
    "kw_large": kw_large,
    "kw3": kw3,
    "fc3": fc3,
    "mnist_dense": mnist_dense,
    "lip_convnet": lip_convnet,
    "simple_convnet_xs": simple_convnet_xs,
    "simple_convnet_s": simple_convnet_s,
    "simple_convnet_m": simple_convnet_m,
    "simple_convnet_l": simple_convnet_l,
    "4c3f": c4f3,
    "6c2f": c6f2,
    "8c2f": c8f2,
}
"""Every model by name, for recipes and the command line."""

__all__ = [
    "MODELS",
    "averaged",
    "c4f3",
    "c6f2",
    "c8f2",
    "convex_potential_network",
    "convolutional_network",
    "cpl_digits",
    "cpl_l",
    "cpl_m",
    "cpl_mnist",
    "cpl_s",
    "cpl_xl",
    "dcgan_critic",
    "dcgan_generator",
    "dense_critic",
    "extension_critic",
    "fc3",
    "generate",
    "kw3",
    "kw_large",
    "kw_small",
    "latent_features",
    "lip_convnet",
    "mcnf",
    "mnist_dense",
    "plain_critic",
    "simple_convnet",
    "simple_convnet_l",
    "simple_convnet_m",
    "simple_convnet_s",
    "simple_convnet_xs",
]
