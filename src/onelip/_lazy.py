"""Names of a package that are imported when they are first asked for (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from onelip.errors import renamed


def lazily(
    package: str, places: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    The same imports stand under ``if TYPE_CHECKING`` in the package, for readers and type checkers.

    Args:
        package: its ``__name__``.
        places: modules with the names that each gives to the package; a module without any gives
            itself.
    """
    homes = {name: place for place, names in places.items() for name in names}
    modules = {place.rpartition(".")[2]: place for place, names in places.items() if not names}
    exported = sorted([*homes, *modules])

    def get(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(homes[name]), name)
        elif name in modules:
            value = import_module(modules[name])
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *exported})

    return get, names, exported


def moved(module: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of an old module, which warns of each name that it still hands on.

    Args:
        module: its ``__name__``.
        places: new dotted names by the old ones in the module.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        renamed(f"{module}.{name}", places[name])
        home, _, new = places[name].rpartition(".")
        return getattr(import_module(home), new)

    return get
