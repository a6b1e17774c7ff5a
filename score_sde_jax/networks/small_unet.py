"""A small U-Net for images of 8 to 32 pixels that learns in minutes on a CPU."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks.embedding import sinusoidal_features
from score_sde_jax.networks.layers import Conv, Dense, block_output, small_group_norm


def to_patches(
    x: Float[Array, "batch height width channels"], patch: int
) -> Float[Array, "batch rows columns features"]:
    """Squares of patch by patch pixels become the channels of one place."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // patch, width // patch, -1)


def from_patches(
    h: Float[Array, "batch rows columns features"], patch: int
) -> Float[Array, "batch height width channels"]:
    """Inverse of `to_patches`."""
    batch, rows, columns, features = h.shape
    h = h.reshape(batch, rows, columns, patch, patch, features // patch**2)
    return h.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * patch, columns * patch, -1)


class ResidualBlock(nn.Module):
    """Two convolutions with group norms before them; the noise level enters between."""

    width: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], level: Float[Array, "batch features"] | None
    ) -> Float[Array, "batch height width features"]:
        """Features of the block for features x and those of the noise level."""
        h = small_group_norm(x.shape[-1], self.dtype)(x)
        h = Conv(self.width, (3, 3), dtype=self.dtype)(nn.silu(h))
        if level is not None:
            h = h + Dense(self.width, dtype=self.dtype)(level)[:, None, None, :]
        h = small_group_norm(self.width, self.dtype)(h)
        h = Conv(self.width, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(nn.silu(h))
        if x.shape[-1] != self.width:
            x = Dense(self.width, dtype=self.dtype)(x)
        return block_output(x + h)


class SmallUNet(nn.Module):
    """Residual U-Net on patches, whose dense bottleneck lets every pixel see the whole image.

    patch: squares of patch by patch pixels are the channels of one place, so that few places with many channels
    remain, which a CPU computes fastest; widths: channels at full, half, quarter ... resolution of these places;
    num_blocks: residual blocks at each; bottleneck: features of the dense layer on the coarsest level, 0 for none;
    num_classes: classes that it is conditioned on, 0 for none; label num_classes, or none at all, is "no class".
    Raises UserError for an image that patches and halvings do not divide.
    """

    widths: tuple[int, ...] = (64, 96)
    patch: int = 2
    num_blocks: int = 2
    bottleneck: int = 128
    num_classes: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        condition: Condition,
        train: bool = False,
    ) -> Float[Array, "batch height width channels"]:
        """Network output for centered images x, conditioned on the noise level and the class."""
        del train
        unit = self.patch * 2 ** (len(self.widths) - 1)
        if x.shape[1] % unit or x.shape[2] % unit:
            raise UserError(
                f"--config.model.patch={self.patch}: with {len(self.widths)} model.widths, images must be a multiple "
                f"of {unit} pixels, not {x.shape[1]} by {x.shape[2]}"
            )
        level = self._level(condition, len(x))

        h, skips = Conv(self.widths[0], (3, 3), dtype=self.dtype)(to_patches(x, self.patch)), []
        for i, width in enumerate(self.widths):
            h = h if i == 0 else nn.avg_pool(h, (2, 2), (2, 2))
            for _ in range(self.num_blocks):
                h = ResidualBlock(width, self.dtype)(h, level)
            skips.append(h)
        h = self._whole_image(h, level) if self.bottleneck else h
        h = ResidualBlock(self.widths[-1], self.dtype)(h, level)
        for width, skip in zip(self.widths[-2::-1], skips[-2::-1], strict=True):
            h = Dense(width, dtype=self.dtype)(h)
            h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)  # a broadcast: its gradient is a sum, not a scatter
            h = jnp.concatenate([h, skip], axis=-1)
            for _ in range(self.num_blocks):
                h = ResidualBlock(width, self.dtype)(h, level)
        h = nn.silu(small_group_norm(h.shape[-1], self.dtype)(h))
        out = Conv(x.shape[-1] * self.patch**2, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(h)
        return from_patches(out, self.patch).astype(x.dtype)

    def _level(self, condition: Condition, batch: int) -> Float[Array, "batch features"] | None:
        """Features of the noise level and of the class, as every block takes them."""
        features, level = 4 * self.widths[0], None
        if condition.noise is not None:
            level = Dense(features, dtype=self.dtype)(sinusoidal_features(condition.noise, 64))
        if self.num_classes:
            label = condition.label if condition.label is not None else jnp.full(batch, self.num_classes)
            # Named, so that the other layers keep their numbers.
            classes = nn.Embed(self.num_classes + 1, features, dtype=self.dtype, name="label")(label)
            level = classes if level is None else level + classes
        return None if level is None else nn.silu(level)

    def _whole_image(
        self, h: Float[Array, "batch height width features"], level: Float[Array, "batch level"] | None
    ) -> Float[Array, "batch height width features"]:
        """Add a dense two-layer function of all pixels."""
        whole = Dense(self.bottleneck, dtype=self.dtype)(nn.silu(h).reshape(len(h), -1))
        if level is not None:
            whole = whole + Dense(self.bottleneck, dtype=self.dtype)(level)
        return h + Dense(h[0].size, dtype=self.dtype)(nn.silu(whole)).reshape(h.shape)
