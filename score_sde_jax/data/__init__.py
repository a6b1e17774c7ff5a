"""Data sets, and the one pipeline that feeds them to training.

`DATASETS[name](**options)` builds a data set, `training_batches` streams it; the options are the
keys of the config section `data`.
"""

from score_sde_jax.data.dataset import Dataset
from score_sde_jax.data.declared import declared_length, declared_levels, declared_shape
from score_sde_jax.data.digits import digits
from score_sde_jax.data.folder import image_folder
from score_sde_jax.data.idx import fashion_mnist, mnist
from score_sde_jax.data.npz import npz
from score_sde_jax.data.pipeline import Batch, all_images, examples, training_batches
from score_sde_jax.data.points import points
from score_sde_jax.data.tfds_source import celeb_a, cifar10

__all__ = [
    "DATASETS",
    "Batch",
    "Dataset",
    "all_images",
    "declared_length",
    "declared_levels",
    "declared_shape",
    "examples",
    "training_batches",
]

DATASETS = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "celeb_a": celeb_a,
    "image_folder": image_folder,
    "npz": npz,
    "points": points,
}
