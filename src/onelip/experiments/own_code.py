"""Models, losses and recipes of one's own: by dotted name, by file, or by entry point.

``my_package.nets:build`` is imported, from the working directory too; ``nets.py:build`` is a file;
any other name is an entry point of an installed package, in the group ``onelip.models``,
``onelip.losses`` or ``onelip.recipes``.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from onelip.errors import UsageError
from onelip.experiments.record_schema import Code

Kind = Literal["model", "loss", "recipe"]
_GROUPS = {"model": "onelip.models", "loss": "onelip.losses", "recipe": "onelip.recipes"}
_FILES: dict[Path, ModuleType] = {}
_SAID: set[Path] = set()


def find(kind: Kind, name: str, known: Mapping[str, Any]) -> Any:
    """Return what a name stands for: one of the library's, or code of one's own, which is imported.

    Raises:
        UsageError: there is none, or its code cannot be imported.
    """
    if name in known:
        return known[name]
    if ":" in name:
        return _attribute(name, _module_of(name))
    for entry in entry_points(group=_GROUPS[kind], name=name):
        try:
            return entry.load()
        except Exception as error:  # of code that is not ours, anything
            raise UsageError(f"{kind} {name} cannot be imported: {_reason(error)}") from None
    raise UsageError(
        f"no {kind} {name!r}; known: {', '.join(known)}; one of your own is named as "
        "my_package.nets:build or nets.py:build"
    )


def located(name: str, folder: Path) -> str:
    """Return the name with the path of its file from every working directory, if it is of a file.

    Example:
        >>> located("nets.py:build", Path("/work"))
        '/work/nets.py:build'
    """
    place, _, attribute = name.rpartition(":")
    if not place.endswith(".py"):
        return name
    return f"{(folder / Path(place).expanduser()).resolve()}:{attribute}"


def source(kind: Kind, name: str, known: Mapping[str, Any]) -> Code | None:
    """Return name, file and SHA-256 of code of one's own; None for the library's.

    Raises:
        UsageError: see ``find``.
    """
    if name in known:
        return None
    found = find(kind, name, known)
    made_by = getattr(found, "func", found)  # of a partial
    module = sys.modules.get(getattr(made_by, "__module__", "")) if ":" not in name else None
    file = getattr(module or _module_of(name), "__file__", None)
    return None if file is None else of_file(name, Path(file))


def of_file(name: str, file: Path) -> Code:
    """Return the place and the SHA-256 of a file, under a name."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"name": name, "file": str(file.resolve()), "sha256": digest}


def prepare(stored: Mapping[str, Code]) -> None:
    """Let code be imported from where it was, and say which files have changed since.

    Args:
        stored: what ``source`` returned, by kind.
    """
    for kind, code in stored.items():
        file = Path(code["file"])
        if kind == "recipe":  # whose values are in the record
            continue
        if ".py:" not in code["name"] and ":" in code["name"]:
            depth = code["name"].partition(":")[0].count(".") + (file.name == "__init__.py")
            root = str(file.parents[min(depth, len(file.parents) - 1)])
            if root not in sys.path:
                sys.path.append(root)  # last: it hides nothing
        # os.path: False for names that no file can have; a missing file is said where it is needed
        if file in _SAID or not os.path.isfile(file):
            continue
        if of_file("", file)["sha256"] != code["sha256"]:
            _SAID.add(file)
            print(
                f"onelip: {file} has changed since the run was started with it",
                file=sys.stderr,
                flush=True,
            )


def _module_of(name: str) -> ModuleType:
    """Import the module or the file before the colon."""
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        return _of_file(Path(place).expanduser().resolve())
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:  # of code that is not ours, anything
        if isinstance(error, ModuleNotFoundError) and error.name in (place, place.split(".")[0]):
            reason = f"there is no module {error.name}; run where it is, or install it"
        else:
            reason = _reason(error)
        raise UsageError(f"{name} cannot be imported: {reason}") from None


def _of_file(path: Path) -> ModuleType:
    """Run a file as a module of its own, once; it may import its neighbours."""
    if path in _FILES:
        return _FILES[path]
    if not path.is_file():
        raise UsageError(f"no file {path}: name one with the code, as nets.py:build")
    name = f"_onelip_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as dataclasses and type hints expect
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # of code that is not ours, anything
        del sys.modules[name]
        raise UsageError(f"{path} cannot be imported: {_reason(error)}") from None
    _FILES[path] = module
    return module


def _attribute(name: str, module: ModuleType) -> Any:
    wanted = name.rpartition(":")[2]
    found: Any = module
    for part in wanted.split("."):
        if not part or not hasattr(found, part):
            public = [key for key, value in vars(module).items() if _is_own(value, module)]
            raise UsageError(
                f"{name}: there is no {wanted!r} in it, but {', '.join(public) or 'nothing'}"
            )
        found = getattr(found, part)
    return found


def _is_own(value: Any, module: ModuleType) -> bool:
    return inspect.isroutine(value) or (
        inspect.isclass(value) and value.__module__ == module.__name__
    )


def _reason(error: BaseException) -> str:
    """Type, text and line of an error in code that is not ours."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if isinstance(error, SyntaxError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename][1:]
    return f"{text}, line {own[-1].lineno} of {own[-1].filename}" if own else text
