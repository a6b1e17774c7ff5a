"""Accuracy of class-conditional and inpainted digits, by a support vector classifier of scikit-learn.

    python benchmarks/digits_conditioning.py --classes DIR --inpainting DIR

DIR are directories that --mode=sample wrote on the digits. For --config.task.name=class_conditional, prints the share
of samples whose class is the requested one. Prints also the pixel-space Fréchet distance to as many real digits,
divided by that between two sets of real digits. For --config.task.name=inpainting, prints the share of samples whose
class is that of the original, also for the originals and for completions by the hidden part of a random other digit.
The classifier is trained on the training split; its accuracy on the held-out split is the ceiling.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from real_images import frechet_ratios, sample_set
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC

from score_sde_jax.data import DATASETS


def main() -> None:
    """Print the figures, one a line, and as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=Path, help="directory of class-conditional samples")
    parser.add_argument("--inpainting", type=Path, help="directory of completed images of the test split")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    train, labels = real("train")
    judge = SVC().fit(train, labels)
    figures = {"accuracy on held-out real digits": rounded((judge.predict(real("test")[0]) == real("test")[1]).mean())}
    if arguments.classes:
        figures |= of_classes(judge, arguments.classes)
    if arguments.inpainting:
        figures |= of_inpainting(judge, arguments.inpainting)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


def of_classes(judge: SVC, directory: Path) -> dict[str, float | int]:
    """Return the share of samples of the requested class, over all samples and for the worst class."""
    samples = sample_set(directory)
    labels = samples.column("labels")
    right = judge.predict(flat(samples.column("images"))) == labels
    each = [right[labels == label].mean() for label in np.unique(labels)]
    ratio = rounded(np.mean(frechet_ratios(flat(samples.column("images")), real("all")[0])))
    return {
        "class-conditional samples": len(right),
        "of the requested class": rounded(right.mean()),
        "of the worst class": rounded(min(each)),
        "Fréchet distance to real digits, over that between two sets of them": ratio,
    }


def of_inpainting(judge: SVC, directory: Path) -> dict[str, float | int]:
    """Return the share of completed images whose class is that of the original."""
    samples = sample_set(directory)
    digits, labels = real("test")
    numbers = np.arange(len(samples)) // samples.description["task"]["samples_per_image"] % len(digits)
    known = (samples.column("given").reshape(len(numbers), -1) != 128).any(axis=0)  # gray where nothing is known
    rng, classes = np.random.default_rng(0), labels[numbers]
    mean = np.where(known, digits[numbers], real("train")[0].mean(0))
    random = [np.where(known, digits[numbers], digits[rng.permutation(len(digits))][numbers]) for _ in range(20)]
    return {
        "completed digits": len(numbers),
        "share of pixels hidden": rounded((~known).mean()),
        "of the class of the original, completed by the model": share(judge, flat(samples.column("images")), classes),
        "by the hidden part of a random other digit": rounded(np.mean([share(judge, x, classes) for x in random])),
        "by the mean digit": share(judge, mean, classes),
        "expected of sampling given the known part": rounded(expected(known, digits[numbers], classes)),
        "the originals": share(judge, digits[numbers], classes),
    }


def expected(known: np.ndarray, digits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean probability of the class given the known pixels, by a calibrated classifier."""
    train, train_labels = real("train")
    half = CalibratedClassifierCV(SVC(), ensemble=False).fit(train[:, known], train_labels)
    return half.predict_proba(digits[:, known])[np.arange(len(labels)), labels].mean()


def share(judge: SVC, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images that are classified as their label."""
    return rounded((judge.predict(images) == labels).mean())


def real(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return real digits of shape (num, 64) with values in [0, 1], and their labels."""
    dataset = DATASETS["digits"](split=split)
    images, labels = dataset.gather(np.arange(len(dataset)))
    return images.reshape(len(images), -1) / 16.0, labels


def flat(images: np.ndarray) -> np.ndarray:
    """Return stored images as (num, 64) with values in [0, 1]."""
    return images.reshape(len(images), -1) / 255.0


def rounded(value: float) -> float:
    """Round to three digits after the point."""
    return round(float(value), 3)


if __name__ == "__main__":
    main()
