"""Context of a foolbox call: a wrapped model, seeded random numbers, no warnings."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from onelip.attacks._judge import evaluation_mode
from onelip.errors import missing_extra


def import_foolbox() -> Any:
    """Return foolbox, or raise the error that names the extra to install."""
    try:
        import foolbox
    except ImportError as error:
        raise missing_extra("foolbox", "attacks") from error
    return foolbox


@contextlib.contextmanager
def wrapped(model: nn.Module, device: torch.device, seed: int) -> Iterator[Any]:
    """Wrap the model for foolbox, with seeded random numbers and without foolbox's warnings.

    Gradients are on, except those of the parameters, which foolbox would accumulate.
    """
    foolbox = import_foolbox()
    with (
        evaluation_mode(model),
        _freeze(model),
        _seed(seed, device),
        torch.enable_grad(),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module=r"foolbox\.")
        yield foolbox.PyTorchModel(model, bounds=(0, 1), device=device)


@contextlib.contextmanager
def _freeze(model: nn.Module) -> Iterator[None]:
    """Turn off the gradients of the parameters until the end."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def _seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that foolbox draws from, and restore them at the end."""
    devices = [device] if device.type == "cuda" else []
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for cuda in devices:
            with torch.cuda.device(cuda):
                torch.cuda.manual_seed(seed)
        # numpy takes seeds of 32 bits only
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
