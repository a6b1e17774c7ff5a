"""Techniques of NCSNv2 that choose the noise levels and the Langevin step size from the data.

Source: arXiv 2006.09011. Equation numbers refer to docs/theory.md.
"""

import math

import numpy as np
from jaxtyping import Int, Num
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from score_sde_jax.errors import UserError

MAX_IMAGES = 10_000
"""Largest number of images between which distances are computed."""

OVERLAP = 0.567
"""Overlap of neighboring noise levels.

The paper states about 0.5; all of its configurations (232, 500, 788, 1086 and 2311 levels) have 0.567.
"""

MIN_DIMENSION = 6
"""Smallest dimension for which technique 2 has a solution with a ratio below 10."""


def subset(length: int) -> Int[np.ndarray, "num"]:
    """Return the indices of at most MAX_IMAGES images, evenly spaced.

    Args:
        length: number of images of the dataset.
    """
    return np.linspace(0, length - 1, min(length, MAX_IMAGES)).astype(int)


def largest_pairwise_distance(images: Num[np.ndarray, "num ..."]) -> float:
    """Return the largest Euclidean distance between two images, NCSNv2's sigma_1 (technique 1).

    If there are more than MAX_IMAGES images, the result is a lower bound from an evenly spaced subset.

    Args:
        images: images of the dataset.

    Reference: arXiv 2006.09011, technique 1; theory.md eq. (21).
    """
    spread = images[subset(len(images))]
    x = spread.reshape(len(spread), -1).astype(np.float32)
    x -= x.mean(axis=0)  # Centering keeps the distances and reduces the rounding error of float32.
    squares = np.sum(x**2, axis=1)
    largest = 0.0
    for start in range(0, len(x), 1000):
        block = slice(start, start + 1000)
        distances = squares[block, None] + squares[None, :] - 2 * x[block] @ x.T
        largest = max(largest, float(distances.max()))
    return math.sqrt(largest)


def ladder_ratio(dimension: int) -> float:
    """Return the ratio gamma of neighboring noise levels whose overlap is OVERLAP (technique 2).

    Args:
        dimension: number of values of an image.

    Raises:
        UserError: dimension is below MIN_DIMENSION, where the noise does not concentrate on a sphere.

    Reference: arXiv 2006.09011, technique 2; theory.md eq. (22).
    """
    if dimension < MIN_DIMENSION:
        raise UserError(
            f"--config.loss.times.num_levels=auto: images must have >= {MIN_DIMENSION} values, got {dimension}; set a "
            "number instead"
        )

    def overlap(gamma: float) -> float:
        shift = math.sqrt(2 * dimension) * (gamma - 1)
        return norm.cdf(shift + 3 * gamma) - norm.cdf(shift - 3 * gamma) - OVERLAP

    return brentq(overlap, 1.0, 10.0)


def num_levels(dimension: int, sigma_min: float, sigma_max: float) -> int:
    """Return the number of geometric noise levels from sigma_max to sigma_min by technique 2.

    Args:
        dimension: number of values of an image.
        sigma_min: smallest noise level, in units of x_0; positive.
        sigma_max: largest noise level.
    """
    return max(2, 1 + round(math.log(sigma_max / sigma_min) / math.log(ladder_ratio(dimension))))


def langevin_step_size(ratio: float, num_steps: int) -> float:
    """Return the Langevin step size that best keeps the variance of a noise level (technique 4).

    Args:
        ratio: ratio gamma of neighboring noise levels, above 1.
        num_steps: number of Langevin steps at each noise level, at least 1.

    Returns:
        The step size r in units of sigma^2.

    Reference: arXiv 2006.09011, technique 4; theory.md eq. (23).
    """

    def mismatch(r: float) -> float:
        stationary = 2 / (2 - r)
        return abs((1 - r) ** (2 * num_steps) * (ratio**2 - stationary) + stationary - 1)

    grid = np.geomspace(1e-6, 1.0, 2000)
    best = int(np.argmin([mismatch(r) for r in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(minimize_scalar(mismatch, bounds=(low, high), method="bounded").x)
