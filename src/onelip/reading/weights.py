"""Weights in a ``.safetensors`` file, and the function that builds the module they belong to."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from onelip.errors import UsageError


def module_with_weights(path: str | Path, factory: str | Callable[[], nn.Module]) -> nn.Module:
    """Build a module and load its weights, which are numbers and can run no code.

    Args:
        path: of the file, all of whose tensors the module must take.
        factory: returns the module; or its place, ``"package.module:function"``, which is imported
            from the working directory or from what is installed.

    Returns:
        The module in eval mode.

    Raises:
        UsageError: the file cannot be read, there is no such function, it fails or returns no
            module, or the module has other weights.
    """
    path = Path(path)
    build = _imported(factory) if isinstance(factory, str) else factory
    try:
        weights = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist") from error
    except Exception as error:  # safetensors has its own, and raises others
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{path} cannot be read as safetensors: {reason}") from error
    try:
        module = build()
    except Exception as error:  # a function of a user can raise anything
        raise UsageError(f"{factory} fails: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"{factory} returns a {type(module).__name__}, no torch.nn.Module")
    with torch.no_grad():
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{path} holds other weights than {factory} takes: {reason}") from None
    return module.eval()


def _imported(place: str) -> Callable[[], nn.Module]:
    """Import a function by its place."""
    name, _, function = place.partition(":")
    if not name or not function:
        raise UsageError(f"--factory is package.module:function, got {place!r}")
    sys.path.insert(0, os.getcwd())
    try:
        found: Callable[[], nn.Module] = getattr(importlib.import_module(name), function)
    except Exception as error:  # the import runs what the module holds
        raise UsageError(f"--factory {place}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    return found
