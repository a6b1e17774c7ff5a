"""Synthetic two-dimensional distributions."""

from typing import Annotated

import numpy as np
from jaxtyping import Float

from score_sde_jax.data.dataset import ArrayDataset, Dataset, check_choice, with_spec
from score_sde_jax.errors import UserError
from score_sde_jax.ranges import Range, Seed

Points = Float[np.ndarray, "num 2"]


@with_spec(levels=None, point_shape=(2,))
def points(
    distribution: str = "checkerboard", num_points: Annotated[int, Range(1, 2**28)] = 65_536, seed: Seed = 0
) -> Dataset:
    """Sample a dataset of float32 points of shape (2,) with coordinates of order one, without labels.

    Args:
        distribution: "checkerboard", "gaussians", "swiss_roll" or "two_moons".
        num_points: number of points, >= 1.
        seed: seed of the points, >= 0.

    Raises:
        UserError: unknown distribution, or `num_points` is not positive.
    """
    check_choice("--config.data.distribution", distribution, tuple(DISTRIBUTIONS))
    if num_points < 1:
        raise UserError(f"--config.data.num_points={num_points}: must be >= 1")
    values = DISTRIBUTIONS[distribution](np.random.default_rng(seed), num_points)
    return ArrayDataset("points", values.astype(np.float32), labels=None, levels=None)


def checkerboard(rng: np.random.Generator, num: int) -> Points:
    """Sample uniformly from the eight dark unit squares of a 4 x 4 checkerboard on [-2, 2]^2."""
    column = rng.integers(4, size=num)
    row = 2 * rng.integers(2, size=num) + column % 2
    return np.stack([column, row], axis=1) + rng.random((num, 2)) - 2.0


def gaussians(rng: np.random.Generator, num: int) -> Points:
    """Sample from eight equal Gaussians of standard deviation 0.1, evenly spaced on a circle of radius 1.5."""
    angle = 2 * np.pi * rng.integers(8, size=num) / 8
    centers = 1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return centers + 0.1 * rng.standard_normal((num, 2))


def swiss_roll(rng: np.random.Generator, num: int) -> Points:
    """Sample the spiral r = angle / 7, angle from 1.5 pi to 4.5 pi, with Gaussian noise of standard deviation 0.05."""
    angle = 1.5 * np.pi * (1 + 2 * rng.random(num))
    spiral = angle[:, None] / 7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return spiral + 0.05 * rng.standard_normal((num, 2))


def two_moons(rng: np.random.Generator, num: int) -> Points:
    """Sample two interleaved half circles of radius 1, with Gaussian noise of standard deviation 0.05."""
    angle = np.pi * rng.random(num)
    side = rng.choice([-1.0, 1.0], size=num)
    x = side * (np.cos(angle) + 0.5)
    y = side * (np.sin(angle) - 0.25)
    return np.stack([x, y], axis=1) + 0.05 * rng.standard_normal((num, 2))


DISTRIBUTIONS = {
    "checkerboard": checkerboard,
    "gaussians": gaussians,
    "swiss_roll": swiss_roll,
    "two_moons": two_moons,
}
