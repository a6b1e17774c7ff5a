"""Features of a single number: what a network sees of the noise level."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num, PyTree

# Radians per unit. The number may be a level index, log sigma or 999 t: the range holds a useful frequency for each of
# them.
SLOWEST, FASTEST = 1e-3, 4.0


def sinusoidal_features(numbers: Num[Array, " batch"], num_features: int) -> Float[Array, "batch features"]:
    """Sines and cosines of each number at num_features / 2 geometrically spaced frequencies (arXiv 1706.03762, Section
    3.5).
    """
    frequencies = np.geomspace(SLOWEST, FASTEST, num_features // 2, dtype=np.float32)
    angles = numbers.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


SLOWEST_WAVE = 10_000  # the longest wavelength of DDPM's features, divided by 2 pi


def positional_features(numbers: Num[Array, " batch"], num_features: int) -> Float[Array, "batch features"]:
    """Sines and cosines of each number at geometrically spaced frequencies from 1 to 1/10,000 (arXiv 2006.11239).

    A last feature of an odd number is zero.
    """
    half = num_features // 2
    frequencies = np.exp(-np.log(SLOWEST_WAVE) * np.arange(half) / max(half - 1, 1)).astype(np.float32)
    angles = numbers.astype(jnp.float32)[:, None] * frequencies[None, :]
    features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
    return jnp.pad(features, ((0, 0), (0, num_features % 2)))


FIXED = "fixed_"
"""Start of the names of parameters that training leaves as they were drawn, which `trainable` tells from the others."""


class FourierFeatures(nn.Module):
    """Sines and cosines of each number at frequencies drawn once from N(0, scale^2) (arXiv 2006.10739).

    The frequencies are saved with the parameters, since a trained network needs its own, but have no gradient.
    """

    num_frequencies: int
    scale: float

    @nn.compact
    def __call__(self, numbers: Num[Array, " batch"]) -> Float[Array, "batch features"]:
        """Sines, then cosines of 2 pi frequency number."""
        shape = (self.num_frequencies,)
        frequencies = self.param(f"{FIXED}frequencies", nn.initializers.normal(self.scale), shape)
        frequencies = jax.lax.stop_gradient(frequencies)
        angles = numbers.astype(frequencies.dtype)[:, None] * frequencies[None, :] * (2 * np.pi)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def trainable(params: PyTree) -> PyTree:
    """True for every parameter that training changes, False for a fixed one, in a tree like `params`."""

    def changes(path: tuple, leaf: Array) -> bool:
        del leaf
        return not any(str(getattr(last, "key", "")).startswith(FIXED) for last in path[-1:])

    return jax.tree_util.tree_map_with_path(changes, params)
