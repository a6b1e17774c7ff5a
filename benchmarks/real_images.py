"""Samples of a run, real images, and the Fréchet distance between them."""

import json
from pathlib import Path

import numpy as np

from score_sde_jax.data import all_images
from score_sde_jax.data.npz import shards
from score_sde_jax.runs import build
from score_sde_jax.runs.numbered import RECORD, SampleSet
from score_sde_jax.settings import Settings, with_values
from score_sde_jax.tasks.frechet import frechet_distance

SPLITS = {"digits": "all", "mnist": "test", "fashion_mnist": "test", "cifar10": "test"}


def real_images(config: Settings) -> np.ndarray:
    """Return the real images to compare with, as uint8: those of the test split, or all digits."""
    if config.data.name in SPLITS:
        config = with_values(config, {"data.split": SPLITS[config.data.name]})
    return build.pixels(config).gray(all_images(build.dataset(config)))


def sample_set(directory: Path) -> SampleSet:
    """Return the set of samples in a directory, with all shards."""
    record = json.loads((directory / RECORD).read_text())
    with np.load(shards(directory, "images")[0]) as archive:
        return SampleSet(directory, record["description"], archive["images"].shape[1:])


def frechet_ratios(samples: np.ndarray, real: np.ndarray, times: int = 10) -> list[float]:
    """Return Fréchet distances of samples to random real images, relative to those of other real images."""
    number = min(len(samples), len(real) // 2)
    ratios = []
    for seed in range(times):
        order = np.random.default_rng(seed).permutation(len(real))
        reference, other = real[order[:number]], real[order[number : 2 * number]]
        ratios.append(frechet_distance(samples[:number], reference) / frechet_distance(other, reference))
    return ratios
