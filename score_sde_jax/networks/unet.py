"""U-Nets of score-SDE (arXiv 2011.13456): DDPM, DDPM++ and NCSN++ are one module with different defaults."""

import functools
import itertools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Key, Num

from score_sde_jax import keys as prng
from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks.embedding import FourierFeatures, positional_features
from score_sde_jax.networks.norms import GroupNorm
from score_sde_jax.networks.resampling import fir_down, fir_up, mean_down, nearest_up
from score_sde_jax.networks.unet_blocks import (
    NEARLY_ZERO,
    Attention,
    Combine,
    Downsample,
    Embedding,
    Image,
    Resample,
    ResidualBlock,
    Upsample,
    conv3x3,
    fan_average,
    residual_sum,
)
from score_sde_jax.ranges import Depth, ImageSize, NotEmpty, Positive, Share, Width

Residual = Callable[..., Image]

CONDITIONS_OF_EMBEDDING = {
    "fourier": ("log_sigma", "quarter_log_sigma"),
    "positional": ("scaled_time", "level_index"),
    "none": ("none",),
}
"""Noise conditions that each embedding accepts."""


class UNet(nn.Module):
    """Residual U-Net with attention; the defaults are those of DDPM.

    Attributes:
        width: number of channels at full resolution for multiplier 1.
        multipliers: factors of the width at full, half, quarter ... resolution.
        num_blocks: number of residual blocks at each resolution on the way down; one more on the way up.
        attention: resolutions, as heights in pixels, with attention after their blocks; the middle block always has it.
        embedding: "positional" for sinusoids of 999 t or a level index, "fourier" for Gaussian Fourier features of log
            sigma, "none" for no condition.
        fourier_scale: standard deviation of the frequencies of the Fourier features.
        block: "ddpm", with convolutional resampling between blocks, or "biggan", with resampling inside blocks.
        fir: whether to resample with the FIR filter (1, 3, 3, 1) instead of means and repeated pixels.
        progressive_input: "none"; "skip" to add the downsampled image at each resolution; "residual" to add it by a
            convolution that also carries the features.
        progressive_output: "none"; "skip" to sum image outputs of all resolutions; "residual" to sum feature outputs.
        combine: combination of a "skip" input with the features, "sum" or "cat" (concatenation).
        skip_rescale: whether to divide sums of two branches by sqrt(2).
        dropout: dropout probability in training.
        dtype: dtype of the computation; parameters are float32.

    Raises:
        UserError: the image size is not a multiple of 2^(len(multipliers) - 1), or a noise condition is missing.

    Reference: arXiv 2006.11239, Appendix B; arXiv 2011.13456, Appendix H.
    """

    width: Width = 128
    multipliers: Annotated[tuple[Depth, ...], NotEmpty()] = (1, 2, 2, 2)
    num_blocks: Depth = 2
    attention: tuple[ImageSize, ...] = (16,)
    embedding: Literal["positional", "fourier", "none"] = "positional"
    fourier_scale: Positive = 16.0
    block: Literal["ddpm", "biggan"] = "ddpm"
    fir: bool = False
    progressive_input: Literal["none", "residual", "skip"] = "none"
    progressive_output: Literal["none", "residual", "skip"] = "none"
    combine: Literal["sum", "cat"] = "sum"
    skip_rescale: bool = False
    dropout: Share = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"

    @staticmethod
    def conditions(*, embedding: str, **_: Any) -> tuple[str, ...]:
        """Return the noise conditions that the embedding accepts."""
        return CONDITIONS_OF_EMBEDDING[embedding]

    @nn.compact
    def __call__(
        self,
        x: Image,
        condition: Condition,
        train: bool = False,
        dropout_keys: Key[Array, " batch"] | None = None,
    ) -> Image:
        """Return the network output for centered images x, conditioned on the noise level.

        Args:
            x: centered images.
            condition: condition of the network.
            train: whether to apply dropout.
            dropout_keys: one PRNG key per image, required for training with dropout.

        Raises:
            ValueError: dropout_keys is missing.
        """
        self._check(x)
        embedding = self._embed(condition.noise)
        if train and self.dropout and dropout_keys is None:
            raise ValueError("dropout_keys must be one key per image in training with dropout, got None")
        numbers = itertools.count()

        def residual(h: Image, features: int, resample: Resample | None = None) -> Image:
            keys = prng.fold_in(dropout_keys, next(numbers)) if train and dropout_keys is not None else None
            block = ResidualBlock(features, self.block, self.skip_rescale, self.dropout, self.dtype, resample)
            return block(h, embedding, keys)

        h, skips = self._down(x, residual)
        h = residual(h, h.shape[-1])
        h = Attention(self.skip_rescale, self.dtype)(h)
        h = residual(h, h.shape[-1])
        return self._up(h, skips, residual, x.shape[-1]).astype(x.dtype)

    def notes(self, image_shape: tuple[int, ...]) -> list[str]:
        """Return lines on what a user may not expect of the network for images of a shape.

        Args:
            image_shape: (height, width, channels).
        """
        heights = [image_shape[0] // 2**i for i in range(len(self.multipliers))]
        lost = [str(size) for size in self.attention if size not in heights]
        if not lost:
            return []
        return [
            f"note: model.attention={tuple(self.attention)}: no attention at {', '.join(lost)} pixels, since the "
            f"features of images of height {image_shape[0]} have the heights {', '.join(map(str, heights))}"
        ]

    def _check(self, x: Image) -> None:
        unit = 2 ** (len(self.multipliers) - 1)
        if x.shape[1] % unit or x.shape[2] % unit:
            raise UserError(
                f"--config.model.multipliers={tuple(self.multipliers)}: image size must be a multiple of {unit}, "
                f"got {x.shape[1]}x{x.shape[2]}"
            )

    def _embed(self, noise: Num[Array, " batch"] | None) -> Embedding:
        """Return the embedding of the noise condition that every block reads."""
        if self.embedding == "none":
            return None
        if noise is None:
            raise UserError(
                f"--config.model.embedding={self.embedding}: needs a noise condition, which condition.name=none lacks"
            )
        if self.embedding == "fourier":
            features = FourierFeatures(self.width, self.fourier_scale)(noise)
        else:
            features = positional_features(noise, self.width)
        dense = functools.partial(nn.Dense, 4 * self.width, kernel_init=fan_average(), dtype=self.dtype)
        hidden = nn.silu(dense()(features))
        return nn.silu(dense()(hidden))

    def _down(self, x: Image, residual: Residual) -> tuple[Image, list[Image]]:
        """Return the features at the lowest resolution and the skip connections."""
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
        """Return the output image from the features at the lowest resolution and the skip connections."""
        up = fir_up if self.fir else nearest_up
        image = None
        for i, multiplier in reversed(list(enumerate(self.multipliers))):
            for _ in range(self.num_blocks + 1):
                h = residual(jnp.concatenate([h, skips.pop()], axis=-1), multiplier * self.width)
            # On the way up, attention follows the last block of a resolution only.
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
        return conv3x3(features, dtype=self.dtype, scale=scale)(GroupNorm(self.dtype, nn.silu)(h))


class DDPM(UNet):
    """Network of DDPM for images of 32 pixels.

    Reference: arXiv 2006.11239, Appendix B.
    """


class DDPMpp(UNet):
    """DDPM++: DDPM with twice the blocks, BigGAN blocks and rescaled sums.

    Reference: arXiv 2011.13456, Appendix H.
    """

    num_blocks: Depth = 4
    block: Literal["ddpm", "biggan"] = "biggan"
    skip_rescale: bool = True


class NCSNpp(DDPMpp):
    """NCSN++: DDPM++ with FIR resampling, residual progressive input and Fourier features of log sigma.

    Reference: arXiv 2011.13456, Appendix H.
    """

    embedding: Literal["positional", "fourier", "none"] = "fourier"
    fir: bool = True
    progressive_input: Literal["none", "residual", "skip"] = "residual"
