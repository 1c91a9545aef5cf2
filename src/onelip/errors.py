"""Errors that a user can act on: each message names the way out."""

import pkgutil
import sys
import warnings
from collections.abc import Mapping
from typing import Any


class OnelipError(Exception):
    """Base of every error that the command line reports as one line with exit status 2."""


class UnboundedModuleError(OnelipError, TypeError):
    """No proof is known for the Lipschitz constant of a module."""


class NotApplicableError(OnelipError, ValueError):
    """A method does not cover this network, or would take far too long; another may."""


class NonFiniteError(OnelipError, ValueError):
    """A weight, a bound or a loss is infinite or not a number."""


class SoundnessError(OnelipError, AssertionError):
    """A certificate was contradicted by an example: the network, the library or both are wrong."""


class UsageError(OnelipError, ValueError):
    """An argument, a file or a data set cannot be used as given."""


def missing_extra(package: str, extra: str) -> UsageError:
    """The error for an optional dependency that is not installed."""
    return UsageError(f"{package} is not installed: pip install 'onelip[{extra}]'")


def renamed(old: str, new: str) -> None:
    """Warn that a name has another one now; the old one goes with the next release."""
    warnings.warn(f"{old} is {new} now", DeprecationWarning, stacklevel=3)


def keep_old_names(module: str, new: Mapping[str, str]) -> None:
    """Let a module find names that were changed, with a warning; type checkers see the new ones.

    Args:
        module: its name.
        new: for each old name, the place and the name of what it is now.
    """

    def find(name: str) -> Any:
        if name not in new:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        renamed(f"{module}.{name}", new[name])
        return pkgutil.resolve_name(new[name])

    vars(sys.modules[module])["__getattr__"] = find
