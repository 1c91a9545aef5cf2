"""Network and loss of a recipe."""

from torch import nn

from onelip.errors import UsageError
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.record_schema import checked_arguments
from onelip.image_sets import SHAPES
from onelip.losses import LOSSES
from onelip.models import MODELS


def build_model(recipe: Recipe) -> nn.Module:
    """Build the untrained model of a recipe.

    Raises:
        UsageError: the recipe names no known model or data set, or wrong arguments.
    """
    if recipe.model not in MODELS:
        raise UsageError(f"no model {recipe.model!r}; known: {', '.join(MODELS)}")
    shape, classes = SHAPES[recipe.dataset]
    checked_arguments(MODELS[recipe.model], recipe.network, recipe.model)
    try:
        model = MODELS[recipe.model](shape, classes, **recipe.network)
    except Exception as error:  # sizes that no layer or machine can have raise anything
        raise UsageError(f"{recipe.model} cannot be built: {error}") from None
    if not any(True for _ in model.parameters()):
        raise UsageError(f"{recipe.model} has no weights to train: give it a layer")
    return model


def build_loss(recipe: Recipe) -> nn.Module:
    """Build the loss of a recipe.

    Raises:
        UsageError: the recipe names no known loss, or wrong arguments.
    """
    if recipe.loss not in LOSSES:
        raise UsageError(f"no loss {recipe.loss!r}; known: {', '.join(LOSSES)}")
    checked_arguments(LOSSES[recipe.loss], recipe.objective, recipe.loss)
    try:
        loss: nn.Module = LOSSES[recipe.loss](**recipe.objective)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{recipe.loss} cannot be built: {error}") from None
    return loss
