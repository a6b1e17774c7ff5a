"""Datasets, and the one pipeline that feeds them to training.

`DATASETS[name](**options)` opens a dataset; the options are the keys of the config section `data`. `training_batches`
streams it as stored. `Pixels` maps stored values to the inputs of a network, and back.
"""

from score_sde_jax.data.dataset import Dataset, DatasetSpec
from score_sde_jax.data.digits import digits
from score_sde_jax.data.earth import earth
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
    "DatasetSpec",
    "Pixels",
    "all_images",
    "dataset_spec",
    "training_batches",
]

DATASETS = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "celeb_a": celeb_a,
    "earth": earth,
    "image_folder": image_folder,
    "npz": npz,
    "points": points,
}


def dataset_spec(name: str) -> DatasetSpec:
    """Return the properties of a dataset that are known before its files are read; none without `with_spec`.

    Args:
        name: name of an entry of `DATASETS`.
    """
    return getattr(DATASETS[name], "spec", DatasetSpec())
