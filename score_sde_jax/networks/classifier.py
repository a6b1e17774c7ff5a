"""Wide residual network that classifies noisy images, conditioned on the noise level."""

from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks.embedding import FourierFeatures, sinusoidal_features
from score_sde_jax.networks.layers import Conv, block_output
from score_sde_jax.networks.norms import small_group_norm
from score_sde_jax.ranges import Depth, Positive, Range, Width

NUM_FEATURES = 128
"""Number of features that encode the noise-level condition."""


class WideBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions; the embedding is added between them.

    The norms are group norms, since the running statistics of a batch norm would mix all noise levels.

    Attributes:
        width: number of output channels.
        stride: stride of the first convolution, 1 or 2.
        dtype: dtype of the computation.
    """

    width: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], embedding: Float[Array, "batch features"] | None
    ) -> Float[Array, "batch rows columns features"]:
        """Return the output features for features x and the embedding of the noise level."""
        strides = (self.stride, self.stride)
        h = small_group_norm(self.dtype, nn.silu)(x)
        if x.shape[-1] != self.width:
            x = h  # As published, the shortcut branches off after the norm if the width changes.
        h = Conv(self.width, (3, 3), strides, dtype=self.dtype)(h)
        level = None if embedding is None else nn.Dense(self.width, dtype=self.dtype)(embedding)
        h = small_group_norm(self.dtype, nn.silu)(h, level)
        h = Conv(self.width, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(h)
        if x.shape[-1] != self.width or self.stride > 1:
            x = Conv(self.width, (1, 1), strides, dtype=self.dtype)(x)
        return block_output(x + h)


class WideResNet(nn.Module):
    """Wide ResNet with three groups of blocks at full, half and quarter resolution, returning logits.

    multiplier=10 and blocks_per_group=4 give WRN-28-10, the classifier of score-SDE.

    Attributes:
        num_classes: number of classes, at least 2.
        multiplier: factor of the widths base, 2 base and 4 base of the groups.
        blocks_per_group: number of residual blocks of each group.
        base: number of channels of the first convolution.
        embedding: "fourier" for Gaussian Fourier features of log sigma, "sinusoidal" for any noise condition.
        fourier_scale: standard deviation of the frequencies of the Fourier features.
        dtype: dtype of the computation; parameters are float32.

    Raises:
        UserError: the image size is not a multiple of 4.

    Reference: arXiv 1605.07146; arXiv 2011.13456, Appendix I.
    """

    is_classifier: ClassVar[bool] = True

    num_classes: Annotated[int, Range(1, 2**16)] = 10
    multiplier: Depth = 10
    blocks_per_group: Depth = 4
    base: Width = 16
    embedding: Literal["fourier", "sinusoidal"] = "fourier"
    fourier_scale: Positive = 16.0
    dtype: Literal["float32", "bfloat16"] = "float32"

    @staticmethod
    def conditions(*, embedding: str, **_: Any) -> tuple[str, ...] | None:
        """Return the noise conditions that the embedding accepts; None for any."""
        return ("log_sigma", "quarter_log_sigma") if embedding == "fourier" else None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        condition: Condition,
        train: bool = False,
    ) -> Float[Array, "batch classes"]:
        """Return the logits of centered images x, conditioned on the noise level."""
        del train
        if x.ndim != 4 or x.shape[1] % 4 or x.shape[2] % 4:
            raise UserError(f"--config.model.name=wide_resnet: image size must be a multiple of 4, got {x.shape[1:]}")
        h, embedding = Conv(self.base, (3, 3), dtype=self.dtype)(x), self._embed(condition.noise)
        for group in range(3):
            width = self.base * self.multiplier * 2**group
            for block in range(self.blocks_per_group):
                h = WideBlock(width, 2 if group and not block else 1, self.dtype)(h, embedding)
        h = jnp.mean(small_group_norm(self.dtype, nn.silu)(h), axis=(1, 2))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros)(h.astype(jnp.float32))

    def _embed(self, noise: Num[Array, " batch"] | None) -> Float[Array, "batch features"] | None:
        """Return the embedding of the noise condition that every block reads."""
        if noise is None:
            return None
        if self.embedding == "fourier":
            features = FourierFeatures(NUM_FEATURES // 2, self.fourier_scale)(noise)
        else:
            features = sinusoidal_features(noise, NUM_FEATURES)
        hidden = nn.Dense(4 * NUM_FEATURES, dtype=self.dtype)(features)
        return nn.silu(nn.Dense(4 * NUM_FEATURES, dtype=self.dtype)(nn.silu(hidden)))
