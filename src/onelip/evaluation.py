"""The old place of the evaluation of runs: ``onelip.experiments`` has it."""

from onelip.errors import keep_old_names

keep_old_names(
    __name__,
    {
        "attack_run": "onelip.experiments.classification.attack_run",
        "bound_file": "onelip.experiments.classification.bound_file",
        "bound_run": "onelip.experiments.classification.bound_run",
        "bound_text": "onelip.experiments.classification.bound_text",
        "certify_run": "onelip.experiments.classification.certify_run",
        "format_eps": "onelip.experiments.classification.format_eps",
        "plot": "onelip.experiments.classification.plot",
        "plot_singular_values": "onelip.experiments.classification.plot_singular_values",
        "table": "onelip.experiments.classification.table",
        "plot_trajectories": "onelip.experiments.trajectories.plot_trajectories",
    },
)
