"""1,797 real handwritten digits of 8 by 8 pixels, inside the scikit-learn package."""

import numpy as np

from score_sde_jax.data.dataset import ArrayDataset, Dataset, check_choice, check_declared, declares


@declares(image_size=8, channels=1, levels=17)
def digits(split: str = "train", image_size: int | None = None, channels: int | None = None) -> Dataset:
    """Handwritten digits: uint8 (8, 8, 1) with 17 levels, 0 to 16, and ten classes.

    Split "test" is every fifth image (index 4, 9, 14, ...; 359 of them), "train" the other 1,438,
    "all" both in the original order. Source: UCI, Optical Recognition of Handwritten Digits.
    """
    from sklearn.datasets import load_digits  # a second to import

    check_choice("--config.data.split", split, ("train", "test", "all"))
    bunch = load_digits()
    is_test = np.arange(len(bunch.images)) % 5 == 4
    keep = {"train": ~is_test, "test": is_test, "all": np.full_like(is_test, True)}[split]
    images = bunch.images.astype(np.uint8)[keep, :, :, None]
    dataset = ArrayDataset("digits", images, bunch.target[keep], levels=17)
    return check_declared(dataset, image_size, channels)
