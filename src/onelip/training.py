"""The old place of the training of classification runs: ``onelip.experiments`` has it."""

from onelip._lazy import moved

__getattr__ = moved(
    __name__,
    {
        "RunFolder": "onelip.experiments.classification.ClassificationFolder",
        "train": "onelip.experiments.classification.train",
    },
)
