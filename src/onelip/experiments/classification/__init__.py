"""Runs of ``onelip train``: recipes, their training, and what certificates and attacks say."""

from typing import TYPE_CHECKING

from onelip._lazy import lazily

if TYPE_CHECKING:
    from onelip.experiments.classification.accuracy_figure import plot as plot
    from onelip.experiments.classification.attack import attack_run as attack_run
    from onelip.experiments.classification.bound import bound_file as bound_file
    from onelip.experiments.classification.bound import bound_run as bound_run
    from onelip.experiments.classification.bound import bound_text as bound_text
    from onelip.experiments.classification.build import build_loss as build_loss
    from onelip.experiments.classification.build import build_model as build_model
    from onelip.experiments.classification.certify import Certified as Certified
    from onelip.experiments.classification.certify import certify_run as certify_run
    from onelip.experiments.classification.folder import (
        ClassificationFolder as ClassificationFolder,
    )
    from onelip.experiments.classification.recipe import Recipe as Recipe
    from onelip.experiments.classification.report import format_eps as format_eps
    from onelip.experiments.classification.report import table as table
    from onelip.experiments.classification.singular_values import (
        plot_singular_values as plot_singular_values,
    )
    from onelip.experiments.classification.training._train import train as train
else:
    __getattr__, __dir__, __all__ = lazily(
        __name__,
        {
            "onelip.experiments.classification.accuracy_figure": ("plot",),
            "onelip.experiments.classification.attack": ("attack_run",),
            "onelip.experiments.classification.bound": (
                "bound_file",
                "bound_run",
                "bound_text",
            ),
            "onelip.experiments.classification.build": (
                "build_loss",
                "build_model",
            ),
            "onelip.experiments.classification.certify": (
                "Certified",
                "certify_run",
            ),
            "onelip.experiments.classification.folder": ("ClassificationFolder",),
            "onelip.experiments.classification.recipe": ("Recipe",),
            "onelip.experiments.classification.report": (
                "format_eps",
                "table",
            ),
            "onelip.experiments.classification.singular_values": ("plot_singular_values",),
            "onelip.experiments.classification.training._train": ("train",),
        },
    )
