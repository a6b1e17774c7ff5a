"""Data sets, and the one pipeline that feeds them to training.

`DATASETS[name](**options)` builds a dataset, `training_batches` streams it as stored, and `Pixels` maps stored values
to what a network sees, and back. The options are the keys of the config section `data`.
"""

from score_sde_jax.data.dataset import Dataset, Declared
from score_sde_jax.data.digits import digits
from score_sde_jax.data.folder import image_folder
from score_sde_jax.data.idx import fashion_mnist, mnist
from score_sde_jax.data.npz import npz
from score_sde_jax.data.pipeline import Batch, all_images, training_batches
from score_sde_jax.data.pixels import Pixels
from score_sde_jax.data.points import points
from score_sde_jax.data.tfds_source import celeb_a, cifar10

__all__ = [
    "DATASETS",
    "Batch",
    "Dataset",
    "Declared",
    "Pixels",
    "all_images",
    "declared",
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


def declared(name: str) -> Declared:
    """What is known of the dataset of this name before any of its files is read."""
    return DATASETS[name].declared  # type: ignore[attr-defined]
