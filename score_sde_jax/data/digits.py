"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships."""

import numpy as np

from score_sde_jax.data.dataset import ArrayDataset, Channels, Dataset, Size, check_choice, check_shape, with_spec


@with_spec(image_size=8, channels=1, levels=17)
def digits(split: str = "train", image_size: Size | None = None, channels: Channels | None = None) -> Dataset:
    """Open the handwritten digits: uint8 (8, 8, 1) with 17 levels, 0 to 16, and ten classes.

    Split "test" is every fifth image (index 4, 9, 14, ...; 359 images), "train" the other 1,438. Both keep the original
    order.

    Args:
        split: "train", "test" or "all".
        image_size: expected height and width in pixels: 8, or None.
        channels: expected channels: 1, or None.

    Raises:
        UserError: unknown split, or images of another shape are expected.

    Reference: UCI Machine Learning Repository, Optical Recognition of Handwritten Digits.
    """
    from sklearn.datasets import load_digits  # imported here, since no other dataset needs it

    check_choice("--config.data.split", split, ("train", "test", "all"))
    bunch = load_digits()
    is_test = np.arange(len(bunch.images)) % 5 == 4
    keep = {"train": ~is_test, "test": is_test, "all": np.full_like(is_test, True)}[split]
    images = bunch.images.astype(np.uint8)[keep, :, :, None]
    dataset = ArrayDataset("digits", images, bunch.target[keep], levels=17)
    return check_shape(dataset, image_size, channels)
