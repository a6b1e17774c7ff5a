"""The U-Nets of score-SDE, arXiv 2011.13456: DDPM, DDPM++ and NCSN++ are one network with other defaults."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Key, Num

from score_sde_jax import keys as prng
from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks.embedding import FourierFeatures, positional_features
from score_sde_jax.networks.resampling import fir_down, fir_up, mean_down, nearest_up
from score_sde_jax.networks.unet_blocks import (
    NEARLY_ZERO,
    Attention,
    Combine,
    Downsample,
    GroupNorm,
    Image,
    Level,
    Resample,
    ResidualBlock,
    Upsample,
    conv3x3,
    fan_average,
    residual_sum,
)

Residual = Callable[..., Image]

CONDITIONS_OF_EMBEDDING = {
    "fourier": ("log_sigma", "quarter_log_sigma"),
    "positional": ("scaled_time", "level_index"),
    "none": ("none",),
}
"""Noise conditions that each embedding can read: a logarithm, a number that counts levels, or nothing."""


class UNet(nn.Module):
    """Residual U-Net with attention, whose defaults are those of DDPM.

    width, multipliers: channels are width times multiplier at full, half, quarter ... resolution.
    num_blocks: residual blocks at each resolution, and one more on the way up.
    attention: resolutions (heights in pixels) whose blocks are followed by attention, beside the middle of the network.
    embedding: how the condition enters: "positional" sinusoids (a level's number, 999 t), "fourier" features at fixed
    random frequencies of standard deviation `fourier_scale` (log sigma), "none" (the network is told nothing).
    block: "ddpm" blocks, with convolutions that change the resolution between them, or "biggan" blocks that do it.
    fir: change the resolution with the filter (1, 3, 3, 1) rather than by means of and repeated pixels.
    progressive_input: the image at lower resolutions enters too, downsampled alone ("skip") or by a convolution that
    carries the features along ("residual"). progressive_output: the same on the way up, towards the output.
    combine: how a "skip" input enters, by a sum or as further channels.
    skip_rescale: divide sums of two branches by sqrt(2). dropout: probability, in training with `dropout_keys`.
    Raises UserError for an image that cannot be halved as often as there are multipliers after the first.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 2
    attention: tuple[int, ...] = (16,)
    embedding: Literal["positional", "fourier", "none"] = "positional"
    fourier_scale: float = 16.0
    block: Literal["ddpm", "biggan"] = "ddpm"
    fir: bool = False
    progressive_input: Literal["none", "residual", "skip"] = "none"
    progressive_output: Literal["none", "residual", "skip"] = "none"
    combine: Literal["sum", "cat"] = "sum"
    skip_rescale: bool = False
    dropout: float = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"

    @staticmethod
    def conditions(*, embedding: str, **_: Any) -> tuple[str, ...]:
        """Noise conditions that the network reads with this embedding."""
        return CONDITIONS_OF_EMBEDDING[embedding]

    @nn.compact
    def __call__(
        self,
        x: Image,
        condition: Condition,
        train: bool = False,
        dropout_keys: Key[Array, " batch"] | None = None,
    ) -> Image:
        """Network output for centered images x, conditioned on the noise level.

        Training with dropout needs one PRNG key per image; image i drops by dropout_keys[i] alone. Raises ValueError
        where they are missing.
        """
        self._check(x)
        level = self._level(condition.noise)
        if train and self.dropout and dropout_keys is None:
            raise ValueError("training with dropout needs dropout_keys, one key per image")
        numbers = itertools.count()

        def residual(h: Image, features: int, resample: Resample | None = None) -> Image:
            keys = prng.fold_in(dropout_keys, next(numbers)) if train and dropout_keys is not None else None
            block = ResidualBlock(features, self.block, self.skip_rescale, self.dropout, self.dtype, resample)
            return block(h, level, keys)

        h, skips = self._down(x, residual)
        h = residual(h, h.shape[-1])
        h = Attention(self.skip_rescale, self.dtype)(h)
        h = residual(h, h.shape[-1])
        return self._up(h, skips, residual, x.shape[-1]).astype(x.dtype)

    def _check(self, x: Image) -> None:
        unit = 2 ** (len(self.multipliers) - 1)
        if x.shape[1] % unit or x.shape[2] % unit:
            raise UserError(
                f"--config.model.multipliers={tuple(self.multipliers)}: images must be a multiple of {unit} pixels, "
                f"not {x.shape[1]} by {x.shape[2]}"
            )

    def _level(self, noise: Num[Array, " batch"] | None) -> Level:
        """Features of the noise level, as every block takes them."""
        if self.embedding == "none":
            return None
        if noise is None:
            raise UserError(
                f"--config.model.embedding={self.embedding}: needs a condition, which condition.name=none does not give"
            )
        if self.embedding == "fourier":
            level = FourierFeatures(self.width, self.fourier_scale)(noise)
        else:
            level = positional_features(noise, self.width)
        dense = functools.partial(nn.Dense, 4 * self.width, kernel_init=fan_average(), dtype=self.dtype)
        level = nn.silu(dense()(level))
        return nn.silu(dense()(level))

    def _down(self, x: Image, residual: Residual) -> tuple[Image, list[Image]]:
        """The coarsest features, and those of every block on the way."""
        image, h = x, conv3x3(self.width, dtype=self.dtype)(x)
        down = fir_down if self.fir else mean_down
        skips = [h]
        for i, multiplier in enumerate(self.multipliers):
            if i:
                if self.block == "ddpm":
                    h = Downsample(h.shape[-1], self.fir, self.dtype)(h)
                else:
                    h = residual(h, h.shape[-1], down)
                if self.progressive_input == "skip":
                    image = down(image)
                    h = Combine(self.combine, self.dtype)(image, h)
                if self.progressive_input == "residual":
                    image = Downsample(h.shape[-1], self.fir, self.dtype)(image)
                    image = h = residual_sum(image, h, self.skip_rescale)
                skips.append(h)
            for _ in range(self.num_blocks):
                h = self._attend(residual(h, multiplier * self.width))
                skips.append(h)
        return h, skips

    def _up(self, h: Image, skips: list[Image], residual: Residual, channels: int) -> Image:
        """The image that the coarsest features and those of the way down become."""
        up = fir_up if self.fir else nearest_up
        image = None
        for i, multiplier in reversed(list(enumerate(self.multipliers))):
            for _ in range(self.num_blocks + 1):
                h = residual(jnp.concatenate([h, skips.pop()], axis=-1), multiplier * self.width)
            # On the way up attention follows the last block alone.
            h = self._attend(h)
            if self.progressive_output == "skip":
                part = self._head(h, channels, NEARLY_ZERO)
                image = part if image is None else up(image) + part
            if self.progressive_output == "residual":
                if image is None:
                    image = self._head(h, h.shape[-1])
                else:
                    image = Upsample(h.shape[-1], self.fir, self.dtype)(image)
                    image = h = residual_sum(image, h, self.skip_rescale)
            if i and self.block == "ddpm":
                h = Upsample(h.shape[-1], self.fir, self.dtype)(h)
            elif i:
                h = residual(h, h.shape[-1], up)
        if self.progressive_output == "skip" and image is not None:
            return image
        return self._head(h, channels, NEARLY_ZERO)

    def _attend(self, h: Image) -> Image:
        return Attention(self.skip_rescale, self.dtype)(h) if h.shape[1] in self.attention else h

    def _head(self, h: Image, features: int, scale: float = 1.0) -> Image:
        return conv3x3(features, dtype=self.dtype, scale=scale)(nn.silu(GroupNorm(self.dtype)(h)))


class DDPM(UNet):
    """The network of DDPM (arXiv 2006.11239) on images of 32 pixels."""


class DDPMpp(UNet):
    """DDPM++: deeper, with BigGAN's blocks and rescaled sums."""

    num_blocks: int = 4
    block: Literal["ddpm", "biggan"] = "biggan"
    skip_rescale: bool = True


class NCSNpp(DDPMpp):
    """NCSN++: DDPM++ with the FIR filter, the image at every resolution on the way down, and the level as log sigma."""

    embedding: Literal["positional", "fourier", "none"] = "fourier"
    fir: bool = True
    progressive_input: Literal["none", "residual", "skip"] = "residual"
