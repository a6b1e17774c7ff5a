"""Features of a single number: what a network sees of the noise level."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

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
