"""Critic of the settings of ``onelip transport``."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from onelip.errors import OnelipError, UsageError
from onelip.experiments.transport.settings import CRITICS, TransportSettings
from onelip.models import dcgan_critic
from onelip.models.families import CONVOLUTIONS, LINEAR


def chosen_critic(settings: TransportSettings, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return kind, layer, activation and widths of the critic for samples of a shape.

    Raises:
        UsageError: a convolutional critic for samples that are no images.
    """
    convolves = settings.layer in CONVOLUTIONS and settings.layer not in LINEAR
    kind = settings.critic or ("dcgan" if convolves else "dense")
    if kind == "dcgan" and len(shape) != 3:
        raise UsageError(f"samples of shape {shape} are no images: --critic dense")
    build, family = CRITICS[kind]
    defaults = {name: p.default for name, p in inspect.signature(build).parameters.items()}
    layer = None if family is None else settings.layer or defaults[family]
    return {
        "kind": kind,
        "layer": layer,
        "activation": settings.activation or defaults.get("activation"),
        "widths": list(settings.widths or defaults["widths"]),
    }


def build_critic(
    settings: TransportSettings,
    shape: tuple[int, ...],
    samples: tuple[Tensor, Tensor] | None = None,
) -> nn.Module:
    """Build the untrained critic for samples of a shape.

    Args:
        settings: name, family, activation and widths.
        shape: of a sample.
        samples: those to train on, of P and of Q, for a critic that begins at them; None for one
            whose weights are loaded.

    Raises:
        UsageError: a name is not known, or the samples are no images.
    """
    chosen = chosen_critic(settings, shape)
    build, family = CRITICS[chosen["kind"]]
    size: Any = shape if build is dcgan_critic else math.prod(shape)
    options: dict[str, Any] = {"samples": samples}
    if family is not None:
        options = {family: chosen["layer"], "activation": chosen["activation"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            critic = build(size, tuple(chosen["widths"]), **options).eval()
            critic(torch.zeros(1, *shape))  # groups of an activation may not fit
        except OnelipError:
            raise
        except ValueError as error:
            raise UsageError(f"the critic cannot be built: {error}") from None
    return critic
