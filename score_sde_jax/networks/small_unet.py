"""Small U-Net for images of 8 to 32 pixels, which trains in minutes on a CPU."""

from typing import Annotated, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks.embedding import sinusoidal_features
from score_sde_jax.networks.layers import Conv, Dense, block_output
from score_sde_jax.networks.norms import small_group_norm
from score_sde_jax.ranges import Depth, ImageSize, NotEmpty, Range, Width


def to_patches(
    x: Float[Array, "batch height width channels"], patch: int
) -> Float[Array, "batch rows columns features"]:
    """Move the pixels of each patch by patch square into the channels (space to depth)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // patch, width // patch, -1)


def from_patches(
    h: Float[Array, "batch rows columns features"], patch: int
) -> Float[Array, "batch height width channels"]:
    """Invert `to_patches` (depth to space)."""
    batch, rows, columns, features = h.shape
    h = h.reshape(batch, rows, columns, patch, patch, features // patch**2)
    return h.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * patch, columns * patch, -1)


class ResidualBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions; the embedding is added between them.

    Attributes:
        width: number of output channels.
        dtype: dtype of the computation.
    """

    width: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], embedding: Float[Array, "batch features"] | None
    ) -> Float[Array, "batch height width features"]:
        """Return the output features for features x and the embedding of the condition."""
        h = small_group_norm(self.dtype, nn.silu)(x)
        h = Conv(self.width, (3, 3), dtype=self.dtype)(h)
        level = None if embedding is None else Dense(self.width, dtype=self.dtype)(embedding)
        h = small_group_norm(self.dtype, nn.silu)(h, level)
        h = Conv(self.width, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(h)
        if x.shape[-1] != self.width:
            x = Dense(self.width, dtype=self.dtype)(x)
        return block_output(x + h)


class SmallUNet(nn.Module):
    """Residual U-Net on patches, with a dense bottleneck over the whole image.

    Attributes:
        widths: numbers of channels at full, half, quarter ... resolution of the patches.
        patch: side of a patch in pixels; fewer positions with more channels are faster on a CPU.
        num_blocks: number of residual blocks at each resolution, on the way down and on the way up.
        bottleneck: number of features of the dense layer at the lowest resolution; 0 for none.
        num_classes: number of classes for conditioning, 0 for none; label num_classes is the token for "no class".
        dtype: dtype of the computation; parameters are float32.

    Raises:
        UserError: the image size is not a multiple of patch 2^(len(widths) - 1).
    """

    widths: Annotated[tuple[Width, ...], NotEmpty()] = (64, 96)
    patch: ImageSize = 2
    num_blocks: Depth = 2
    bottleneck: Width = 128
    num_classes: Annotated[int, Range(0, 2**16)] = 0
    dtype: Literal["float32", "bfloat16"] = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        condition: Condition,
        train: bool = False,
    ) -> Float[Array, "batch height width channels"]:
        """Return the network output for centered images x, conditioned on the noise level and the class."""
        del train
        unit = self.patch * 2 ** (len(self.widths) - 1)
        if x.shape[1] % unit or x.shape[2] % unit:
            raise UserError(
                f"--config.model.patch={self.patch}: with {len(self.widths)} model.widths, image size must be a "
                f"multiple of {unit}, got {x.shape[1]}x{x.shape[2]}"
            )
        embedding = self._embed(condition, len(x))

        h, skips = Conv(self.widths[0], (3, 3), dtype=self.dtype)(to_patches(x, self.patch)), []
        for i, width in enumerate(self.widths):
            h = h if i == 0 else nn.avg_pool(h, (2, 2), (2, 2))
            for _ in range(self.num_blocks):
                h = ResidualBlock(width, self.dtype)(h, embedding)
            skips.append(h)
        h = self._bottleneck(h, embedding) if self.bottleneck else h
        h = ResidualBlock(self.widths[-1], self.dtype)(h, embedding)
        for width, skip in zip(self.widths[-2::-1], skips[-2::-1], strict=True):
            h = Dense(width, dtype=self.dtype)(h)
            h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)  # Its gradient is a sum, not a scatter.
            h = jnp.concatenate([h, skip], axis=-1)
            for _ in range(self.num_blocks):
                h = ResidualBlock(width, self.dtype)(h, embedding)
        h = small_group_norm(self.dtype, nn.silu)(h)
        out = Conv(x.shape[-1] * self.patch**2, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(h)
        return from_patches(out, self.patch).astype(x.dtype)

    def _embed(self, condition: Condition, batch: int) -> Float[Array, "batch features"] | None:
        """Return the embedding of noise level and class that every block reads."""
        features, embedding = 4 * self.widths[0], None
        if condition.noise is not None:
            embedding = Dense(features, dtype=self.dtype)(sinusoidal_features(condition.noise, 64))
        if self.num_classes:
            label = condition.label if condition.label is not None else jnp.full(batch, self.num_classes)
            # The layer has a name, so that the automatic names of the other layers do not change.
            classes = nn.Embed(self.num_classes + 1, features, dtype=self.dtype, name="label")(label)
            embedding = classes if embedding is None else embedding + classes
        return None if embedding is None else nn.silu(embedding)

    def _bottleneck(
        self, h: Float[Array, "batch height width features"], embedding: Float[Array, "batch embedding"] | None
    ) -> Float[Array, "batch height width features"]:
        """Add a dense two-layer function of all positions."""
        hidden = Dense(self.bottleneck, dtype=self.dtype)(nn.silu(h).reshape(len(h), -1))
        if embedding is not None:
            hidden = hidden + Dense(self.bottleneck, dtype=self.dtype)(embedding)
        return h + Dense(h[0].size, dtype=self.dtype)(nn.silu(hidden)).reshape(h.shape)
