"""What is known of the data sets before any of their files is read."""

IMAGE_SIZES = {"digits": 8, "mnist": 28, "fashion_mnist": 28, "cifar10": 32, "celeb_a": 64}
CHANNELS = {"digits": 1, "mnist": 1, "fashion_mnist": 1, "cifar10": 3, "celeb_a": 3, "image_folder": 3}
LEVELS = {"digits": 17}
TRAIN_IMAGES = {"mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000, "celeb_a": 162_770}


def declared_shape(name: str, image_size: int | None, channels: int | None) -> tuple[int, ...] | None:
    """Shape of an example of a data set with these options, or None where only the files tell."""
    if name == "points":
        return (2,)
    size, channels = image_size or IMAGE_SIZES.get(name), channels or CHANNELS.get(name)
    return None if size is None or channels is None else (size, size, channels)


def declared_length(name: str, split: str | None) -> int | None:
    """Published number of images of the training split, or None where there is none."""
    return TRAIN_IMAGES.get(name) if split == "train" else None


def declared_levels(name: str) -> int:
    """Number of quantisation levels of the values of an image."""
    return LEVELS.get(name, 256)
