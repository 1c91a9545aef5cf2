"""Image data sets as uint8 tensors, and minibatches of them."""

from onelip.data.augment import augmentation, crop_and_flip, rotate_and_translate
from onelip.data.batches import Batches
from onelip.data.datasets import DATASETS, ImageSet, load
from onelip.data.samples import Samples, read_samples
from onelip.data.split import holdout
from onelip.image_sets import SHAPES

__all__ = [
    "DATASETS",
    "SHAPES",
    "Batches",
    "ImageSet",
    "Samples",
    "augmentation",
    "crop_and_flip",
    "holdout",
    "load",
    "read_samples",
    "rotate_and_translate",
]
