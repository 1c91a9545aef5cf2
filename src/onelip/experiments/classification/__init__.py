"""Runs of ``onelip train``: recipes, training, certificates and attacks."""

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
    from onelip.experiments.classification.certify import certify_held_out as certify_held_out
    from onelip.experiments.classification.certify import certify_run as certify_run
    from onelip.experiments.classification.comparison import find_runs as find_runs
    from onelip.experiments.classification.export_run import export_run as export_run
    from onelip.experiments.classification.folder import (
        ClassificationFolder as ClassificationFolder,
    )
    from onelip.experiments.classification.load import load as load
    from onelip.experiments.classification.predict import predict_run as predict_run
    from onelip.experiments.classification.prove import proof_text as proof_text
    from onelip.experiments.classification.prove import prove_file as prove_file
    from onelip.experiments.classification.prove import prove_run as prove_run
    from onelip.experiments.classification.recipe import Recipe as Recipe
    from onelip.experiments.classification.report._report import write_report as write_report
    from onelip.experiments.classification.singular_values import (
        plot_singular_values as plot_singular_values,
    )
    from onelip.experiments.classification.text import format_eps as format_eps
    from onelip.experiments.classification.text import held_out_text as held_out_text
    from onelip.experiments.classification.text import table as table
    from onelip.experiments.classification.training._train import train as train
    from onelip.experiments.classification.write_radii import write_radii as write_radii
    from onelip.experiments.radius_files import check_table as check_table
else:
    __getattr__, __dir__, __all__ = lazily(__name__, __file__)
