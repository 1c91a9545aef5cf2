"""Data sets, published and one's own, as tensors, and minibatches of them."""

from onelip.data.augment import augmentation, crop_and_flip, rotate_and_translate
from onelip.data.batches import Batches
from onelip.data.ceiling import Ceiling, Ceilings, ceilings
from onelip.data.data_set import DataSet, OwnSet, PublishedSet, open_data
from onelip.data.datasets import DATASETS, load
from onelip.data.labelled_set import LabelledSet, as_floats
from onelip.data.own import Source
from onelip.data.samples import Samples, read_samples
from onelip.data.split import by_class, holdout
from onelip.errors import keep_old_names
from onelip.image_sets import SHAPES, DataInfo

keep_old_names(__name__, {"ImageSet": "onelip.data.LabelledSet"})

__all__ = [
    "DATASETS",
    "SHAPES",
    "Batches",
    "Ceiling",
    "Ceilings",
    "DataInfo",
    "DataSet",
    "LabelledSet",
    "OwnSet",
    "PublishedSet",
    "Samples",
    "Source",
    "as_floats",
    "augmentation",
    "by_class",
    "ceilings",
    "crop_and_flip",
    "holdout",
    "load",
    "open_data",
    "read_samples",
    "rotate_and_translate",
]
