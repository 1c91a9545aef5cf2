"""Names of a package that are imported on first use (PEP 562)."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazily(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Build the ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Its names are those that its file imports under ``if TYPE_CHECKING``, where readers and type
    checkers find them, too.

    Args:
        package: its ``__name__``.
        file: its ``__file__``.
    """
    homes = _typed_imports(file)
    exported = sorted(homes)

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        found = (
            import_module(f"{package}.{name}")
            if home == package
            else getattr(import_module(home), name)
        )
        setattr(sys.modules[package], name, found)  # next time it is there
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *exported})

    return get, names, exported


def _typed_imports(file: str) -> dict[str, str]:
    """Map the names that a file imports in its first ``if`` to their modules."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
