"""Training with Lightning, run folders."""

from onelip.training.run_folder import RunFolder
from onelip.training.train import train

__all__ = ["RunFolder", "train"]
