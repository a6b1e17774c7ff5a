"""Real images beside the samples of a run, and how near the samples come to them."""

import numpy as np

from score_sde_jax.data import all_images
from score_sde_jax.runs import build
from score_sde_jax.settings import Settings, with_values
from score_sde_jax.tasks.frechet import frechet_distance

SPLITS = {"digits": "all", "mnist": "test", "fashion_mnist": "test", "cifar10": "test"}


def real_images(chosen: Settings) -> np.ndarray:
    """uint8 images of the data set of a config, whatever its number of levels, of the split to compare with."""
    if chosen.data.name in SPLITS:
        chosen = with_values(chosen, {"data.split": SPLITS[chosen.data.name]})
    data = build.dataset(chosen)
    return np.round(all_images(data) * (255 / (data.levels - 1))).astype(np.uint8)


def frechet_ratios(samples: np.ndarray, real: np.ndarray, times: int = 10) -> list[float]:
    """Fréchet distance of samples (num, dim) to random real ones, over that of as many other real ones."""
    number = min(len(samples), len(real) // 2)
    ratios = []
    for seed in range(times):
        order = np.random.default_rng(seed).permutation(len(real))
        reference, other = real[order[:number]], real[order[number : 2 * number]]
        ratios.append(frechet_distance(samples[:number], reference) / frechet_distance(other, reference))
    return ratios
