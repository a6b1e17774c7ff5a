"""Statistics that compare two sets of images by their features."""

from score_sde_jax.metrics.frechet import frechet_distance
from score_sde_jax.metrics.neighbours import nearest_distances, nearest_neighbours

__all__ = ["frechet_distance", "nearest_distances", "nearest_neighbours"]
