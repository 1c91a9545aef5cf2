"""Image data sets as uint8 tensors, and minibatches of them."""

from onelip.data.augment import crop_and_flip
from onelip.data.batches import Batches
from onelip.data.datasets import DATASETS, SHAPES, ImageSet, load
from onelip.data.split import holdout

__all__ = ["DATASETS", "SHAPES", "Batches", "ImageSet", "crop_and_flip", "holdout", "load"]
