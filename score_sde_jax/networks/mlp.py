"""Multi-layer perceptron for points in the plane and other small vectors."""

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from score_sde_jax.condition import Condition
from score_sde_jax.networks.embedding import sinusoidal_features
from score_sde_jax.ranges import Depth, Width


class MLP(nn.Module):
    """Residual perceptron on flattened inputs, with sinusoidal features of the noise condition.

    Attributes:
        width: number of features of the hidden layers.
        depth: number of residual layers.
    """

    takes_points: ClassVar[bool] = True
    """Whether the network is for points, and not for images alone."""

    width: Width = 128
    depth: Depth = 3

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *shape"], condition: Condition, train: bool = False
    ) -> Float[Array, "batch *shape"]:
        """Return the network output for x, conditioned on the noise level."""
        del train
        h = x.reshape(len(x), -1)
        if condition.noise is not None:
            h = jnp.concatenate([h, sinusoidal_features(condition.noise, 64)], axis=-1)
        h = nn.Dense(self.width)(h)
        for _ in range(self.depth):
            h = h + nn.Dense(self.width)(nn.silu(h))
        return nn.Dense(x[0].size)(nn.silu(h)).reshape(x.shape)
