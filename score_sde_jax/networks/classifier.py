"""A wide residual network that tells the class of a noisy image, and is told how noisy it is."""

from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks.embedding import FourierFeatures, sinusoidal_features
from score_sde_jax.networks.layers import Conv, block_output, small_group_norm

NUM_FEATURES = 128
"""Sines and cosines of the number that tells the noise level."""


class WideBlock(nn.Module):
    """Two 3x3 convolutions with norms before them; the first one halves the image, and the noise level enters between.

    Norms are over groups of an image's own channels: the running means of a batch norm would mix all noise levels.
    """

    width: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], level: Float[Array, "batch features"] | None
    ) -> Float[Array, "batch rows columns features"]:
        """Features of the block for features x and those of the noise level."""
        strides = (self.stride, self.stride)
        h = nn.silu(small_group_norm(x.shape[-1], self.dtype)(x))
        if x.shape[-1] != self.width:
            x = h  # as published: where the width changes, what is carried on is normalised too
        h = Conv(self.width, (3, 3), strides, dtype=self.dtype)(h)
        if level is not None:
            h = h + nn.Dense(self.width, dtype=self.dtype)(level)[:, None, None, :]
        h = nn.silu(small_group_norm(h.shape[-1], self.dtype)(h))
        h = Conv(self.width, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(h)
        if x.shape[-1] != self.width or self.stride > 1:
            x = Conv(self.width, (1, 1), strides, dtype=self.dtype)(x)
        return block_output(x + h)


class WideResNet(nn.Module):
    """Wide ResNet (arXiv 1605.07146): three groups of blocks at full, half and quarter resolution, logits of classes.

    multiplier and blocks_per_group: 10 and 4 make WRN-28-10, the classifier of arXiv 2011.13456, Appendix I; base: the
    channels that the multiplier counts in; embedding: of the number that tells the noise level, "fourier" for its
    logarithm. Raises UserError for an image that two halvings do not divide.
    """

    is_classifier: ClassVar[bool] = True

    num_classes: int = 10
    multiplier: int = 10
    blocks_per_group: int = 4
    base: int = 16
    embedding: Literal["fourier", "sinusoidal"] = "fourier"
    fourier_scale: float = 16.0
    dtype: Literal["float32", "bfloat16"] = "float32"

    @staticmethod
    def conditions(*, embedding: str, **_: Any) -> tuple[str, ...] | None:
        """Noise conditions that the network reads with this embedding; None for any."""
        return ("log_sigma", "quarter_log_sigma") if embedding == "fourier" else None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        condition: Condition,
        train: bool = False,
    ) -> Float[Array, "batch classes"]:
        """Logits for centered images x, conditioned on the noise level."""
        del train
        if x.ndim != 4 or x.shape[1] % 4 or x.shape[2] % 4:
            raise UserError(
                f"--config.model.name=wide_resnet: needs images of a multiple of 4 pixels, not {x.shape[1:]}"
            )
        h, level = Conv(self.base, (3, 3), dtype=self.dtype)(x), self._level(condition.noise)
        for group in range(3):
            width = self.base * self.multiplier * 2**group
            for block in range(self.blocks_per_group):
                h = WideBlock(width, 2 if group and not block else 1, self.dtype)(h, level)
        h = jnp.mean(nn.silu(small_group_norm(h.shape[-1], self.dtype)(h)), axis=(1, 2))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros)(h.astype(jnp.float32))

    def _level(self, noise: Num[Array, " batch"] | None) -> Float[Array, "batch features"] | None:
        if noise is None:
            return None
        if self.embedding == "fourier":
            level = FourierFeatures(NUM_FEATURES // 2, self.fourier_scale)(noise)
        else:
            level = sinusoidal_features(noise, NUM_FEATURES)
        level = nn.Dense(4 * NUM_FEATURES, dtype=self.dtype)(level)
        return nn.silu(nn.Dense(4 * NUM_FEATURES, dtype=self.dtype)(nn.silu(level)))
