"""Recipes of one's own: YAML files, and ``Recipe`` objects in Python."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from onelip.errors import UsageError, missing_extra
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.own_code import find, located, of_file, source
from onelip.experiments.recipes import RECIPES
from onelip.experiments.record_schema import Code
from onelip.image_sets import OWN
from onelip.losses import LOSSES
from onelip.models import MODELS

_FLOAT = re.compile(
    r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)


def find_recipe(name: str) -> tuple[Recipe, dict[str, Code]]:
    """Return a recipe by name, by YAML file, or by the name of an object.

    Returns:
        The recipe, and the file that it is from, for the record; empty for the library's own.

    Raises:
        UsageError: there is none, or it cannot be used.
    """
    if name in RECIPES:
        return RECIPES[name], {}
    if name.lower().endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        return read_recipe(path), {"recipe": of_file(name, path)}
    if ":" not in name and not name.isidentifier() and "-" not in name:
        raise UsageError(f"no recipe {name!r}: onelip recipes lists them")
    try:
        found = find("recipe", located(name, Path.cwd()), {})
    except UsageError:
        if ":" in name:
            raise
        raise UsageError(f"no recipe {name!r}: onelip recipes lists them") from None
    if not isinstance(found, Recipe):
        raise UsageError(f"{name} is a {type(found).__name__}, not a Recipe")
    code = source("recipe", located(name, Path.cwd()), {})
    folder = Path.cwd() if code is None else Path(code["file"]).parent
    return _with_places(_named(found, name), folder), {"recipe": code} if code else {}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML file.

    Its entries are the fields of ``Recipe``. ``base`` names one to begin with; without it the data
    are the user's own, and ``model`` must be named. Paths of code are those from its folder.

    Raises:
        UsageError: the file cannot be read, or no recipe can have its entries.
    """
    content = _content(path)
    base = content.pop("base", None)
    stored: dict[str, Any] = {"about": "", "dataset": OWN}
    if base is not None:
        if base not in RECIPES:
            raise UsageError(f"{path}: no recipe {base!r} to begin with: onelip recipes lists them")
        stored = RECIPES[base].as_record()
        for choice, arguments in (("model", "network"), ("loss", "objective")):
            if content.get(choice, stored[choice]) != stored[choice]:
                stored[arguments] = {}
            if isinstance(content.get(arguments), dict):
                content[arguments] = {**stored[arguments], **content[arguments]}
    stored = {**stored, "name": path.stem, **content}
    try:
        recipe = Recipe.from_record(stored)
    except ValueError as error:
        raise UsageError(f"{path} is no recipe: {error}") from None
    return _with_places(_named(recipe, str(path)), path.resolve().parent)


def _named(recipe: Recipe, place: str) -> Recipe:
    """Refuse names that no run folder can begin with."""
    if not re.fullmatch(r"\w[\w.-]*", recipe.name):
        raise UsageError(
            f"{place}: a name consists of letters, digits, - and ., got {recipe.name!r}"
        )
    return recipe


def _with_places(recipe: Recipe, folder: Path) -> Recipe:
    """Write down where the files of model and loss are."""
    return dataclasses.replace(
        recipe, model=located(recipe.model, folder), loss=located(recipe.loss, folder)
    )


def code_of(recipe: Recipe) -> dict[str, Code]:
    """Return files and digests of the model and the loss, where they are the user's own."""
    found = {
        "model": source("model", recipe.model, MODELS),
        "loss": source("loss", recipe.loss, LOSSES),
    }
    return {kind: code for kind, code in found.items() if code is not None}


def _content(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; ``1e-3`` is a number, as everywhere else."""
    try:
        import yaml
    except ImportError as error:
        raise missing_extra("pyyaml", "train") from error

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Loader of plain values."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{path} holds no entries such as 'model: mnist_dense'")
    return content
