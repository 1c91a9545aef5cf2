"""The old place of the training of classification runs: ``onelip.experiments`` has it."""

from onelip.errors import keep_old_names

keep_old_names(
    __name__,
    {
        "RunFolder": "onelip.experiments.classification.ClassificationFolder",
        "train": "onelip.experiments.classification.train",
    },
)
