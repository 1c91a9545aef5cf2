"""What a trained network is worth: clean, certified and attacked accuracy, tables, figures."""

from onelip.evaluation.bound import bound_file, bound_run, bound_text
from onelip.evaluation.evaluate import attack_run, certify_run
from onelip.evaluation.figures import plot
from onelip.evaluation.report import format_eps, table
from onelip.evaluation.singular_values import plot_singular_values
from onelip.evaluation.trajectories import plot_trajectories

__all__ = [
    "attack_run",
    "bound_file",
    "bound_run",
    "bound_text",
    "certify_run",
    "format_eps",
    "plot",
    "plot_singular_values",
    "plot_trajectories",
    "table",
]
