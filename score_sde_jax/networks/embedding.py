"""Features of the noise-level condition, a single number per image."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num, PyTree

# Frequencies in radians per unit. The range covers all noise conditions: a level index, log sigma or 999 t.
SLOWEST, FASTEST = 1e-3, 4.0


def sinusoidal_features(numbers: Num[Array, " batch"], num_features: int) -> Float[Array, "batch features"]:
    """Return sines and cosines of each number at geometrically spaced frequencies.

    Args:
        numbers: noise condition of each image.
        num_features: number of features, even.

    Reference: arXiv 1706.03762, Section 3.5.
    """
    frequencies = np.geomspace(SLOWEST, FASTEST, num_features // 2, dtype=np.float32)
    angles = numbers.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


SLOWEST_WAVE = 10_000  # Longest wavelength of DDPM's features, divided by 2 pi.


def positional_features(numbers: Num[Array, " batch"], num_features: int) -> Float[Array, "batch features"]:
    """Return sines and cosines of each number at frequencies from 1 to 1/10,000, as in DDPM.

    Args:
        numbers: noise condition of each image.
        num_features: number of features; the last of an odd number is zero.

    Reference: arXiv 2006.11239, released code.
    """
    half = num_features // 2
    frequencies = np.exp(-np.log(SLOWEST_WAVE) * np.arange(half) / max(half - 1, 1)).astype(np.float32)
    angles = numbers.astype(jnp.float32)[:, None] * frequencies[None, :]
    features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
    return jnp.pad(features, ((0, 0), (0, num_features % 2)))


FIXED = "fixed_"
"""Prefix of the names of parameters that are not trained, see `trainable`."""


class FourierFeatures(nn.Module):
    """Gaussian Fourier features: sines and cosines at fixed frequencies drawn from N(0, scale^2).

    The frequencies are parameters without a gradient, so that a checkpoint contains them.

    Attributes:
        num_frequencies: number of frequencies, half the number of features.
        scale: standard deviation of the frequencies.

    Reference: arXiv 2006.10739.
    """

    num_frequencies: int
    scale: float

    @nn.compact
    def __call__(self, numbers: Num[Array, " batch"]) -> Float[Array, "batch features"]:
        """Return the sines, then the cosines of 2 pi frequency number."""
        shape = (self.num_frequencies,)
        frequencies = self.param(f"{FIXED}frequencies", nn.initializers.normal(self.scale), shape)
        frequencies = jax.lax.stop_gradient(frequencies)
        angles = numbers.astype(frequencies.dtype)[:, None] * frequencies[None, :] * (2 * np.pi)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def trainable(params: PyTree) -> PyTree:
    """Return a tree like `params` with True for every trained parameter and False for a fixed one.

    Args:
        params: parameters of a network.
    """

    def is_trainable(path: tuple, leaf: Array) -> bool:
        del leaf
        return not any(str(getattr(last, "key", "")).startswith(FIXED) for last in path[-1:])

    return jax.tree_util.tree_map_with_path(is_trainable, params)
