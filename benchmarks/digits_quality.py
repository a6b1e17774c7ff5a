"""Quality of samples of the digits, by a classifier and Fréchet distances of scikit-learn's digits.

    python benchmarks/digits_quality.py runs/digits/samples/4000

Prints the share of samples to which a support vector classifier, trained on half of the real digits, gives a
class with a probability above 0.9, and the same for the other half; the share of each class; the Fréchet distance in
pixel space of the samples to half of the real digits, as a multiple of that of the other half, for ten random
halvings; and the distances of samples and of held-out real digits to their nearest training image.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from real_images import frechet_ratios, sample_set
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from score_sde_jax.data import DATASETS, all_images
from score_sde_jax.tasks.neighbors import nearest_distances

CONFIDENT = 0.9


def main() -> None:
    """Print the figures, one a line, and as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="directory of samples of the digits, or images.npz in it")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    directory = arguments.samples.parent if arguments.samples.suffix == ".npz" else arguments.samples
    images = sample_set(directory).column("images")
    figures = quality(images.reshape(len(images), -1) / 255.0)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


def quality(samples: np.ndarray) -> dict[str, float | int | list[float]]:
    """Return the figures of samples of shape (num, 64) with values in [0, 1]."""
    digits = load_digits()
    images, labels = digits.data / 16.0, digits.target
    half = np.random.default_rng(0).permutation(len(images))[: len(images) // 2]
    other = np.delete(images, half, axis=0)
    classifier = CalibratedClassifierCV(SVC(), ensemble=False).fit(images[half], labels[half])
    ratios = frechet_ratios(samples, images)
    probabilities = classifier.predict_proba(samples)
    shares = np.bincount(probabilities.argmax(1), minlength=10) / len(samples)
    train = all_images(DATASETS["digits"](split="train")).reshape(-1, 64) / 16.0
    test = all_images(DATASETS["digits"](split="test")).reshape(-1, 64) / 16.0
    return {
        "samples": len(samples),
        "confident share": _rounded((probabilities.max(1) > CONFIDENT).mean()),
        "confident share of real digits": _rounded((classifier.predict_proba(other).max(1) > CONFIDENT).mean()),
        "share of each class": [_rounded(share) for share in shares],
        "smallest share": _rounded(shares.min()),
        "Frechet distance over that of real digits": _rounded(np.mean(ratios)),
        "smallest and largest of the ten": [_rounded(min(ratios)), _rounded(max(ratios))],
        "median distance to the nearest training image": _rounded(np.median(nearest_distances(samples, train))),
        "the same for held-out real digits": _rounded(np.median(nearest_distances(test, train))),
        "exact copies of a training image": int((nearest_distances(np.round(samples * 16) / 16, train) < 1e-6).sum()),
    }


def _rounded(value: float) -> float:
    return round(float(value), 3)


if __name__ == "__main__":
    main()
