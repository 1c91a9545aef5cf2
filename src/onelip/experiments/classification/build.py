"""Network and loss of a recipe."""

import torch
from torch import Tensor, nn

from onelip.errors import UsageError
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.own_code import find
from onelip.experiments.record_schema import checked_arguments
from onelip.image_sets import OWN, DataInfo, published
from onelip.layers import Normalize
from onelip.losses import LOSSES
from onelip.models import MODELS

_OTHERS = "onelip recipes --table own lists recipes for any data"


def build_model(recipe: Recipe, info: DataInfo | None = None) -> nn.Module:
    """Build the untrained model of a recipe.

    That of a table begins with its scaling (``Normalize``), so that radii are in its units.

    Args:
        recipe: names the model and its arguments.
        info: of the data; by default that of the published data set of the recipe.

    Raises:
        UsageError: the recipe names no known model or data set, or wrong arguments.
    """
    build = find("model", recipe.model, MODELS)
    info = info or published(recipe.dataset)
    shape = _sides(info) if recipe.model in MODELS else info.shape
    checked_arguments(build, recipe.network, recipe.model)
    try:
        model = build(shape, len(info.classes), **recipe.network)
    except Exception as error:  # sizes that no layer or machine can have raise anything
        others = f"; {_OTHERS}" if recipe.dataset == OWN else ""
        raise UsageError(f"{recipe.model} cannot be built: {error}{others}") from None
    if not isinstance(model, nn.Module):
        raise UsageError(f"{recipe.model} returns a {type(model).__name__}, not a torch.nn.Module")
    if not any(True for _ in model.parameters()):
        raise UsageError(f"{recipe.model} has no weights to train: give it a layer")
    return _scaled(model, info) if info.columns else model


def check_fit(model: nn.Module, info: DataInfo, name: str) -> None:
    """Refuse a model that does not turn inputs of such data into logits of its classes.

    Args:
        model: any.
        info: of the data.
        name: of the model, in errors.

    Raises:
        UsageError: see above.
    """
    asked = (2, len(info.classes))
    mode = model.training
    try:
        with torch.no_grad():
            found = model.eval()(torch.full((2, *info.shape), 0.5))
    except Exception as error:  # of a model of the user's own, anything
        reason = " ".join(str(error).split())[:200]
        shape = "x".join(map(str, info.shape))
        raise UsageError(f"{name} does not take inputs of {shape}: {reason}; {_OTHERS}") from None
    finally:
        model.train(mode)
    if not isinstance(found, Tensor) or tuple(found.shape) != asked:
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UsageError(f"{name} returns {shown} for two inputs, not logits of shape {asked}")


def _sides(info: DataInfo) -> tuple[int, int, int]:
    """Shape of an input for a model of images; columns of a table are channels of one pixel."""
    channels, height, width = (*info.shape, 1, 1)[:3]
    return channels, height, width


def _scaled(model: nn.Module, info: DataInfo) -> nn.Module:
    """Put the scaling of a table in front; the last layer stays the last."""
    parts = model if isinstance(model, nn.Sequential) else (model,)
    return nn.Sequential(Normalize(info.mean, info.std), *parts)


def build_loss(recipe: Recipe) -> nn.Module:
    """Build the loss of a recipe.

    Raises:
        UsageError: the recipe names no known loss, or wrong arguments.
    """
    build = find("loss", recipe.loss, LOSSES)
    checked_arguments(build, recipe.objective, recipe.loss)
    try:
        loss = build(**recipe.objective)
    except Exception as error:  # of a loss of the user's own, anything
        raise UsageError(f"{recipe.loss} cannot be built: {error}") from None
    if not isinstance(loss, nn.Module):
        raise UsageError(f"{recipe.loss} returns a {type(loss).__name__}, not a torch.nn.Module")
    if getattr(loss, "reduction", "mean") == "none":
        raise UsageError("a training step needs one number: --objective.reduction mean, or sum")
    return loss
